"""Rotated repeats, phases inside one pass, and ratios that survive a noisy machine."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TextIO, TypeVar

__all__ = ["Phase", "Phases", "Progress", "Spread", "rotated", "spread"]

Phase = Literal["backbone", "head", "statistics"]
Found = TypeVar("Found")


@dataclass
class Phases:
    """Seconds of one pass, by what they were spent on."""

    backbone: float = 0.0
    head: float = 0.0
    statistics: float = 0.0
    _running: list[Phase] = field(default_factory=list, repr=False)
    _since: float = field(default=0.0, repr=False)

    @property
    def total(self) -> float:
        return self.backbone + self.head + self.statistics

    @property
    def share_of_statistics(self) -> float:
        """Statistics over backbone + head: everything that is neither a forward nor an LM-head product."""
        return self.statistics / (self.backbone + self.head)

    @contextlib.contextmanager
    def spent_on(self, phase: Phase) -> Iterator[None]:
        """Books the time inside on `phase`; a phase inside a phase takes its time from the outer one."""
        self._book()
        self._running.append(phase)
        try:
            yield
        finally:
            self._book()
            self._running.pop()

    def _book(self) -> None:
        now = time.perf_counter()
        if self._running:
            phase = self._running[-1]
            setattr(self, phase, getattr(self, phase) + now - self._since)
        self._since = now


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Median and quartiles of repeats (of one repeat: itself)."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
    return Spread(median, low, high)


def rotated(
    ways: Mapping[str, Callable[[], Found]], repeats: int, progress: Callable[[str], None], *, warm_up: bool = True
) -> dict[str, list[Found]]:
    """Every way once a repeat, each repeat starting with another one; the first way once before that, to warm up.

    Ratios belong inside a repeat (what disturbs the machine then hits all its ways alike), medians over repeats.
    """
    found: dict[str, list[Found]] = {name: [] for name in ways}
    names = list(ways)
    if warm_up:
        progress("warming up")
        ways[names[0]]()
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            progress(f"repeat {repeat + 1} of {repeats}, {name}")
            found[name].append(ways[name]())
    return found


class Progress:
    """Where a long run is, on stderr: one line that is overwritten, or plain lines where stderr is no terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._start = time.perf_counter()

    def __call__(self, text: str) -> None:
        line = f"[{time.perf_counter() - self._start:4.0f} s] {text}"
        self._stream.write(f"\r\x1b[K{line}" if self._stream.isatty() else f"{line}\n")
        self._stream.flush()

    def of(self, part: str) -> Callable[[str], None]:
        """The same, with the part's name in front."""
        return lambda text: self(f"{part}: {text}")

    def close(self) -> None:
        """Take the line away from a terminal."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
