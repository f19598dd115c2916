"""What a format is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Adapter", "LeftOut"]


@dataclass(frozen=True)
class LeftOut:
    """A response that stands in the file and is not imported; the upload's warnings count it by its `reason`."""

    reason: str


@dataclass(frozen=True)
class Adapter:
    """A format of rollout records.

    `recognises` looks at the field names of a file's first record. `convert` takes the number (1-based) and the fields
    of one record in the file and gives the native records it stands for, as plain JSON data, or `LeftOut` for one that
    does not belong among them; it raises `service.errors.BadRecord` where it cannot. None: the records are native as
    they are.
    """

    name: str
    recognises: Callable[[frozenset[str]], bool]
    convert: Callable[[int, dict[str, Any]], Iterable[dict[str, Any] | LeftOut]] | None = None
