"""What a reader makes of some records at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.ingest.columns import Columns
from service.ingest.examine import Examined

__all__ = ["Chunk", "Reading"]


@dataclass
class Reading:
    """`columns` holds the records that could be read quickly; `unread` names the others, by place in the chunk."""

    columns: Columns | None
    unread: list[int] = field(default_factory=list)
    unknown: list[tuple[int, list[str]]] = field(default_factory=list)  # line, names the rollout record lacks


class Chunk(Protocol):
    """Some consecutive records of a file."""

    @property
    def lines(self) -> Sequence[int]:
        """Their 1-based line or row numbers."""

    def read(self) -> Reading:
        """The records as columns, without a word about those that cannot be read."""

    def examine(self, place: int, step: int | None) -> Examined:
        """One record, precisely."""
