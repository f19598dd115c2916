"""A record's fields, read with words for what is wrong.

Errors name the field of the file, never the native one: whoever reads them has only the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from types import NoneType
from typing import Any, TypeVar

from service.errors import BadRecord, FieldError
from service.ingest.adapters import common
from service.ingest.adapters.common import (
    MAX_STEP,
    MAX_TOKEN,
    Span,
    clip,
    entries,
    flag,
    kept,
    kind,
    mark,
    more,
    number,
    shift,
    show,
    token_id,
)

__all__ = ["Fields"]

_T = TypeVar("_T")
_INT64 = 1 << 63


class Fields:
    """The fields of one object of a file, on `line`; `path` is where the object stands in its record.

    A reader gives None for a field that is null, absent or wrong. What is wrong is collected; `check` raises it.
    """

    def __init__(self, line: int, raw: dict[str, Any], path: str = "", errors: list[FieldError] | None = None) -> None:
        self.line = line
        self.raw = raw
        self.errors: list[FieldError] = [] if errors is None else errors
        self._path = path

    def wrong(self, name: str, message: str) -> None:
        """Note that the field `name` (below `path`) is wrong."""
        self.errors.append(FieldError(message, self.line, clip(self._path + name)))

    def check(self) -> None:
        """Raise `BadRecord` if anything was wrong so far."""
        if self.errors:
            first = self.errors[0]
            detail = f"Line {self.line}: {first.field or 'the record'} {first.message}."
            raise BadRecord(detail, self.errors)

    def get(self, name: str) -> Any:
        """The value as it stands."""
        return self.raw.get(name)

    def need(self, *names: str) -> bool:
        """Whether all of these are there; those that are not are wrong."""
        missing = [name for name in names if self.raw.get(name) is None]
        for name in missing:
            self.wrong(name, "is required and missing")
        return not missing

    def inside(self, name: str) -> Fields:
        """The object in a field; an empty one if there is none."""
        value = self.raw.get(name)
        if value is not None and not isinstance(value, dict):
            self.wrong(name, f"expected an object, found {kind(value)}")
            value = None
        return Fields(self.line, value or {}, f"{self._path}{name}.", self.errors)

    def each(self, name: str) -> list[Fields]:
        """The objects in a list; none if there is no list."""
        found = []
        for index, value in enumerate(self.elements(name) or []):
            if isinstance(value, dict):
                found.append(Fields(self.line, value, f"{self._path}{name}[{index}].", self.errors))
            else:
                self.wrong(f"{name}[{index}]", f"expected an object, found {kind(value)}")
        return found

    def elements(self, name: str, length: int | None = None) -> list[Any] | None:
        """A list, of `length` elements if that is given, whatever they are."""
        values = self.raw.get(name)
        if values is None:
            return None
        if not isinstance(values, list):
            self.wrong(name, f"expected a list, found {kind(values)}")
            return None
        if length is not None and len(values) != length:
            self.wrong(name, f"has {entries(len(values))}, expected {length}{shift(len(values), length)}")
            return None
        return values

    def ids(self, name: str) -> list[int] | None:
        """Token ids."""
        values = self.elements(name)
        if values is None or (set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= MAX_TOKEN):
            return values
        return self._elementwise(name, values, token_id)

    def flags(self, name: str, length: int | None = None) -> list[bool] | None:
        """A mask of booleans or 0 and 1."""
        values = self.elements(name, length)
        if values is None or set(map(type, values)) <= {bool}:
            return values
        return self._elementwise(name, values, flag)

    def numbers(self, name: str, length: int | None = None) -> list[float | None] | None:
        """Numbers; null where one is null or NaN, which is how writers without null say it."""
        values = self.elements(name, length)
        if values is None:
            return None
        if set(map(type, values)) <= {float, NoneType}:  # most lists; the others are read one by one
            known = values if None not in values else [value for value in values if value is not None]
            if math.isfinite(sum(known)):
                return values
        return self._elementwise(name, values, number)

    def marks(self, name: str, length: int | None = None) -> list[bool | None] | None:
        """Booleans, 0, 1, or null; −1 is null too, as prime-rl writes "does not apply"."""
        values = self.elements(name, length)
        if values is None or set(map(type, values)) <= {bool, NoneType}:
            return values
        return self._elementwise(name, values, mark)

    def logprobs(self, name: str, length: int, span: Span, sentinel: float | None = None) -> list[float | None] | None:
        """The log-probs of the response, from a list over the whole sequence.

        Null where the mask is 0, whatever stands there, and where a value is the writer's `sentinel` for "missing".
        A positive one on a token that counts is wrong. None if not one is known.
        """
        values = self.numbers(name, length)
        if values is None:
            return None
        known = [
            value if counts and value != sentinel else None
            for value, counts in zip(values[span.start : span.stop], span.mask, strict=True)
        ]
        bad = [index for index, value in enumerate(known) if value is not None and value > 0]
        if bad:
            value = known[bad[0]]
            hint = "; 1.0 is a sentinel for 'missing' in some trainers" if value == 1 else ""
            message = f"{value} is a positive log-probability{hint}{more(len(bad) - 1)}"
            self.wrong(f"{name}[{span.start + bad[0]}]", message)
        return kept(known)

    def number(self, name: str) -> float | None:
        return self._scalar(name, self.raw.get(name), number)

    def step(self, name: str) -> int | None:
        value = self.raw.get(name)
        if value is None or (type(value) is int and 0 <= value <= MAX_STEP):
            return value
        self.wrong(name, f"{show(value)} is not a step (an integer from 0 to {MAX_STEP})")
        return None

    def integer(self, name: str) -> int | None:
        value = self.raw.get(name)
        if value is None or (type(value) is int and -_INT64 <= value < _INT64):
            return value
        self.wrong(name, f"{show(value)} is not an integer of 64 bits")
        return None

    def text(self, name: str) -> str | None:
        return self._scalar(name, self.raw.get(name), common.text)

    def name(self, name: str) -> str | None:
        """A name for a sample or a group: a string, or an integer as its digits."""
        return self._scalar(name, self.raw.get(name), common.name)

    def plain(self, name: str) -> Any:
        """Any value, as meta can keep it."""
        return self._scalar(name, self.raw.get(name), common.plain)

    def rest(self, taken: Collection[str]) -> dict[str, Any]:
        """`common.rest` of this object, as meta can keep it."""
        return {name: self.plain(name) for name in common.rest(self.raw, taken)}

    def response(self, name: str, mask: Sequence[bool], stop: int | None = None) -> Span | None:
        """The response by a mask over the whole sequence: from the first token that counts to `stop`, or the end.

        What is masked after that (tool output, say) stays in the response, masked. One token counts at least: a row
        without any is left out before (`common.NOTHING_COUNTS`).
        """
        start = mask.index(True)
        if start == 0:
            self.wrong(f"{name}[0]", "marks the first token as the response: without one before it, it has no log-prob")
            return None
        stop = len(mask) if stop is None else stop
        return Span(start, stop, list(mask[start:stop]))

    def _scalar(self, name: str, value: Any, read: Callable[[Any], _T]) -> _T | None:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            self.wrong(name, str(error))
            return None

    def _elementwise(self, name: str, values: Iterable[Any], read: Callable[[Any], _T]) -> list[_T] | None:
        """Every element read; None if one is bad: the first is named, the others are counted."""
        good: list[_T] = []
        bad: list[tuple[int, str]] = []
        for index, value in enumerate(values):
            try:
                good.append(read(value))
            except ValueError as error:
                bad.append((index, str(error)))
        if not bad:
            return good
        self.wrong(f"{name}[{bad[0][0]}]", bad[0][1] + more(len(bad) - 1))
        return None
