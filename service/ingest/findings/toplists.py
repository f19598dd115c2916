"""The engine's top lists: their order, and whether they agree with the sampled token's own log-prob."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.ingest.check import of_rows_with
from service.ingest.columns import Columns, Nested, Values
from service.ingest.findings.finding import Finding, Sightings, many, on_tokens
from service.ingest.flat import Bools, Floats

__all__ = ["SampledInLists", "UnsortedLists"]

_UNSORTED = 1e-6  # nats that a top list may rise by before it is not "best first" (rounding)
_ROUNDING = (1e-3, 4e-3)  # nats, and of the log-prob: three digits, or bfloat16
_ENOUGH = 16  # tokens
_OFTEN = 0.01  # of the tokens
_NEARLY_ALL = 0.99


class UnsortedLists:
    """Records whose top lists are not best first somewhere."""

    def __init__(self) -> None:
        self._seen = Sightings()

    def observe(self, columns: Columns) -> None:
        top = columns.nested.get("rollout_top_logprobs")
        if top is None or top.inner.values.size < 2:
            return
        inner = top.inner
        rises: Bools = np.diff(inner.values) > _UNSORTED
        if inner.known is not None:
            rises &= inner.known[1:] & inner.known[:-1]
        borders = inner.offsets[1:-1]
        rises[borders[(borders > 0) & (borders < len(inner.values))] - 1] = False  # one list's end, the next's start
        if rises.any():
            positions = inner.rows_of(np.append(rises, False))
            rows = np.unique(np.searchsorted(top.offsets, positions, side="right") - 1)
            self._seen.in_rows(columns, rows, "rollout_top_logprobs")

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        message = (
            f"{many(self._seen.count, 'record', 'have')} rollout_top_logprobs that are not best first; the order is "
            "kept as it is, and the first K entries are taken as the top K."
        )
        return [Finding.of("unsorted_top_logprobs", "warning", message, self._seen)]


@dataclass(frozen=True)
class _Lists:
    """The lists of one chunk that can be compared, [lists] each: not empty, and the sampled log-prob known."""

    tokens: Values  # which of the response tokens they are
    logged: Floats  # rollout_logprobs of the sampled token
    own: Floats  # its log-prob in the list; NaN where the list does not have it, or has null
    absent: Bools  # whether the list does not hold it
    first: Floats  # the first entry's log-prob; NaN where it is null
    first_is_own: Bools  # whether the first entry is the sampled token
    least: Floats  # the smallest log-prob of the list

    @classmethod
    def of(cls, columns: Columns, ids: Nested, logprobs: Nested) -> _Lists | None:
        response, logged = columns.lists["response_token_ids"], on_tokens(columns, "rollout_logprobs")
        if logged is None:
            return None
        inner, known = logprobs.inner, logprobs.inner.known
        starts, lengths = inner.offsets[:-1], inner.lengths
        kept = of_rows_with(ids, response, logged[1]) & (lengths > 0)
        if not kept.any():
            return None
        sampled = of_rows_with(ids, response, response.values)
        hits = np.flatnonzero(ids.inner.values == np.repeat(sampled, lengths))
        at = np.searchsorted(inner.offsets, hits, side="right") - 1
        own, absent = np.full(len(lengths), np.nan), np.ones(len(lengths), bool)
        values = inner.values if known is None else np.where(known, inner.values, np.nan)
        own[at] = values[hits]
        absent[at] = False
        least = np.empty(len(lengths))
        least[lengths > 0] = np.minimum.reduceat(inner.values, starts[lengths > 0])
        return cls(
            tokens=of_rows_with(ids, response, np.arange(len(response.values)))[kept],
            logged=of_rows_with(ids, response, logged[0])[kept],
            own=own[kept],
            absent=absent[kept],
            first=values[starts[kept]],
            first_is_own=ids.inner.values[starts[kept]] == sampled[kept],
            least=least[kept],
        )


class SampledInLists:
    """Sampled tokens whose log-prob is not the one that their top list has for them."""

    def __init__(self) -> None:
        self._wrong = Sightings()
        self._compared = 0
        self._listed = 0  # of the wrong ones, those that the list holds …
        self._difference = 0.0  # … and the sum of logged − listed
        self._others = 0  # tokens that are not the first entry, and differ from it by log-prob as well
        self._first = Sightings()  # of those, the ones that have the first entry's log-prob

    def observe(self, columns: Columns) -> None:
        ids, logprobs = (columns.nested.get(f"rollout_top_{name}") for name in ("token_ids", "logprobs"))
        lists = _Lists.of(columns, ids, logprobs) if ids and logprobs else None
        if lists is None:
            return
        difference = lists.logged - lists.own
        has_own = ~np.isnan(lists.own)
        listed = has_own & ~_near(lists.logged, lists.own)
        missing = lists.absent & (lists.logged > lists.least) & ~_near(lists.logged, lists.least)
        other = ~lists.first_is_own & ~np.isnan(lists.first) & (lists.absent | has_own)
        other &= ~_near(lists.first, lists.own)
        self._compared += len(lists.tokens)
        self._listed += int(np.count_nonzero(listed))
        self._difference += float(difference[listed].sum())
        self._others += int(np.count_nonzero(other))
        self._see(columns, self._wrong, lists.tokens[listed | missing])
        self._see(columns, self._first, lists.tokens[other & _near(lists.logged, lists.first)])

    @staticmethod
    def _see(columns: Columns, seen: Sightings, numbers: Values) -> None:
        tokens = np.zeros(len(columns.lists["response_token_ids"].values), bool)
        tokens[numbers] = True
        seen.at_tokens(columns, tokens, "rollout_logprobs")

    def findings(self) -> list[Finding]:
        if self._others >= _ENOUGH and self._first.count >= _NEARLY_ALL * self._others:
            message = (
                "rollout_logprobs are those of the top list's first entry on "
                f"{self._first.count:,} of {many(self._others, 'token')} that are another: the best token's log-prob "
                "was stored for the sampled one's. Look it up by token id."
            )
            return [Finding.of("first_top_entry", "warning", message, self._first)]
        if self._compared < _ENOUGH or self._wrong.count <= _OFTEN * self._compared:
            return []
        missing = self._wrong.count - self._listed
        seen = []
        if self._listed:
            mean = self._difference / self._listed
            seen.append(f"{self._listed:,} have another one in the list (logged − listed: {mean:+.3g} nats on average)")
        if missing:
            seen.append(f"{missing:,} are not in the list, though likelier than its last entry")
        message = (
            f"rollout_logprobs and the top lists disagree on {self._wrong.count:,} of "
            f"{many(self._compared, 'sampled token')}: {'; '.join(seen)}. Raw and processed log-probs mixed, or lists "
            "of other positions?"
        )
        return [Finding.of("top_lists_disagree", "warning", message, self._wrong)]


def _near(one: Floats, other: Floats) -> Bools:
    """Whether two log-probs are the same but for rounding; false beside NaN."""
    near: Bools = np.abs(one - other) <= _ROUNDING[0] + _ROUNDING[1] * np.abs(one)
    return near
