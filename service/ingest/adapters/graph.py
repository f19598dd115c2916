"""The message graph of a verifiers trace: nodes that each add tokens, and the branches from a root to a leaf.

Figures about tokens are compact in a node: one for each sampled token (True in `mask`), in order. `semantic_parents`
says what a message is to others: an attempt to compact the context is a leaf of its own, and is trained only where a
later message goes on from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.ingest.adapters.common import entries, kept
from service.ingest.adapters.fields import Fields

__all__ = ["Branch", "Node", "branches_of", "leaves_of", "nodes_of", "path_to"]

_NUMBERS = ("logprobs", "trainer_logprobs", "advantages", "entropies")
_LOGPROBS = ("logprobs", "trainer_logprobs")
_READ = ("parent", "sampled", "token_ids", "mask", "is_masked", *_NUMBERS)
_MAX_TOKENS = 1 << 23  # of all branches of a trace: they share nodes, so that a small file could name a great many


@dataclass(frozen=True)
class Node:
    """One message: the tokens it adds, and its figures spread over them (null where it was not sampled)."""

    parent: int | None
    sampled: bool
    ids: list[int]
    mask: list[bool]
    columns: dict[str, list[Any] | None]
    links: list[tuple[str | None, int | None]] = field(default_factory=list)  # kind and node of each semantic parent
    about: dict[str, Any] = field(default_factory=dict)  # what else it says: its message, when it came


@dataclass
class Branch:
    """One path of a trace, cut into prompt and response."""

    index: int  # among the leaves
    path: list[int]
    prompt: list[int]
    response: list[int]
    mask: list[bool]
    turns: list[int]  # of each response token: how many sampled messages were before it
    trained: bool  # False: an attempt to compact the context that nothing goes on from
    columns: dict[str, list[Any]] = field(default_factory=dict)
    about: list[dict[str, Any]] = field(default_factory=list)  # of its messages that are in no earlier branch

    @property
    def keeps(self) -> list[bool | None] | None:
        """The trainer's own decision: not masked."""
        masked = self.column("is_masked")
        return masked and [None if value is None else not value for value in masked]

    def column(self, name: str) -> list[Any] | None:
        """A figure of each response token, null where the token does not count; None if none is known."""
        values = zip(self.columns[name], self.mask, strict=True)
        return kept([value if counts else None for value, counts in values])


def nodes_of(trace: Fields) -> list[Node]:
    """The nodes of a trace. Bad ones are noted in `trace.errors`."""
    return [_node(node, index) for index, node in enumerate(trace.each("nodes"))]


def _node(node: Fields, index: int) -> Node:
    parent = node.integer("parent")
    if parent is not None and not 0 <= parent < index:
        node.wrong("parent", f"{parent} is no node before this one")
    ids = node.ids("token_ids") if node.get("token_ids") else []
    mask = None if ids is None else node.flags("mask", len(ids)) if node.get("mask") else [False] * len(ids)
    if ids is None or mask is None:
        return Node(parent, False, [], [], {})
    columns: dict[str, list[Any] | None] = {name: _spread(node, name, node.numbers(name), mask) for name in _NUMBERS}
    columns["is_masked"] = _spread(node, "is_masked", node.marks("is_masked"), mask)
    links = [(link.text("type"), link.integer("node")) for link in node.each("semantic_parents")]
    return Node(parent, node.get("sampled") is True, ids, mask, columns, links, node.rest(_READ))


def _spread(node: Fields, name: str, values: list[Any] | None, mask: list[bool]) -> list[Any] | None:
    """A compact list over all tokens of its node; one that is as long as the node already lies over them."""
    if not values:
        return None
    if name in _LOGPROBS:
        bad = next((index for index, value in enumerate(values) if value is not None and value > 0), None)
        if bad is not None:
            node.wrong(f"{name}[{bad}]", f"{values[bad]} is a positive log-probability")
    sampled = sum(mask)
    if len(values) == sampled:
        rest = iter(values)
        return [next(rest) if counts else None for counts in mask]
    if len(values) == len(mask):
        return [value if counts else None for value, counts in zip(values, mask, strict=True)]
    node.wrong(name, f"has {entries(len(values))}, but the node has {entries(sampled)} of mask that are true")
    return None


def branches_of(trace: Fields, nodes: list[Node]) -> list[Branch]:
    """The branches in which a token counts. One that has no prompt, or too many tokens, is noted in `trace.errors`."""
    branches: list[Branch] = []
    resumed = {place for node in nodes for kind, place in node.links if kind == "compaction"}
    taken: set[int] = set()  # sampled nodes that count in an earlier branch
    total = 0
    for index, leaf in enumerate(leaves_of(nodes)):
        path = path_to(nodes, leaf)
        total += sum(1 + len(nodes[place].ids) for place in path)
        if total > _MAX_TOKENS:
            trace.wrong("nodes", f"have branches of more than {_MAX_TOKENS} tokens together")
            return []
        attempt = any(kind == "compaction_attempt" for kind, _ in nodes[leaf].links)
        trained = not attempt or leaf in resumed
        branch = _branch(trace, nodes, path, index, taken, trained)
        if branch is not None:
            branches.append(branch)
        if trained:
            taken.update(path)
    return branches


def leaves_of(nodes: list[Node]) -> list[int]:
    """The nodes that no other follows; each ends a branch, whose index is its place here."""
    parents = {node.parent for node in nodes}
    return [index for index in range(len(nodes)) if index not in parents]


def path_to(nodes: list[Node], leaf: int) -> list[int]:
    """The nodes of a branch, from its root."""
    path = [leaf]
    while (parent := nodes[path[-1]].parent) is not None:
        path.append(parent)
    return path[::-1]


def _branch(
    trace: Fields, nodes: list[Node], path: list[int], index: int, taken: set[int], trained: bool
) -> Branch | None:
    ids: list[int] = []
    mask: list[bool] = []
    turns: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in (*_NUMBERS, "is_masked")}
    turn = 0
    for place in path:
        node = nodes[place]
        length = len(node.ids)
        ids += node.ids
        mask += [False] * length if place in taken else node.mask
        turns += [turn] * length
        turn += node.sampled
        for name, column in columns.items():
            column += node.columns[name] or [None] * length
    if True not in mask:
        return None
    start = mask.index(True)
    if start == 0:
        trace.wrong(f"nodes[{path[0]}].mask[0]", "is true on a first token: with none before it, it has no log-prob")
        return None
    cut = {name: column[start:] for name, column in columns.items()}
    about = [nodes[place].about for place in path if place not in taken and nodes[place].about]
    return Branch(index, path, ids[:start], ids[start:], mask[start:], turns[start:], trained, cut, about)
