"""Lines over training steps: small panels that share an x axis, labelled where their lines end. A null is a gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.axes import DECADES
from web.figures.theme import Theme, empty, layout

__all__ = ["DASH", "Line", "band", "column", "line", "logarithmic", "panel", "ring"]

MANY = 40  # points beyond which they are no longer marked one by one
DASH = "5px,3px"
LEAST = 1e-6  # smaller changes of a probability are drawn here
DIGITS = 6  # of what is drawn; tables have the rest
TALL = 140  # pixels of a panel between its axes, about
LABEL = 12.5  # pixels that a label needs
WIDE = 6.3  # pixels a character of a label, about
LEFT, RIGHT = 56, 66  # margins, the same in every panel, so that one x is one place in a column of them

Values = list[float | None]


@dataclass(frozen=True)
class Line:
    """One line of a panel. `colour`: a field of the theme; `unit` follows the value where it is hovered over."""

    label: str
    steps: list[int]
    values: Values
    colour: str = "ink"
    dash: str = "solid"
    unit: str = ""
    width: float = 1.6

    @property
    def known(self) -> list[float]:
        """Its values without the gaps."""
        return [value for value in self.values if value is not None]


def column(table: pa.Table, name: str, scale: float = 1.0) -> Values:
    """A column of a table as values to draw."""
    return [None if v is None else float(f"{v * scale:.{DIGITS}g}") for v in table[name].to_pylist()]


def line(table: pa.Table, name: str, label: str, scale: float = 1.0, **style: Any) -> Line:
    """The line of a column over the table's `step`."""
    return Line(label, table["step"].to_pylist(), column(table, name, scale), **style)


def panel(lines: Sequence[Line], theme: Theme, steps: Sequence[int] | None = None, **axis: Any) -> go.Figure:
    """The lines over their steps and those in `steps`, the first of them on top; `axis` are settings of the y axis.

    Without a known value the figure says so instead.
    """
    steps = sorted({step for each in lines for step in each.steps}.union(steps or ()))
    if not any(each.known for each in lines):
        return empty(theme, "not known for these steps" if len(steps) else "no steps yet")
    room = 0.5 if len(steps) == 1 else 0.03 * (steps[-1] - steps[0])
    figure = go.Figure(layout=layout(theme, hovermode="x", margin={"l": LEFT, "r": _right(lines), "t": 8, "b": 26}))
    figure.update_xaxes(range=[steps[0] - room, steps[-1] + room], title=None, nticks=8, tickformat=",d")
    if len(steps) <= 8:
        figure.update_xaxes(tickvals=list(steps))
    figure.update_yaxes(nticks=5, automargin=False, **axis)
    for each in reversed(lines):
        figure.add_trace(_trace(each, theme))
    if len(lines) > 1:
        _label_ends(figure, lines, theme)
    return figure


def logarithmic(lines: Sequence[Line]) -> tuple[list[Line], float, dict[str, Any]]:
    """The lines for a logarithmic y axis over whole powers of ten, where it begins, and its settings.

    A logarithm has no 0: what lies below the axis is drawn where it begins.
    """
    positive = [max(value, LEAST) for each in lines for value in each.known if value > 0] or [LEAST, 1.0]
    bottom = math.floor(math.log10(min(positive)))
    top = max(math.ceil(math.log10(max(positive))), bottom + 1)
    low = 10.0**bottom
    ticks = {10.0**power: text for power, text in DECADES.items() if bottom <= power <= top}
    axis = {"type": "log", "range": [bottom, top], "tickvals": list(ticks), "ticktext": list(ticks.values())}
    raised = [replace(each, values=[None if v is None else max(v, low) for v in each.values]) for each in lines]
    return raised, low, axis


def _trace(each: Line, theme: Theme) -> go.Scatter:
    return go.Scatter(
        x=each.steps,
        y=each.values,
        name=each.label,
        mode="lines" if len(each.known) > MANY else "lines+markers",
        line={"color": getattr(theme, each.colour), "width": min(each.width, _width(each)), "dash": each.dash},
        marker={"size": 5},
        connectgaps=False,
        hovertemplate=f"step %{{x}}: {each.label} %{{y:.3~g}}{each.unit}<extra></extra>",
    )


