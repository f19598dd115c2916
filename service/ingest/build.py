"""Records to columns."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np

from service.ingest.columns import LOGPROBS, Columns, Nested, Ragged, offsets_of
from service.ingest.flat import Bools, FlagLists, FloatLists, Ints, NotFlat
from service.ingest.record import Record

__all__ = ["Builder"]

_TEXTS = ("prompt_text", "response_text", "finish_reason")
_SCALARS = ("step", "sample_id", "group_id", "reward", *_TEXTS, "logprobs_approximate")
_FLOATS = ("prompt_token_ids", "response_token_ids", *LOGPROBS, "turn")
_FLAGS = ("response_mask", "trainer_keep")
_NESTED = ("rollout_top_token_ids", "rollout_top_logprobs")
_INTEGERS = ("policy_version", "minibatch")
_LISTS = (*_FLOATS, *_FLAGS, *_NESTED, *_INTEGERS, "reward", "advantage")


class _Lists:
    """A column of lists of floats or of flags."""

    def __init__(self, lists: FloatLists | FlagLists) -> None:
        self._lists = lists
        self.add = lists.add

    def ragged(self, rows: int, _responses: Ints) -> Ragged | None:
        """The column, if any row has a list."""
        lengths = self._lists.take_lengths(rows)
        return None if lengths is None else Ragged(*_spread(lengths), *self._lists.take())


class _Scalable:
    """A column of lists of floats, or of numbers, each for every token of its response where `repeat`."""

    def __init__(self, *, repeat: bool) -> None:
        self._repeat = repeat
        self._lists = FloatLists()
        self._rows: list[int] = []
        self._numbers: list[float] = []

    def add(self, row: int, value: float | list[float | None]) -> None:
        if isinstance(value, list):
            self._lists.add(row, value)
        else:
            self._rows.append(row)
            self._numbers.append(value)

    def ragged(self, rows: int, responses: Ints) -> Ragged | None:
        """The column; `responses` are the lengths of the responses."""
        lengths = self._lists.take_lengths(rows)
        listed = None if lengths is None else Ragged(*_spread(lengths), *self._lists.take())
        repeated = self._repeated(rows, responses) if self._rows and self._repeat else None
        self._rows, self._numbers = [], []
        return _either(listed, repeated) if listed and repeated else listed or repeated

    def _repeated(self, rows: int, responses: Ints) -> Ragged:
        present = np.zeros(rows, bool)
        present[self._rows] = True
        lengths = np.where(present, responses, 0)
        values = np.repeat(np.array(self._numbers), lengths[present])
        return Ragged(present, offsets_of(lengths), values, None)


class _Integers:
    """A column of lists of 64-bit integers, or of one for every token of the response."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._values: list[float | list[int]] = []

    def add(self, row: int, value: float | list[int]) -> None:
        self._rows.append(row)
        self._values.append(value)

    def ragged(self, rows: int, responses: Ints) -> Ragged | None:
        """The column, if any row has a value. Raises `NotFlat`."""
        if not self._rows:
            return None
        lengths = np.full(rows, -1, np.int64)
        parts = []
        for row, value in zip(self._rows, self._values, strict=True):
            part = _integers(value) if isinstance(value, list) else np.repeat(_integers([value]), responses[row])
            parts.append(part)
            lengths[row] = len(part)
        self._rows, self._values = [], []
        return Ragged(*_spread(lengths), np.concatenate(parts), None)


class _NestedLists:
    """A column of lists of lists (or nulls) of floats."""

    def __init__(self) -> None:
        self._inner: list[int] = []  # lengths of the inner lists
        self._outer: list[tuple[int, int]] = []
        self._lists = FloatLists()

    def add(self, row: int, outer: list[list[float | None] | None]) -> None:
        lists = outer if None not in outer else [inner or [] for inner in outer]
        numbers: list[float | None] = []
        for inner in lists:
            numbers += inner  # type: ignore[arg-type]
        self._inner += map(len, lists)  # type: ignore[arg-type]
        self._outer.append((row, len(outer)))
        self._lists.add(len(self._outer) - 1, numbers)

    def nested(self, rows: int) -> Nested | None:
        """The column, if any row has lists."""
        if not self._outer:
            return None
        positions = np.full(rows, -1, np.int64)
        for row, count in self._outer:
            positions[row] = count
        self._lists.take_lengths(rows)
        lengths = np.array(self._inner, np.int64)
        self._outer, self._inner = [], []
        return Nested(*_spread(positions), Ragged(lengths > 0, offsets_of(lengths), *self._lists.take()))


