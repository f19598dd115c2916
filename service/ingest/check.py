"""The rules of the rollout record on whole columns: which rows are beyond doubt.

No words here: a row that is in doubt is read again by `examine`, which says what is wrong with it. The two must agree;
the tests hold one against the other.
"""

from __future__ import annotations

import re

import numpy as np

from service.ingest.columns import LOGPROBS, RESPONSE_LISTS, Columns, Nested, Ragged, Values
from service.ingest.flat import Bools
from service.ingest.task import MAX_STEP

__all__ = ["MAX_ID", "MAX_TOKEN", "MAX_TURN", "counted_tokens", "doubtful", "is_good_id", "of_rows_with"]

MAX_ID = 200  # characters of sample_id and group_id
MAX_TOKEN = (1 << 31) - 1
MAX_TURN = (1 << 32) - 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NEVER_NULL = (
    "prompt_token_ids",
    "response_token_ids",
    "response_mask",
    "token_rewards",
    "policy_version",
    "turn",
    "minibatch",
)


def is_good_id(text: str) -> bool:
    """Whether the text may be an id: 1 to 200 characters, no control characters among them."""
    return 0 < len(text) <= MAX_ID and (text.isprintable() or not _CONTROL.search(text))


def doubtful(columns: Columns, step: int | None) -> Bools:
    """[rows] which rows may break a rule. `step`: the one that all records must have, if given."""
    if _bad_shapes(columns).any():  # then the columns do not lie side by side: any row may break a rule
        return np.ones(columns.rows, bool)
    return _bad_scalars(columns, step) | _bad_values(columns)


def counted_tokens(columns: Columns) -> Bools:
    """[response tokens] which tokens count: `response_mask`, true where there is none."""
    response = columns.lists["response_token_ids"]
    counted = np.ones(len(response.values), bool)
    mask = columns.lists.get("response_mask")
    if mask is not None:
        counted[np.repeat(mask.present, response.lengths)] = mask.values != 0
    return counted


def of_rows_with(column: Ragged | Nested, response: Ragged, elements: Values) -> Values:
    """`elements`, one per response token, of those rows that have `column`."""
    return elements if column.present.all() else elements[np.repeat(column.present, response.lengths)]


def _bad_shapes(columns: Columns) -> Bools:
    response = columns.lists["response_token_ids"]
    bad: Bools = (columns.lists["prompt_token_ids"].lengths == 0) | (response.lengths == 0)
    for name in RESPONSE_LISTS:
        column = columns.lists.get(name)
        if column is not None:
            bad |= column.present & (column.lengths != response.lengths)
    for nested in columns.nested.values():
        bad |= nested.present & (nested.lengths != response.lengths)
    return bad


def _bad_scalars(columns: Columns, step: int | None) -> Bools:
    bad: Bools = _bad_ids(columns.sample_id) | _bad_ids(columns.group_id) | _bad_steps(columns, step)
    bad |= ~np.isfinite(np.array([0.0 if reward is None else reward for reward in columns.reward]))
    return bad


def _bad_ids(ids: list[str]) -> Bools:
    if all(map(str.isprintable, ids)) and min(map(len, ids)) > 0 and max(map(len, ids)) <= MAX_ID:
        return np.zeros(len(ids), bool)
    return ~np.fromiter(map(is_good_id, ids), bool, len(ids))


def _bad_steps(columns: Columns, step: int | None) -> Bools:
    given = np.nan if step is None else step
    try:
        steps = np.array([given if own is None else own for own in columns.step], np.float64)
    except OverflowError:
        return np.ones(columns.rows, bool)
    bad = _not_whole(steps, MAX_STEP)
    return bad if step is None else bad | (steps != step)


def _bad_values(columns: Columns) -> Bools:
    doubt = np.zeros(columns.rows, bool)
    response, counted = columns.lists["response_token_ids"], counted_tokens(columns)
    for name, column in columns.lists.items():
        if column.known is not None and name in _NEVER_NULL:
            _mark(doubt, column, ~column.known)
        if name in LOGPROBS:
            _mark(doubt, column, _bad_logprobs(column.values, of_rows_with(column, response, counted)))
        elif name in ("response_mask", "trainer_keep"):
            _mark(doubt, column, (column.values != 0) & (column.values != 1))
        elif name in ("token_rewards", "advantage"):
            _mark(doubt, column, ~np.isfinite(column.values))
        elif name in ("prompt_token_ids", "response_token_ids", "turn"):
            _mark(doubt, column, _not_whole(column.values, MAX_TURN if name == "turn" else MAX_TOKEN))
    _check_top(columns, counted, doubt)
    return doubt


def _check_top(columns: Columns, counted: Bools, doubt: Bools) -> None:
    """Marks rows whose top lists do not match each other or hold what they must not."""
    ids, logprobs = columns.nested.get("rollout_top_token_ids"), columns.nested.get("rollout_top_logprobs")
    if ids is None or logprobs is None:
        if ids or logprobs:
            doubt |= (ids or logprobs).present  # type: ignore[union-attr]
        return
    if not np.array_equal(ids.present, logprobs.present):
        doubt |= ids.present != logprobs.present
        doubt |= ids.present
        return
    rows = np.repeat(np.arange(columns.rows), ids.lengths)  # [positions]
    if not np.array_equal(ids.inner.offsets, logprobs.inner.offsets):
        doubt[rows] = True
        return
    bad = _not_whole(ids.inner.values, MAX_TOKEN)
    if ids.inner.known is not None:
        bad |= ~ids.inner.known
    positions = of_rows_with(ids, columns.lists["response_token_ids"], counted)
    bad |= _bad_logprobs(logprobs.inner.values, np.repeat(positions, ids.inner.lengths))
    if bad.any():
        doubt[rows[ids.inner.rows_of(bad)]] = True


def _bad_logprobs(values: Values, counted: Bools) -> Bools:
    """NaN and infinities anywhere, and more than 0 on a counted token. (Where it is not known, the value is 0.)"""
    if values.size == 0 or (values.min() > -np.inf and values.max() <= 0):
        return np.zeros(len(values), bool)
    bad: Bools = ~np.isfinite(values) | ((values > 0) & counted)
    return bad


def _not_whole(values: Values, top: int) -> Bools:
    """All but the integers 0 … `top`, which fit 32 bits."""
    with np.errstate(invalid="ignore"):  # what does not fit becomes some other number
        bad: Bools = values.astype(np.uint32) != values
    return bad if values.size == 0 or values.max() <= top else bad | (values > top)


def _mark(doubt: Bools, column: Ragged, bad: Bools) -> None:
    if bad.any():
        doubt[column.rows_of(bad)] = True