def _width(each: Line) -> float:
    return 1.6 if len(each.steps) <= 300 else 0.9  # a line that goes up and down at every pixel is a band


def band(
    figure: go.Figure, steps: Sequence[int], low: Values, high: Values, colour: str, opacity: float, name: str
) -> None:
    """Shade between two lines, behind what is drawn; a gap in either is a gap in the band."""
    if not figure.data:
        return
    x: list[int | None] = []
    y: Values = []
    for part in _unbroken(steps, low, high):
        x += [*(step for step, _, _ in part), *(step for step, _, _ in reversed(part)), None]
        y += [*(top for _, _, top in part), *(bottom for _, bottom, _ in reversed(part)), None]
    shade = go.Scatter(
        x=x,
        y=y,
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=colour,
        opacity=opacity,
        name=name,
        hoverinfo="skip",
    )
    figure.add_trace(shade)
    figure.data = (figure.data[-1], *figure.data[:-1])  # behind the lines


def _unbroken(steps: Sequence[int], low: Values, high: Values) -> Iterator[list[tuple[int, float, float]]]:
    rows = zip(steps, low, high, strict=True)
    for known, part in groupby(rows, lambda row: row[1] is not None and row[2] is not None):
        if known:
            yield [(step, bottom or 0.0, top or 0.0) for step, bottom, top in part]


def ring(figure: go.Figure, steps: list[int], values: Values, theme: Theme) -> None:
    """A ring around each of these points: steps that are marked."""
    if figure.data and steps:
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=values,
                mode="markers",
                name="marked",
                hoverinfo="skip",
                cliponaxis=False,
                marker={
                    "symbol": "circle-open",
                    "size": 11 if len(steps) <= MANY else 5,
                    "color": theme.ink,
                    "line": {"width": 1.6 if len(steps) <= MANY else 1},
                },
            )
        )


def _right(lines: Sequence[Line]) -> float:
    return max(RIGHT, 10 + WIDE * max(len(each.label) for each in lines)) if len(lines) > 1 else RIGHT


def _label_ends(figure: go.Figure, lines: Sequence[Line], theme: Theme) -> None:
    """Each line's name at its last known value, pushed apart where two would lie on one another."""
    logarithmic = figure.layout.yaxis.type == "log"
    ends = [(each.known[-1], each) for each in reversed(lines) if each.known]
    known = [value for each in lines for value in each.known]
    low, high = figure.layout.yaxis.range or (min(known), max(known))
    heights = [TALL * (_place(value, logarithmic) - low) / (high - low or 1.0) for value, _ in ends]
    order = sorted(range(len(ends)), key=lambda place: heights[place])
    for (value, each), shift in zip((ends[place] for place in order), _apart([heights[p] for p in order]), strict=True):
        figure.add_annotation(
            text=each.label,
            x=1,
            xref="paper",
            y=_place(value, logarithmic),
            xanchor="left",
            yanchor="middle",
            xshift=2,
            yshift=shift,
            showarrow=False,
            font={"size": 11.5, "color": getattr(theme, each.colour)},
        )


def _place(value: float, logarithmic: bool) -> float:
    return math.log10(max(value, 1e-12)) if logarithmic else value


def _apart(heights: Sequence[float]) -> list[float]:
    """How far each of these ascending heights moves so that all lie `LABEL` apart: those that are too near stand about
    their own middle, the others stay."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _stacked(groups[-1])[0] - _stacked(groups[-2])[-1] < LABEL:
            last = groups.pop()
            groups[-1] += last
    places = [place for group in groups for place in _stacked(group)]
    return [round(place - height, 1) for place, height in zip(places, heights, strict=True)]


def _stacked(heights: Sequence[float]) -> list[float]:
    foot = fmean(heights) - LABEL * (len(heights) - 1) / 2
    return [foot + LABEL * place for place in range(len(heights))]
