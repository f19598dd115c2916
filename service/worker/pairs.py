"""OLD and NEW over a list of responses in one batch layout, and OLD over a few of them in another.

Layouts alone move a bfloat16 log-prob by tenths of a nat: both policies always see the same one, and what another
one would have given is the noise floor. Two bases that do not fit together run one after the other; the first one's
hidden rows and LM head stay.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dppo_core.two_policy import TwoPolicyScorer, TwoPolicyStats, rows_of
from service.worker.batches import Batch, Response, batches, packed
from service.worker.policies import Checkpoint, Head, Policy, PolicyPool

__all__ = ["BATCH_TOKENS", "Places", "Scored", "lay_out", "score_pair", "score_responses"]

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # on a CPU any size from 500 to 4,000 tokens is as fast
WORTH_PACKING = 0.1  # share of tokens that shared prompts save, from which a GPU packs
NOISE_SHARE = 0.04
"""Tokens that OLD runs again, of those that both policies run; with the LM head products about 5 % of the time."""

Support = Callable[[Tensor], Tensor | None]
"""Support ids [N, M] of the counted tokens at the given places, for `TwoPolicyScorer.score`."""
ScorerFor = Callable[[int, int], TwoPolicyScorer]
"""The statistics' buffers for OLD's and NEW's numbers of logits; raises where they differ."""


@dataclass(frozen=True)
class Scored:
    """`stats` of OLD → NEW on every counted token, in list and position order; `noise` of OLD → OLD in another layout
    on the tokens `noise_at` of those, None where nothing was scored twice."""

    stats: TwoPolicyStats
    noise: TwoPolicyStats | None
    noise_at: Tensor


@dataclass
class _Side:
    """One policy: its LM head, and its hidden rows batch by batch."""

    head: Head
    rows: Iterable[Tensor]


@dataclass
class _Pair:
    """Both policies over one plan of batches, and OLD over the batches `twice`."""

    plan: list[Batch]
    old: _Side
    new: _Side
    twice: list[Batch]
    again: Iterable[Tensor]
    scorer: TwoPolicyScorer
    device: torch.device
    in_turn: bool = False  # half of the progress was told while the first policy ran


class Places:
    """Where each response's counted tokens stand among all counted tokens of a list."""

    def __init__(self, items: list[Response]) -> None:
        self._places = {}
        first = 0
        for item in items:
            count = int(item.counted.sum())
            self._places[item.row] = torch.arange(first, first + count)
            first += count

    def __getitem__(self, batch: Batch) -> Tensor:
        return torch.cat([self._places[row] for row in batch.rows])

    def split(self, batch: Batch, rows_ND: Tensor) -> Iterator[tuple[int, Tensor]]:
        """A batch's hidden rows by response."""
        return zip(batch.rows, torch.split(rows_ND, [len(self._places[row]) for row in batch.rows]), strict=True)


def score_responses(
    old: Policy,
    new: Policy,
    items: list[Response],
    scorer: TwoPolicyScorer,
    *,
    share_prompts: bool = True,
    batch_tokens: int | None = None,
) -> TwoPolicyStats:
    """Statistics of every counted token of `items` (their `row` = place in the list), in list and position order."""
    plan = lay_out(items, [old, new], share_prompts=share_prompts, batch_tokens=batch_tokens)
    return _scored(_Pair(plan, _side(old, plan), _side(new, plan), [], [], scorer, old.device), Places(items)).stats


