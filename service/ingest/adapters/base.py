"""What a format is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Adapter"]


@dataclass(frozen=True)
class Adapter:
    """A format of rollout records.

    `recognises` looks at the field names of a file's first record. `convert` takes the number (1-based) and the fields
    of one record in the file and gives the native records it stands for, as plain JSON data; it raises
    `service.errors.BadRecord` where it cannot. None: the records are native as they are.
    """

    name: str
    recognises: Callable[[frozenset[str]], bool]
    convert: Callable[[int, dict[str, Any]], Iterable[dict[str, Any]]] | None = None
