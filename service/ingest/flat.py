"""Python lists of numbers to numpy arrays.

The way round is MessagePack, where a float is always nine bytes (0xcb and the big-endian double) and a flag is one:
encoding a list costs 3 ns a number, a sixth of `numpy.array(list)`, and numpy reads the numbers where they lie. It is
done record by record, while the numbers are in the cache, into buffers that are used again: no Python object and no
fresh page of memory is left behind.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "FlagLists", "FloatLists", "Floats", "Ints", "NotFlat"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_encode = msgspec.msgpack.Encoder().encode
_FLOAT = np.dtype([("tag", "u1"), ("value", ">f8")])
_NAN = float("nan")
_ROOM = 1 << 16  # bytes of a buffer at first

# The byte of a flag -> its value; 2 for a byte that is no flag.
_FLAGS = np.full(256, 2, np.uint8)
_FLAGS[[0x00, 0x01, 0xC2, 0xC3, 0xC0]] = [0, 1, 0, 1, 0]
_NULL = 0xC0


class NotFlat(Exception):
    """An element is not what it should be, or does not fit."""


class _PackedLists:
    """Lists end to end, one for some of the rows."""

    _SIZE: int  # bytes of an element

    def __init__(self) -> None:
        self._lengths: list[int] = []  # by row, −1 where there is none; rows at the end may be missing
        self._buffer = memoryview(bytearray(_ROOM))
        self._end = 0

    def add(self, row: int, elements: list[Any]) -> None:
        """The list of a row; rows come in order."""
        # As flat as can be: this runs for every list of a file.
        lengths, count = self._lengths, len(elements)
        if len(lengths) != row:
            lengths += [-1] * (row - len(lengths))
        lengths.append(count)
        header = 1 if count < 1 << 4 else 3 if count < 1 << 16 else 5
        size = self._SIZE * count
        packed = _encode(elements)
        if len(packed) != header + size:
            packed = _encode(self._usual(elements))
        end = self._end + size
        if end > len(self._buffer):
            self._grow(end)
        self._buffer[self._end : end] = packed[header:]
        self._end = end

    def _usual(self, elements: list[Any]) -> list[Any]:
        """The same elements, each of which takes `_SIZE` bytes."""
        raise NotImplementedError

    def _grow(self, size: int) -> None:
        larger = memoryview(bytearray(2 * size))
        larger[: self._end] = self._buffer[: self._end]
        self._buffer = larger

    def take_lengths(self, rows: int) -> Ints | None:
        """[rows] −1 where a row has no list; None if none has one. Forgets them."""
        if not self._lengths:
            return None
        lengths = np.full(rows, -1, np.int64)
        lengths[: len(self._lengths)] = self._lengths
        self._lengths = []
        return lengths

    def _taken(self) -> memoryview:
        """The bytes of all elements; the next list overwrites them."""
        taken = self._buffer[: self._end]
        self._end = 0
        return taken


class FloatLists(_PackedLists):
    """Lists of floats and None."""

    _SIZE = 9

    def _usual(self, elements: list[Any]) -> list[Any]:
        return [_NAN if number is None else number for number in elements]  # JSON cannot spell NaN

    def take(self) -> tuple[Floats, Bools | None]:
        """All elements (0 where null), and which of them are known (None if all are). Forgets them."""
        values = np.frombuffer(self._taken(), _FLOAT)["value"].astype(np.float64)
        if values.size == 0 or not np.isnan(values.min()):
            return values, None
        known = ~np.isnan(values)
        values[~known] = 0
        return values, known


class FlagLists(_PackedLists):
    """Lists of 0, 1, true, false and None. `add` raises `NotFlat` for most other numbers, `take` gives 2 for others."""

    _SIZE = 1

    def _usual(self, elements: list[Any]) -> list[Any]:
        if any(flag is not None and flag not in (0, 1) for flag in elements):
            raise NotFlat
        return [flag if flag is None else bool(flag) for flag in elements]

    def take(self) -> tuple[npt.NDArray[np.uint8], Bools | None]:
        """All elements (0 where null), and which of them are known (None if all are). Forgets them."""
        raw = np.frombuffer(self._taken(), np.uint8)
        known = raw != _NULL
        values = _FLAGS[raw]
        return values, None if known.all() else known
