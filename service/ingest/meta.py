"""`meta` and the fields that the rollout record does not have, as one canonical JSON text.

Canonical: keys sorted, no white space, null entries of objects left out (null = absent, as in the record itself), one
spelling a number. So the text is the same whatever container, key order or spelling a record came with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw

__all__ = ["Unkeepable", "canonical", "kept_together", "meta_text", "text_of"]

_MAX_DEPTH = 100
_EXACT = 1 << 53  # integers below are exact as doubles

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode


class Unkeepable(Exception):
    """A value that JSON cannot keep; `field` is its path."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def below(self, step: str) -> Unkeepable:
        """The same, seen from one level up."""
        return Unkeepable(self.message, step + self.field)


def canonical(value: Any, depth: int = 0) -> Any:
    """`value` (plain JSON data) with one spelling for everything. Raises `Unkeepable`."""
    if depth > _MAX_DEPTH:
        raise Unkeepable(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            if item is not None:
                try:
                    kept[key] = canonical(item, depth + 1)
                except Unkeepable as wrong:
                    raise wrong.below(f".{key}") from None
        return kept
    if isinstance(value, list):
        return _canonical_list(value, depth)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unkeepable(f"{value} is not a finite number; write null where it is not known")
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    if isinstance(value, int) and abs(value) >= _EXACT:
        return _as_double(value)
    if isinstance(value, (str, int, NoneType)):
        return value
    raise Unkeepable("is not valid UTF-8" if isinstance(value, bytes) else f"cannot be kept as JSON ({value})")


def _canonical_list(items: list[Any], depth: int) -> list[Any]:
    kinds = set(map(type, items))
    if kinds <= {str, bool}:
        return items
    if kinds == {int} and max(items) < _EXACT and min(items) > -_EXACT:
        return items
    if kinds == {float} and np.isfinite(np.array(items)).all():  # one number a token, say
        return [int(item) if item.is_integer() and abs(item) < _EXACT else item for item in items]
    kept = []
    for index, item in enumerate(items):
        try:
            kept.append(canonical(item, depth + 1))
        except Unkeepable as wrong:
            raise wrong.below(f"[{index}]") from None
    return kept


def _is_canonical(value: Any) -> bool:
    """Whether a value is a scalar with one spelling; most are."""
    kind = type(value)
    return kind is str or kind is bool or (kind is int and -_EXACT < value < _EXACT)


def _as_double(value: int) -> int | float:
    try:
        return float(value) if float(value) == value else value
    except OverflowError:
        return value


def _merged(meta: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """`meta` with the unknown fields beside it under their own names.

    Where `meta` has that name already with another value, both are kept: the field's becomes `record.NAME`.
    """
    both = dict(meta)
    for name, value in extras.items():
        key = name
        while key in both and both[key] != value:
            key = f"record.{key}"
        both[key] = value
    return both


def meta_text(meta: Raw, extras: Mapping[str, Raw]) -> str | None:
    """The canonical JSON of a record's `meta` and unknown fields; None if nothing is in them.

    Raises `Unkeepable`, `TypeError` where meta is no object, and what msgspec raises for bad JSON.
    """
    known: Any = _decode(meta) if memoryview(meta).nbytes else None
    if known is not None and not isinstance(known, dict):
        raise TypeError
    if known and not extras and all(map(_is_canonical, known.values())):
        return _encode(known).decode()
    return text_of(known or {}, {name: _decode(raw) for name, raw in extras.items()})


def text_of(meta: Mapping[str, Any], extras: Mapping[str, Any]) -> str | None:
    """The same for plain JSON data."""
    both = kept_together(meta, extras)
    return _encode(both).decode() if both else None


def kept_together(meta: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """`meta` and the unknown fields, canonical, in one object. Raises `Unkeepable` with the path in the record."""
    try:
        known = canonical(dict(meta))
    except Unkeepable as wrong:
        raise wrong.below("meta") from None
    unknown = {}
    for name, value in extras.items():
        try:
            unknown[name] = canonical(value)
        except Unkeepable as wrong:
            raise wrong.below(name) from None
    return _merged(known, {name: value for name, value in unknown.items() if value is not None})