class Builder:
    """Takes records, gives `Columns`. Rows keep the order in which they came."""

    def __init__(self) -> None:
        self._nested = {name: _NestedLists() for name in _NESTED}
        self._lists: dict[str, _Lists | _Scalable | _Integers] = {
            **{name: _Lists(FloatLists()) for name in _FLOATS},
            **{name: _Lists(FlagLists()) for name in _FLAGS},
            **{name: _Integers() for name in _INTEGERS},
            "reward": _Scalable(repeat=False),
            "advantage": _Scalable(repeat=True),
        }
        self._adders = [({**self._lists, **self._nested})[name].add for name in _LISTS]
        self._scalars: list[tuple[Any, ...]] = []

    def add(self, record: Record) -> None:
        """One record. Raises `NotFlat`: then the builder is of no use any more."""
        row = len(self._scalars)
        self._scalars.append(_scalars_of(record))
        for add, value in zip(self._adders, _lists_of(record)):  # noqa: B905 as many as each other; strict= costs
            if value is not None:
                add(row, value)

    def take(self, lines: list[int], meta: list[str | None]) -> Columns:
        """What was added (at least one record), with line numbers and canonical meta. The builder is empty then.

        Raises `NotFlat` as `add` does.
        """
        rows = len(self._scalars)
        scalars = dict(zip(_SCALARS, map(list, zip(*self._scalars, strict=True)), strict=True))
        self._scalars = []
        responses = np.zeros(0, np.int64)
        lists: dict[str, Ragged] = {}
        for name, column in self._lists.items():
            ragged = column.ragged(rows, responses)
            if ragged is not None:
                lists["token_rewards" if name == "reward" else name] = ragged
            if name == "response_token_ids":
                responses = lists[name].lengths
        nested = {name: column.nested(rows) for name, column in self._nested.items()}
        return Columns(
            lines=np.array(lines, np.int64),
            step=scalars["step"],
            sample_id=list(map(str, scalars["sample_id"])),
            group_id=list(map(str, scalars["group_id"])),
            lists=lists,
            nested={name: column for name, column in nested.items() if column is not None},
            reward=[None if isinstance(value, list) else value for value in scalars["reward"]],
            texts={name: scalars[name] for name in _TEXTS},
            logprobs_approximate=scalars["logprobs_approximate"],
            meta=meta,
        )


_scalars_of = attrgetter(*_SCALARS)
_lists_of = attrgetter(*_LISTS)


def _spread(lengths: Ints) -> tuple[Bools, Ints]:
    """From the lengths (−1: no list) to presence and offsets."""
    present: Bools = lengths >= 0
    return present, offsets_of(np.maximum(lengths, 0))


def _integers(numbers: list[Any]) -> Ints:
    """64-bit integers, from ints and whole floats."""
    try:
        whole = [number if type(number) is int else int(number) for number in numbers]
        integers = np.array(whole, np.int64)
    except OverflowError as error:
        raise NotFlat from error
    if whole != numbers:
        raise NotFlat
    return integers


def _either(one: Ragged, other: Ragged) -> Ragged:
    """The column that has a row's list from whichever of the two has it."""
    lengths = one.lengths + other.lengths
    offsets = offsets_of(lengths)
    values = np.zeros(offsets[-1], one.values.dtype)
    known = np.ones(offsets[-1], bool)
    for part in (one, other):
        mine = np.repeat(part.present, lengths)
        values[mine] = part.values
        if part.known is not None:
            known[mine] = part.known
    return Ragged(one.present | other.present, offsets, values, None if known.all() else known)
