"""prime-rl's `traces/annotations/`: what is learned of a trace after its episode was written to the stream beside it.

Each producer (orchestrator, trainer) appends updates to a file of its own: `{version, trace_id, info, branches:
[{index, advantages, trainer_logprobs, entropies, is_masked}]}`, `index` that of the leaf, each list over all tokens of
the branch, prompt included, null where nothing is known. `fold` puts them where the adapter reads them: into the
nodes, compact over each node's mask, and `info` into the trace's own. Later updates win, as for prime-rl's own readers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from service.ingest.adapters.fields import Fields
from service.ingest.adapters.graph import Node, leaves_of, nodes_of, path_to

__all__ = ["Annotations", "is_annotation"]

STREAMS = ("advantages", "trainer_logprobs", "entropies", "is_masked")

NO_TRACE = "annotated traces are in none of the streams given"
NO_BRANCH = "annotated branches are not in their trace"
PARTLY = "annotated branches are covered in part: messages that are not covered whole keep what they had"


def is_annotation(names: frozenset[str]) -> bool:
    """Whether a record with these field names is an update of a trace."""
    return {"trace_id", "branches"} <= names


class Annotations:
    """Updates by their trace, as the bytes they came in: parsed lists of numbers would take five times as much."""

    def __init__(self, notes: Counter[str]) -> None:
        self._updates: defaultdict[str, list[bytes]] = defaultdict(list)
        self._notes = notes
        self._folded: set[str] = set()

    @property
    def unused(self) -> int:
        """Traces that are annotated and were not seen."""
        return len(self._updates.keys() - self._folded)

    def add(self, line: int, raw: dict[str, Any], text: bytes) -> None:
        """One update. Raises `BadRecord`."""
        update = Fields(line, raw)
        if raw.get("version") not in (None, 1):
            update.wrong("version", "is not 1, the only version of annotations that is known")
        update.need("trace_id")
        trace = update.name("trace_id")
        update.inside("info")
        for branch in update.each("branches"):
            branch.need("index")
            branch.integer("index")
            for name in STREAMS[:-1]:
                branch.numbers(name)
            branch.marks("is_masked")
        update.check()
        assert trace is not None
        self._updates[trace].append(text)

    def fold(self, trace: dict[str, Any]) -> None:
        """Put what is known of a trace into it."""
        name = trace.get("id")
        if not isinstance(name, str) or name not in self._updates:
            return
        self._folded.add(name)
        fields = Fields(0, trace)
        nodes = nodes_of(fields)
        if fields.errors:  # the adapter will name them
            return
        leaves = leaves_of(nodes)
        for text in self._updates[name]:
            update = json.loads(text)
            if update.get("info"):
                trace["info"] = _merged(trace.get("info"), update["info"])
            for branch in update.get("branches") or []:
                if 0 <= branch["index"] < len(leaves):
                    path = path_to(nodes, leaves[branch["index"]])
                    whole = [_spread(trace["nodes"], nodes, path, name, branch.get(name)) for name in STREAMS]
                    self._notes[PARTLY] += not all(whole)
                else:
                    self._notes[NO_BRANCH] += 1


def _spread(raw: list[dict[str, Any]], nodes: list[Node], path: list[int], name: str, values: list[Any] | None) -> bool:
    """A list over a branch, into its nodes; whether it reaches to the end. A node is covered whole or not at all."""
    if not values:
        return True
    start = 0
    for place in path:
        node = nodes[place]
        stop = start + len(node.ids)
        if stop > len(values):
            return False
        sampled = [value for value, counts in zip(values[start:stop], node.mask, strict=True) if counts]
        unknown = sampled.count(None)
        if sampled and (unknown == 0 or (name == "is_masked" and unknown < len(sampled))):
            raw[place][name] = sampled
        start = stop
    return True


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return new
