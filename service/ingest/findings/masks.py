"""Tokens that count and may not be the policy's own: what the environment or the chat template put between turns."""

from __future__ import annotations

import numpy as np

from service.ingest.columns import Columns, Ragged, row_sums
from service.ingest.findings.finding import Finding, Sightings, many, on_tokens
from service.ingest.flat import Bools, Ints

__all__ = ["ADVICE", "NoMask", "UnknownRuns", "UnmaskedTurns", "all_count"]

ADVICE = "Log response_mask, 0 on every token that the policy did not sample."
_LONG = 8  # tokens of a run without log-prob: more than an engine forgets at the end of a response


def all_count(columns: Columns) -> Bools:
    """[rows] whether every token of the response counts."""
    mask = columns.lists["response_mask"]
    if mask.values.all():
        return np.ones(columns.rows, bool)
    counted: Bools = row_sums(mask.values, mask.offsets) == mask.lengths
    return counted


class NoMask:
    """Records without `response_mask`."""

    def __init__(self) -> None:
        self._seen = Sightings()

    def observe(self, columns: Columns) -> None:
        self._seen.in_rows(columns, ~columns.gave_mask, "response_mask")

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        message = (
            f"{many(self._seen.count, 'record', 'have')} no response_mask: every response token counts. If tool or "
            "observation tokens are among them, log the mask."
        )
        return [Finding.of("no_response_mask", "warning", message, self._seen)]


class UnmaskedTurns:
    """Responses of several turns in which every token counts."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._no_mask = 0

    def observe(self, columns: Columns) -> None:
        turns = columns.lists.get("turn")
        if turns is None:
            return
        rows = _varies(turns) & all_count(columns)
        self._seen.in_rows(columns, rows, "turn")
        self._no_mask += int(np.count_nonzero(rows & ~columns.gave_mask))

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        message = (
            f"{many(self._seen.count, 'response', 'have')} several turns, and every token of them counts"
            + (f" ({self._no_mask:,} without response_mask)" if self._no_mask else "")
            + f". Between two turns stand tool output, observations or the chat template. {ADVICE}"
        )
        return [Finding.of("unmasked_turns", "warning", message, self._seen)]


def _varies(column: Ragged) -> Bools:
    """[rows] whether the list has more than one value."""
    differs = np.zeros(len(column.values), bool)
    differs[1:] = column.values[1:] != column.values[:-1]
    starts = column.offsets[:-1][column.lengths > 0]
    differs[starts] = False
    varies: Bools = row_sums(differs, column.offsets) > 0
    return varies


class UnknownRuns:
    """Long runs of counted tokens without a log-prob, in responses whose other tokens have one."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._tokens = 0

    def observe(self, columns: Columns) -> None:
        found = on_tokens(columns, "rollout_logprobs")
        if found is None:
            return
        response, mask = columns.lists["response_token_ids"], columns.lists["response_mask"]
        unknown: Bools = mask.values & ~found[1]
        if not unknown.any():
            return
        some = row_sums(found[1], response.offsets) > 0
        starts, lengths = _runs(unknown & np.repeat(some, response.lengths), response.offsets)
        starts, lengths = starts[lengths >= _LONG], lengths[lengths >= _LONG]
        first = np.zeros(len(unknown), bool)
        first[starts] = True
        self._seen.at_tokens(columns, first, "rollout_logprobs")
        self._tokens += int(lengths.sum())

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        message = (
            f"{many(self._seen.count, 'run')} of {_LONG} or more counted tokens without rollout_logprobs, in responses "
            f"whose other tokens have them ({many(self._tokens, 'token')}): not sampled, but tool output or "
            f"observations? {ADVICE}"
        )
        return [Finding.of("unknown_runs", "warning", message, self._seen)]


def _runs(elements: Bools, offsets: Ints) -> tuple[Ints, Ints]:
    """Where the runs of true elements start, and how long they are; none goes from one row into the next."""
    padded = np.concatenate([[False], elements, [False]])
    begins, ends = padded[1:-1] & ~padded[:-2], padded[1:-1] & ~padded[2:]
    borders = offsets[:-1][np.diff(offsets) > 0]
    begins[borders] = elements[borders]
    ends[borders[1:] - 1] = elements[borders[1:] - 1]
    starts = np.flatnonzero(begins)
    return starts, np.flatnonzero(ends) - starts + 1