def score_pair(
    pool: PolicyPool,
    old: Checkpoint,
    new: Checkpoint,
    items: list[Response],
    scorer_for: ScorerFor,
    *,
    together: bool,
    support: Support | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """Statistics of `items` under the pair, and the noise floor of OLD.

    `together`: both in memory at once. Otherwise one after the other: the one whose base is loaded runs first, so that
    a call loads one base, and its hidden rows stay in memory: counted tokens × hidden size. The results are the same.
    `progress` is told how many more tokens are done.
    """
    report = progress or (lambda _: None)
    if together or old.base_key == new.base_key:
        pair = _together(pool, old, new, items, scorer_for)
    else:
        pair = _in_turn(pool, old, new, items, scorer_for, report)
    return _scored(pair, Places(items), support, report)


def lay_out(
    items: list[Response],
    policies: list[Policy],
    *,
    share_prompts: bool = True,
    batch_tokens: int | None = None,
    may_pack: bool = True,
) -> list[Batch]:
    """The batches of `items`: packed where every policy's attention can branch, else padded.

    On a GPU packing wins by shared prompts only, for attention to each sequence by itself is many small calls.
    """
    device = policies[0].device.type
    budget = batch_tokens or BATCH_TOKENS[device]
    if may_pack and all(policy.can_branch for policy in policies):
        plan = list(packed(items, budget, share_prompts=share_prompts))
        if device == "cpu" or _saved(plan) >= WORTH_PACKING:
            return plan
    return list(batches(items, budget))


def _saved(plan: list[Batch]) -> float:
    """The share of tokens that packed batches do not run because prompts are shared."""
    saved = sum((len(tree.responses) - 1) * tree.prompt for batch in plan for tree in batch.trees)
    return saved / max(1, saved + sum(batch.token_ids_BT.numel() for batch in plan))


def _together(
    pool: PolicyPool, old: Checkpoint, new: Checkpoint, items: list[Response], scorer_for: ScorerFor
) -> _Pair:
    before, after = pool.get([old, new])
    scorer = scorer_for(before.vocab_size, after.vocab_size)
    plan = lay_out(items, [before, after])
    twice = _another_layout(items, plan)
    again = map(before.hidden_rows, twice)
    return _Pair(plan, _side(before, plan), _side(after, plan), twice, again, scorer, before.device)


def _in_turn(
    pool: PolicyPool,
    old: Checkpoint,
    new: Checkpoint,
    items: list[Response],
    scorer_for: ScorerFor,
    report: Callable[[int], None],
    *,
    may_pack: bool = True,
) -> _Pair:
    first, second = (new, old) if pool.holds(new) and not pool.holds(old) else (old, new)
    (policy,) = pool.get([first])
    plan = lay_out(items, [policy], may_pack=may_pack)
    twice = _another_layout(items, plan)
    vocab, kept = policy.vocab_size, _Side(policy.head, [_kept(policy, batch, report) for batch in plan])
    again: Iterable[Tensor] = [policy.hidden_rows(batch).cpu() for batch in twice] if first is old else []
    del policy  # the last that holds its backbone: loading the other drops it
    (policy,) = pool.get([second])
    if not policy.can_branch and any(batch.trees for batch in plan):
        report(-sum(len(batch.at) // 2 for batch in plan))  # all over again, padded
        return _in_turn(pool, old, new, items, scorer_for, report, may_pack=False)
    other = _side(policy, plan)
    if first is old:
        return _Pair(plan, kept, other, twice, again, scorer_for(vocab, policy.vocab_size), policy.device, True)
    again = map(policy.hidden_rows, twice)
    return _Pair(plan, other, kept, twice, again, scorer_for(policy.vocab_size, vocab), policy.device, True)


def _side(policy: Policy, plan: list[Batch]) -> _Side:
    """A policy in memory, whose rows are computed as they are asked for."""
    return _Side(policy.head, map(policy.hidden_rows, plan))


def _kept(policy: Policy, batch: Batch, report: Callable[[int], None]) -> Tensor:
    rows = policy.hidden_rows(batch).cpu()
    report(len(batch.at) // 2)
    return rows


def _another_layout(items: list[Response], plan: list[Batch]) -> list[Batch]:
    """A few responses in the layout that `plan` does not use: padded after packed, alone after in company.

    Which ones does not depend on anything but their tokens. At least one, where there is another layout for any.
    """
    packed_plan = any(batch.trees for batch in plan)
    in_company = {row for batch in plan for row in batch.rows if packed_plan or len(batch.rows) > 1}
    left = NOISE_SHARE * 2 * sum(batch.token_ids_BT.numel() for batch in plan)
    chosen: list[Response] = []
    for item in sorted(items, key=lambda item: (zlib.crc32(item.prompt.tobytes() + item.response.tobytes()), item.row)):
        if item.row in in_company:
            left -= item.length
            if chosen and left < 0:
                break
            chosen.append(item)
    if packed_plan:
        return list(batches(chosen, BATCH_TOKENS["cpu"]))
    return [batch for item in chosen for batch in batches([item], item.length)]


def _scored(
    pair: _Pair, places: Places, support: Support | None = None, report: Callable[[int], None] = lambda _: None
) -> Scored:
    """The one pass over both policies' logits, batch by batch, then OLD's second rows against its first."""

    def stats(batch: Batch, old: Tensor, new_head: Head, new: Tensor, ids: Tensor | None) -> TwoPolicyStats:
        return pair.scorer.score(
            pair.old.head.logits_of(old.to(pair.device)),
            new_head.logits_of(new.to(pair.device)),
            batch.sampled.to(pair.device),
            None if ids is None else ids.to(pair.device),
        ).map(Tensor.cpu)

    wanted = {row for batch in pair.twice for row in batch.rows}
    noted: dict[int, Tensor] = {}
    parts, at = [], []
    for batch, old, new in zip(pair.plan, pair.old.rows, pair.new.rows, strict=True):
        noted |= {row: part.clone() for row, part in places.split(batch, old) if row in wanted}
        at.append(places[batch])
        parts.append(stats(batch, old, pair.new.head, new, support(at[-1]) if support else None))
        report(len(batch.at) - (len(batch.at) // 2 if pair.in_turn else 0))
    if not parts:
        nothing = rows_of(torch.empty(0))
        empty = torch.empty(0, dtype=torch.long)
        return Scored(pair.scorer.score(nothing, nothing, empty), None, empty)
    order = torch.cat(at).argsort()
    found = TwoPolicyStats.concatenate(parts).map(lambda values: values[order])
    again = [
        stats(batch, torch.cat([noted[row] for row in batch.rows]), pair.old.head, rows, None)
        for batch, rows in zip(pair.twice, pair.again, strict=True)
    ]
    noise = TwoPolicyStats.concatenate(again) if again else None
    return Scored(found, noise, torch.cat([places[batch] for batch in pair.twice]) if again else order[:0])
