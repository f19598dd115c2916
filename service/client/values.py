"""Any training loop's values as plain Python ones: tensors and arrays through their own `tolist()`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite", "pack", "plain", "unpack"]

_SCALARS = frozenset({int, float, bool, str, type(None)})
_FORMATS = frozenset("fdbBhHiIlLqQ?")  # of the buffers that hold plain numbers


def plain(value: Any) -> Any:
    """`value` made of None, bool, int, float, str, list and dict only. Raises TypeError for what is not JSON.

    Tensors and arrays are known by their `tolist()`, so that neither numpy nor torch is imported here.
    """
    if type(value) in _SCALARS:
        return value
    if isinstance(value, list | tuple):
        if _SCALARS.issuperset(map(type, value)):  # the usual case, at the speed of C
            return value
        return [plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    for kind in (int, float, str):  # enumerations and other subclasses
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a value of type {type(value).__name__} is no JSON")


def pack(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of plain values and, where a field is a tensor or an array of numbers, its bytes; see `unpack`.

    Several times faster than `tolist()`, which then is nobody's but the sending thread's.
    """
    return {str(name): _packed(value) for name, value in record.items()}


def _packed(value: Any) -> Any:
    if type(value) in _SCALARS or isinstance(value, list | tuple | Mapping | bytes | bytearray):
        return plain(value)
    try:
        view = memoryview(value.numpy() if hasattr(value, "numpy") else value)
    except (TypeError, RuntimeError, ValueError, BufferError):  # on a device, with a gradient, bfloat16, no array
        return plain(value)
    if view.format in _FORMATS and view.nbytes and view.ndim:
        return view.tobytes(), view.format, view.shape
    return plain(value)


def unpack(record: dict[str, Any]) -> dict[str, Any]:
    """A packed record of plain values only. `plain` lets no bytes through, so that these are a packed field's."""
    return {
        name: memoryview(value[0]).cast(value[1], value[2]).tolist()
        if type(value) is tuple and value and type(value[0]) is bytes
        else value
        for name, value in record.items()
    }


def finite(value: Any) -> Any:
    """A plain value whose NaN and infinities are None: JSON has neither, and neither is a known number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    return value
