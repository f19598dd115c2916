"""One finding about a file that is imported all the same, and what every check shares: counting, places, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from service.ingest.columns import Columns, Values
from service.ingest.flat import Bools, Ints

__all__ = ["Check", "Finding", "Level", "Sightings", "Witness", "listed", "many", "on_tokens"]

Level = Literal["warning", "note"]
_EXAMPLES = 3


@dataclass
class Sightings:
    """How often something was seen, and where first: `line`, `field`, and what else says where it is."""

    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def at_lines(self, lines: Sequence[int], name: str | None) -> None:
        """Once in each of these lines of the file."""
        self.count += len(lines)
        for line in lines[: self._room]:
            self.examples.append({"line": line, "field": name})

    def in_rows(self, columns: Columns, rows: Ints | Bools, name: str) -> None:
        """Once in each of these rows, given by number or as [rows] booleans."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        self.count += len(rows)
        for row in rows[: self._room].tolist():
            self.examples.append(_place(columns, row, name))

    def at_tokens(self, columns: Columns, tokens: Bools, name: str) -> None:
        """[response tokens] at each token where it is true."""
        self.count += int(np.count_nonzero(tokens))
        if self._room:
            offsets = columns.lists["response_token_ids"].offsets
            for token in np.flatnonzero(tokens)[: self._room].tolist():
                row = int(np.searchsorted(offsets, token, side="right")) - 1
                self.examples.append(_place(columns, row, name) | {"position": token - int(offsets[row])})

    @property
    def _room(self) -> int:
        return _EXAMPLES - len(self.examples)


def _place(columns: Columns, row: int, name: str) -> dict[str, Any]:
    return {
        "line": int(columns.lines[row]),
        "field": name,
        "step": columns.step[row],
        "sample_id": columns.sample_id[row],
    }


@dataclass(frozen=True)
class Finding:
    """What was seen. warning: something is likely wrong, and changes results. note: normal logs have it too."""

    code: str
    level: Level
    message: str
    count: int
    examples: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, code: str, level: Level, message: str, seen: Sightings) -> Finding:
        return cls(code, level, message, seen.count, seen.examples)

    def plain(self) -> dict[str, Any]:
        """As it is sent and kept."""
        return asdict(self)


class Witness(Protocol):
    """Remembers something of a file, bounded however long the file is."""

    def findings(self) -> list[Finding]:
        """What was seen in all of it."""


class Check(Witness, Protocol):
    """Looks for faults in the rows themselves."""

    def observe(self, columns: Columns) -> None:
        """Look at some rows; they are checked and settled (`rows.settle`)."""


def on_tokens(columns: Columns, name: str) -> tuple[Values, Bools] | None:
    """The list column `name` beside the response tokens: [response tokens] values, and where they are known.

    None where no row has it.
    """
    column = columns.lists.get(name)
    if column is None:
        return None
    known = np.ones(len(column.values), bool) if column.known is None else column.known
    if column.present.all():
        return column.values, known
    of_rows = np.repeat(column.present, columns.lists["response_token_ids"].lengths)
    values = np.zeros(len(of_rows), column.values.dtype)
    values[of_rows] = column.values
    everywhere = of_rows.copy()
    everywhere[of_rows] = known
    return values, everywhere


def many(count: int, noun: str, verb: str = "") -> str:
    """`3 responses have`; the verb is given in the plural: have, are, hold, …"""
    one = count == 1
    said = f"{count:,} {noun}" + ("" if one else "s")
    return said + (f" {_SINGULAR.get(verb, verb + 's') if one else verb}" if verb else "")


_SINGULAR = {"have": "has", "are": "is", "were": "was", "differ": "differs"}


def listed(numbers: Sequence[int]) -> str:
    """`1, 2, 3 and 2 more`."""
    shown = ", ".join(map(str, numbers[:_LISTED]))
    return shown + (f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else "")


_LISTED = 5
