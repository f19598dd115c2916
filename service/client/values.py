"""Any training loop's values as plain Python ones: tensors and arrays through their own `tolist()`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

__all__ = ["finite", "plain"]

_SCALARS = frozenset({int, float, bool, str, type(None)})
_NUMBERS = ("float", "bfloat", "int", "uint", "bool")  # dtypes whose tolist() holds plain numbers only


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
        values = value.tolist()
        return values if _is_number(getattr(value, "dtype", None)) else plain(values)
    for kind in (int, float, str):  # enumerations and other subclasses
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a value of type {type(value).__name__} is no JSON")


@lru_cache
def _is_number(dtype: Any) -> bool:
    return str(dtype).removeprefix("torch.").startswith(_NUMBERS)


def finite(value: Any) -> Any:
    """A plain value whose NaN and infinities are None: JSON has neither, and neither is a known number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    return value
