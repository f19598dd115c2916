"""Axes that are not linear: logit for probabilities, logarithm for ratios and divergences, with readable ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from web.numbers import plain

__all__ = ["DECADES", "Bins", "divergence_axis", "interval", "logit", "logit_axis", "ratio_axis"]

PROBABILITIES = {
    1e-6: "10⁻⁶",
    1e-5: "10⁻⁵",
    1e-4: "10⁻⁴",
    1e-3: ".001",
    0.01: ".01",
    0.1: ".1",
    0.5: ".5",
    0.9: ".9",
    0.99: ".99",
    0.999: ".999",
    0.9999: ".9999",
}
LADDERS = (  # (largest ln ratio, ticks of ratios above 1; those below mirror them)
    (math.log(1.75), {1.1: 0.9, 1.28: 0.8, 1.5: 0.65}),
    (math.log(3.2), {1.28: 0.8, 2: 0.5, 3: 0.33}),
    (math.log(12), {1.28: 0.8, 2: 0.5, 5: 0.2, 10: 0.1}),
    (math.log(150), {2: 0.5, 5: 0.2, 20: 0.05, 100: 0.01}),
    (math.inf, {10: 0.1, 100: 0.01, 1000: 0.001, 10000: 0.0001}),
)
DECADES = {
    -9: "10⁻⁹",
    -8: "10⁻⁸",
    -7: "10⁻⁷",
    -6: "10⁻⁶",
    -5: "10⁻⁵",
    -4: "10⁻⁴",
    -3: ".001",
    -2: ".01",
    -1: ".1",
    0: "1",
    1: "10",
    2: "100",
}
PAD = 0.012  # of the axis, so that what is clipped to the edge is not cut in half


def logit(p: float) -> float:
    """ln(p / (1 − p)), where probabilities near 0 and near 1 get the same room."""
    return math.log(p / (1 - p))


def interval(low: float, high: float) -> str:
    """A bin of a probability: < .001, .001–.01, … ≥ .99."""
    start, end = (plain(edge).removeprefix("0") for edge in (low, high))
    return f"< {end}" if low == 0 else f"≥ {start}" if high == 1 else f"{start}–{end}"


class Bins:
    """An axis of bins of a probability, one unit wide each, whatever their width; a tick stands at every edge.

    edges: every edge of the bins that are shown, ascending.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The bins of rows with p_low and p_high."""
        self.edges = sorted({edge for row in rows for edge in (row["p_low"], row["p_high"])})

    def place(self, row: Mapping[str, Any]) -> int:
        """The middle of a row's bin on the axis."""
        return self.edges.index(row["p_low"])

    def axis(self, title: str) -> dict[str, Any]:
        """Settings of the axis."""
        ticks = range(len(self.edges))
        return {
            "range": [-0.56, len(self.edges) - 1.44],
            "tickvals": [tick - 0.5 for tick in ticks],
            "ticktext": [plain(edge).removeprefix("0") or "0" for edge in self.edges],
            "tickangle": 0,
            "title.text": title,
        }


def _padded(low: float, high: float) -> list[float]:
    room = PAD * (high - low)
    return [low - room, high + room]


def logit_axis(limit: float, title: str) -> dict[str, Any]:
    """A probability p at x = logit(p), from −limit to limit."""
    ticks = {logit(p): text for p, text in PROBABILITIES.items() if abs(logit(p)) <= limit + 0.05}
    return {
        "range": _padded(-limit, limit),
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "title.text": title,
    }


def ratio_axis(low: float, high: float, title: str, most: int = 12) -> dict[str, Any]:
    """A ratio r at y = ln r, from low to high, with room for `most` ticks."""
    ladder = next(ladder for reach, ladder in LADDERS if max(-low, high) <= reach)
    values, last = [1.0], 0.0
    for above, below in ladder.items():
        if math.log(above) - last >= (high - low) / most:
            values += [above, below]
            last = math.log(above)
    ticks = {math.log(value): f"×{value:g}" for value in sorted(values) if low <= math.log(value) <= high}
    return {"range": _padded(low, high), "tickvals": list(ticks), "ticktext": list(ticks.values()), "title.text": title}


def divergence_axis(low: float, high: float, title: str) -> dict[str, Any]:
    """A divergence D at y = log₁₀ D, from low to high."""
    ticks = {power: text for power, text in DECADES.items() if low <= power <= high}
    return {"range": _padded(low, high), "tickvals": list(ticks), "ticktext": list(ticks.values()), "title.text": title}
