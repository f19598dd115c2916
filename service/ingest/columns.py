"""Rollouts by column, between the readers (NDJSON, Parquet) and the checks: numpy arrays, nothing decided yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from service.ingest.flat import Bools, Ints

__all__ = ["LOGPROBS", "RESPONSE_LISTS", "Columns", "Nested", "Ragged", "Values", "offsets_of", "row_sums"]

Values = npt.NDArray[Any]

LOGPROBS = ("rollout_logprobs", "old_logprobs", "new_logprobs")
RESPONSE_LISTS = (
    "response_mask",
    *LOGPROBS,
    "token_rewards",
    "advantage",
    "trainer_keep",
    "policy_version",
    "turn",
    "minibatch",
)


@dataclass
class Ragged:
    """One list a row, end to end: row i is `values[offsets[i]:offsets[i + 1]]`."""

    present: Bools  # [rows] whether the row has the list at all; where not, its slice is empty
    offsets: Ints  # [rows + 1]
    values: Values  # [elements] 0 where not known
    known: Bools | None  # [elements] False where the element is null; None: every one is known

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def rows_of(self, elements: Bools) -> Ints:
        """The rows in which `elements` is true somewhere."""
        hits = np.flatnonzero(elements)
        return np.unique(np.searchsorted(self.offsets, hits, side="right") - 1)


@dataclass
class Nested:
    """One list of lists a row: `inner` has one row for every position of every row."""

    present: Bools  # [rows]
    offsets: Ints  # [rows + 1], in positions
    inner: Ragged  # a null position counts as empty

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)


@dataclass
class Columns:
    """`rows` rollouts. Columns that no row has are missing from `lists`, `nested` and `texts`."""

    lines: Ints  # [rows] line (row) numbers in the file
    step: list[int | float | None]
    sample_id: list[str]
    group_id: list[str]
    lists: dict[str, Ragged]  # the ids and RESPONSE_LISTS; a number for all tokens is repeated
    nested: dict[str, Nested]  # rollout_top_token_ids, rollout_top_logprobs
    reward: list[float | None]  # where it is a number; the list is in lists["token_rewards"]
    texts: dict[str, list[str | None]]  # prompt_text, response_text, finish_reason
    logprobs_approximate: list[bool | None]
    meta: list[str | None]  # JSON text, canonical
    gave_mask: Bools = field(default_factory=lambda: np.zeros(0, bool))  # [rows] set by `settle`, which gives all one

    @property
    def rows(self) -> int:
        return len(self.lines)


def offsets_of(lengths: Sequence[int] | npt.NDArray[Any]) -> Ints:
    """[rows + 1] from [rows]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def row_sums(elements: Values, offsets: Ints) -> Ints:
    """[rows] how many of each row's `elements` are true."""
    totals = np.zeros(len(elements) + 1, np.int64)
    np.cumsum(elements, out=totals[1:])
    sums: Ints = totals[offsets[1:]] - totals[offsets[:-1]]
    return sums
