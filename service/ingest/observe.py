"""What is odd about checked columns, but no error: told to `Notices`."""

from __future__ import annotations

import numpy as np

from service.ingest.columns import LOGPROBS, Columns, row_sums
from service.ingest.flat import Bools
from service.ingest.notices import Notices

__all__ = ["observe", "observe_masks"]

_UNSORTED = 1e-6  # nats that a top list may rise by before it is not "best first" (rounding)


def observe_masks(columns: Columns, notices: Notices) -> None:
    """Records without a mask; to be asked before `settle` gives every record one."""
    mask = columns.lists.get("response_mask")
    notices.no_mask((columns.lines if mask is None else columns.lines[~mask.present]).tolist())


def observe(columns: Columns, notices: Notices) -> None:
    """Exact zeros among log-probs, unsorted top lists and what is approximate, in settled columns."""
    notices.approximate(columns.lines[[bool(marked) for marked in columns.logprobs_approximate]].tolist())
    for name in LOGPROBS:
        column = columns.lists.get(name)
        if column is None:
            continue
        known = np.ones(len(column.values), bool) if column.known is None else column.known
        zeros = (column.values == 0) & known
        zero_count = int(zeros.sum())
        all_zero = np.empty(0, np.int64)
        if zero_count:
            by_row = row_sums(zeros, column.offsets)
            all_zero = columns.lines[(by_row > 0) & (by_row == row_sums(known, column.offsets))]
        notices.zeros(name, zero_count, int(known.sum()), all_zero.tolist())
    _observe_top(columns, notices)


def _observe_top(columns: Columns, notices: Notices) -> None:
    top = columns.nested.get("rollout_top_logprobs")
    if top is None or top.inner.values.size < 2:
        return
    inner = top.inner
    rises: Bools = np.diff(inner.values) > _UNSORTED
    if inner.known is not None:
        rises &= inner.known[1:] & inner.known[:-1]
    borders = inner.offsets[1:-1]
    rises[borders[(borders > 0) & (borders < len(inner.values))] - 1] = False  # one list's end, the next one's start
    if rises.any():
        positions = inner.rows_of(np.append(rises, False))
        rows = np.unique(np.searchsorted(top.offsets, positions, side="right") - 1)
        notices.unsorted_top(columns.lines[rows].tolist())
