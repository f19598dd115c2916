"""What the checks of groups remember of each response: a few numbers, and of so many responses and no more."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from service.ingest.check import of_rows_with
from service.ingest.columns import Columns, Ragged, Values, offsets_of, row_sums
from service.ingest.findings.finding import on_tokens
from service.ingest.findings.masks import all_count
from service.ingest.flat import Bools, Floats, Ints
from service.ingest.seen import keys_of

__all__ = ["Groups", "Responses"]

_MOST = 1 << 20  # responses that are remembered, at 57 bytes each
_ONE = 1e-6  # of the largest: by how much the advantages of a response may differ and still be one
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio: spreads token ids over all bits
_CHANCE = -30.0  # nats: a sample comes twice by chance as often as its probability says

_RESPONSE = np.dtype(
    [
        ("group", np.uint64),  # hash of (step, group_id)
        ("line", np.int64),
        ("step", np.int64),
        ("prompt", np.uint64),  # hash of its token ids
        ("content", np.uint64),  # hash of the response's ids and rollout log-probs; 0 where a second may be chance
        ("advantage", np.float64),  # NaN where not known, or not one number for the whole response
        ("reward", np.float64),  # NaN where not known
        ("agentic", np.bool_),  # of several turns, or with tokens that do not count
    ]
)


@dataclass(frozen=True)
class Groups:
    """Responses (`_RESPONSE`), those of a group side by side and in the order of the file."""

    responses: Values  # [n]
    starts: Ints  # [groups] where each begins
    partly: str  # words that say which part of the file this is, if not all

    @property
    def sizes(self) -> Ints:
        """[groups]"""
        return np.diff(self.starts, append=len(self.responses))

    @property
    def steps(self) -> Ints:
        """[groups]"""
        steps: Ints = self.responses["step"][self.starts]
        return steps

    def spread(self, of_groups: Values) -> Values:
        """[n] a value of each group, for each of its responses."""
        return np.repeat(of_groups, self.sizes)

    def any(self, of_responses: Bools) -> Bools:
        """[groups] whether it holds for one of its responses."""
        return np.logical_or.reduceat(of_responses, self.starts)

    def examples(self, responses: Ints, name: str) -> list[dict[str, Any]]:
        """Where the first of these responses are."""
        rows = self.responses[responses]
        first = rows[np.argsort(rows["line"], kind="stable")[:3]]
        return [{"line": int(row["line"]), "field": name, "step": int(row["step"])} for row in first]


class Responses:
    """Takes the responses of a file; `grouped` gives them by group."""

    def __init__(self) -> None:
        self._parts: list[Values] = []
        self._count = 0
        self._more = False

    def add(self, columns: Columns) -> None:
        if self._count >= _MOST:
            self._more = True
            return
        part = np.empty(columns.rows, _RESPONSE)
        part["group"] = keys_of(columns.step, columns.group_id)  # type: ignore[arg-type]
        part["line"], part["step"] = columns.lines, columns.step
        part["prompt"] = _hashes(columns.lists["prompt_token_ids"])
        part["content"] = _contents(columns)
        part["advantage"] = _advantages(columns)
        part["reward"] = [np.nan if reward is None else reward for reward in columns.reward]
        part["agentic"] = _agentic(columns)
        self._parts.append(part)
        self._count += columns.rows

    def grouped(self) -> Groups:
        responses = np.concatenate(self._parts) if self._parts else np.empty(0, _RESPONSE)
        responses = responses[np.argsort(responses["group"], kind="stable")]
        starts = np.flatnonzero(np.diff(responses["group"], prepend=~responses["group"][:1]))
        return Groups(responses, starts, f" (of the first {self._count:,} responses)" if self._more else "")


def _hashes(column: Ragged) -> Ints:
    """[rows] of each list, as the process hashes bytes."""
    data = memoryview(np.ascontiguousarray(column.values).view(np.uint8).data)
    places = (column.offsets * column.values.itemsize).tolist()
    return np.array([hash(bytes(data[a:b])) for a, b in pairwise(places)], np.int64)


def _contents(columns: Columns) -> Values:
    """[rows] Σ bits(log-prob) · odd(token id) modulo 2⁶⁴, as good as any hash, since log-probs have bits enough.

    0 where the sampled tokens have no log-prob, or together a probability that allows for chance.
    """
    column, response = columns.lists.get("rollout_logprobs"), columns.lists["response_token_ids"]
    contents = np.zeros(columns.rows, np.uint64)
    if column is None:
        return contents
    rows = np.flatnonzero(column.present)
    starts = column.offsets[rows]
    likely = np.add.reduceat(column.values, starts) >= _CHANCE
    odd = of_rows_with(column, response, response.values) * _ODD | np.uint64(1)
    contents[rows] = np.where(likely, 0, np.add.reduceat(column.values.view(np.uint64) * odd, starts))
    return contents


def _advantages(columns: Columns) -> Floats:
    """[rows] the one advantage that all counted tokens of a response have; NaN where they differ or are not known."""
    advantages = np.full(columns.rows, np.nan)
    found = on_tokens(columns, "advantage")
    if found is None:
        return advantages
    values, known = found
    response, counted = columns.lists["response_token_ids"], columns.lists["response_mask"].values
    rows, starts = np.arange(columns.rows), response.offsets[:-1]
    if not (known.all() and counted.all()):
        whole = row_sums(known & counted, response.offsets)
        rows = np.flatnonzero((whole > 0) & (whole == row_sums(counted, response.offsets)))
        kept = counted & np.repeat(np.isin(np.arange(columns.rows), rows), response.lengths)
        values, starts = values[kept], offsets_of(whole[rows])[:-1]
    if len(rows):
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        advantages[rows] = np.where(high - low <= _ONE * np.maximum(np.abs(low), np.abs(high)), high, np.nan)
    return advantages


def _agentic(columns: Columns) -> Bools:
    turns, agentic = columns.lists.get("turn"), ~all_count(columns)
    return agentic if turns is None else agentic | (row_sums(turns.values > 0, turns.offsets) > 0)
