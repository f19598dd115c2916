"""Checked columns to rows as they are kept: `ROLLOUT_SCHEMA`, with the hash of each row's content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from service.ingest.check import counted_tokens, of_rows_with
from service.ingest.columns import LOGPROBS, Columns, Nested, Ragged, Values, offsets_of, row_sums
from service.ingest.flat import Bools, Ints
from service.schemas.rollout import ROLLOUT_SCHEMA

__all__ = ["Totals", "row_hashes", "settle", "table_of", "totals_of"]

_HASHED = "rollout-v1"  # part of what is hashed: to be changed with the way of hashing

# name -> dtype of the elements, as they are stored and hashed
_DTYPES = {
    "prompt_token_ids": np.uint32,
    "response_token_ids": np.uint32,
    "response_mask": np.bool_,
    **dict.fromkeys(LOGPROBS, np.float64),
    "token_rewards": np.float64,
    "advantage": np.float64,
    "trainer_keep": np.bool_,
    "policy_version": np.int64,
    "turn": np.uint32,
    "minibatch": np.int64,
}


def settle(columns: Columns, step: int | None) -> None:
    """Give checked columns the values that are kept, in place.

    Every record gets its step, its mask and the sum of its rewards; log-probs of masked tokens become null, so that no
    sentinel survives; null elements hold 0, and 0 has one sign.
    """
    response, counted = columns.lists["response_token_ids"], counted_tokens(columns)
    columns.step = [int(step if own is None else own) for own in columns.step]  # type: ignore[arg-type]
    mask = columns.lists.get("response_mask")
    columns.gave_mask = np.zeros(columns.rows, bool) if mask is None else mask.present
    columns.lists["response_mask"] = Ragged(np.ones(columns.rows, bool), response.offsets, counted, None)
    for name, dtype in _DTYPES.items():
        column = columns.lists.get(name)
        if column is None:
            continue
        if name in LOGPROBS:
            _forget(column, of_rows_with(column, response, counted))
        _tidy(column, dtype)
    top = columns.nested.get("rollout_top_logprobs")
    if top is not None:
        _forget(top.inner, np.repeat(of_rows_with(top, response, counted), top.inner.lengths))
        _tidy(top.inner, np.float64)
        _tidy(columns.nested["rollout_top_token_ids"].inner, np.uint32)
    rewards = columns.lists.get("token_rewards")
    if rewards is not None:
        for row in np.flatnonzero(rewards.present):
            columns.reward[row] = math.fsum(rewards.values[rewards.offsets[row] : rewards.offsets[row + 1]])
    columns.reward = [None if reward is None else reward + 0.0 for reward in columns.reward]


def _forget(column: Ragged, counted: Bools) -> None:
    if not counted.all():
        column.known = counted if column.known is None else column.known & counted


def _tidy(column: Ragged, dtype: type) -> None:
    values: Values = column.values.astype(dtype, copy=not column.values.flags.writeable)
    if column.known is not None:
        if column.known.all():
            column.known = None
        else:
            values[~column.known] = 0
    if dtype is np.float64:
        values += 0.0  # −0 becomes 0
    column.values = values


class _Bodies:
    """The bytes of the lists, column by column, and what has to be known to read them back."""

    def __init__(self, rows: int) -> None:
        self.shape = np.zeros((rows, 2 * (len(_DTYPES) + 2)), np.uint32)  # length + 1 (0: no list) and nulls of each
        self.parts: list[tuple[memoryview, list[int]]] = []  # bytes, where each row's begin

    def add(self, column: Ragged, place: int) -> None:
        """A list column; `place` is its number among all."""
        self._append(column.values, column.offsets)
        self.shape[:, 2 * place] = np.where(column.present, column.lengths + 1, 0)
        if column.known is not None:
            nulls = row_sums(~column.known, column.offsets)
            self.shape[:, 2 * place + 1] = nulls
            spelled = np.repeat(nulls > 0, column.lengths)  # a row without nulls hashes as in a column without
            self._append(column.known[spelled], offsets_of(np.where(nulls > 0, column.lengths, 0)))

    def add_nested(self, nested: Nested, place: int) -> None:
        inner = nested.inner
        self._append(inner.lengths.astype(np.uint32), nested.offsets)
        self.add(Ragged(nested.present, inner.offsets[nested.offsets], inner.values, inner.known), place)

    def digests(self, heads: Iterable[bytes]) -> list[bytes]:
        """[rows] sha256 of the head, the shape and the lists of each row."""
        shape = memoryview(self.shape.tobytes())
        width = len(shape) // max(1, len(self.shape))
        digests = []
        for row, head in enumerate(heads):
            body = [part[starts[row] : starts[row + 1]] for part, starts in self.parts]
            digests.append(hashlib.sha256(b"".join((head, shape[row * width : (row + 1) * width], *body))).digest())
        return digests

    def _append(self, values: Values, offsets: Ints) -> None:
        data = np.ascontiguousarray(values)
        self.parts.append((memoryview(data.view(np.uint8).data), (offsets * data.itemsize).tolist()))


def row_hashes(columns: Columns) -> list[bytes]:
    """[rows] 16 bytes each: sha256 of everything that is kept of the record, whatever container it came in."""
    bodies = _Bodies(columns.rows)
    for place, name in enumerate(_DTYPES):
        if name in columns.lists:
            bodies.add(columns.lists[name], place)
    for place, name in enumerate(("rollout_top_token_ids", "rollout_top_logprobs"), len(_DTYPES)):
        if name in columns.nested:
            bodies.add_nested(columns.nested[name], place)
    texts = [
        columns.texts.get(name, [None] * columns.rows) for name in ("prompt_text", "response_text", "finish_reason")
    ]
    heads = zip(
        [_HASHED] * columns.rows,
        columns.step,
        columns.sample_id,
        columns.group_id,
        columns.reward,
        columns.logprobs_approximate,
        columns.meta,
        *texts,
        strict=True,
    )
    return [digest[:16] for digest in bodies.digests(map(msgspec.msgpack.Encoder().encode, heads))]


@dataclass
class Totals:
    """[rows] token counts."""

    prompt: Ints
    response: Ints
    counted: Ints


def totals_of(columns: Columns) -> Totals:
    response, mask = columns.lists["response_token_ids"], columns.lists["response_mask"]
    return Totals(columns.lists["prompt_token_ids"].lengths, response.lengths, row_sums(mask.values, mask.offsets))


def table_of(columns: Columns, upload: str, hashes: list[bytes]) -> Any:
    """The rows as a `pyarrow.RecordBatch` in `ROLLOUT_SCHEMA`."""
    totals = totals_of(columns)
    made: dict[str, Any] = {
        "upload": pa.array([upload] * columns.rows, pa.string()),
        "row_hash": pa.array(map(bytes.hex, hashes), pa.string()),
        "prompt_tokens": totals.prompt,
        "response_tokens": totals.response,
        "counted_tokens": totals.counted,
        **columns.texts,
    }
    for name in ("step", "sample_id", "group_id", "reward", "logprobs_approximate", "meta"):
        made[name] = getattr(columns, name)
    for name, column in columns.lists.items():
        made[name] = _list_array(column, column.present)
    for name, nested in columns.nested.items():
        inner = _list_array(nested.inner, nested.inner.lengths > 0)
        made[name] = _lists(nested.offsets, inner, nested.present)
    arrays = []
    for field in ROLLOUT_SCHEMA:
        array = made.get(field.name)
        if array is None:
            array = pa.nulls(columns.rows, field.type)
        elif not isinstance(array, pa.Array):
            array = pa.array(array, field.type)
        arrays.append(array)
    return pa.record_batch(arrays, schema=ROLLOUT_SCHEMA)


def _list_array(column: Ragged, present: Bools) -> Any:
    values = pa.array(column.values, mask=None if column.known is None else ~column.known)
    return _lists(column.offsets, values, present)


def _lists(offsets: Ints, values: Any, present: Bools) -> Any:
    mask = None if present.all() else pa.array(~present)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, mask=mask)
