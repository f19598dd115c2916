"""One table: a value, its target and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.timing import Spread

__all__ = ["Line", "as_json", "as_text"]

Unit = Literal["%", "×", "ms", "MiB", "kB", "MB", "MB/s", "steps", "absolute"]


@dataclass(frozen=True)
class Line:
    """One measured value. `at_most`: whether the target is an upper limit; `between`: quartiles of the repeats.

    A value in % is a fraction here and in JSON.
    """

    part: str
    what: str
    value: float
    unit: Unit
    target: float | None = None
    at_most: bool = True
    between: tuple[float, float] | None = None

    @classmethod
    def of(
        cls, part: str, what: str, found: Spread, unit: Unit, target: float | None = None, *, at_most: bool = True
    ) -> Line:
        """A line from repeats: their median, with the quartiles beside it."""
        between = (found.low, found.high) if found.low < found.high else None  # None: a single repeat
        return cls(part, what, found.median, unit, target, at_most, between)

    @property
    def holds(self) -> bool | None:
        """None where there is no target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def as_json(line: Line) -> dict[str, Any]:
    """The line as results.json has it."""
    return {**asdict(line), "holds": line.holds}


def _number(value: float, unit: Unit) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit in ("ms", "MiB"):
        return f"{value:.1f} {unit}"
    if unit in ("kB", "MB", "MB/s", "steps"):
        return f"{value:.0f} {unit}"
    return f"{value:.2f}×" if unit == "×" else f"{value:.1e}"


def as_text(lines: Iterable[Line]) -> str:
    """The table, one line each: part, what, value (quartiles), target, ✓ or ✗."""
    rows = [("part", "what", "value", "quartiles", "target", "")]
    for line in lines:
        between = "" if line.between is None else " – ".join(_number(value, line.unit) for value in line.between)
        target = "" if line.target is None else f"{'≤' if line.at_most else '≥'} {_number(line.target, line.unit)}"
        mark = {None: "", True: "✓", False: "✗"}[line.holds]
        rows.append((line.part, line.what, _number(line.value, line.unit), between, target, mark))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in (2, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
