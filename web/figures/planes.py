"""Every token over the probability its anchor gave it: ratio (PPO's view) or divergence (DPPO's view) against it.

The planes of arXiv:2602.04879 Fig. 2, with both methods' boundaries (Eq. 12, and PPO's clip) drawn into each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.axes import divergence_axis, logit, logit_axis, ratio_axis
from web.figures.boundaries import add_boundaries
from web.figures.density import Grid, heat
from web.figures.theme import LEGEND, MARKS, Theme, empty, footnotes, layout, noise_band
from web.numbers import count, number, signed
from web.text import label
from web.words import DIVERGENCES, SIGNS, cell_name, cell_slots, symbols

__all__ = ["Frame", "Selection", "plane"]

LN10 = math.log(10)


@dataclass(frozen=True)
class Selection:
    """A rectangle of a plane: the anchor's probability and, on the plane it was drawn on, r or D. None = no bound."""

    p_low: float | None = None
    p_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None


@dataclass(frozen=True)
class Frame:
    """What a plane shows: its axes, its bins, the pair of policies and the thresholds.

    x runs over logit(p) in ±x_limit, y over ln r or log₁₀ D in [y_low, y_high]. `n` tokens are drawn; `clipped` of
    them, by side (left, right, below, above), lie beyond the axes and are drawn at their edge. At most `max_points`
    dropped tokens are marked. `noise`: the noise floor in ln r or D, drawn as a band. `methods` are the two that are
    compared, `titles` their names, `drawn` those whose boundaries (ppo, dppo) are drawn. `selected` is outlined.
    """

    y: Literal["ratio", "divergence"]
    x_limit: float
    y_low: float
    y_high: float
    x_bins: int
    y_bins: int
    divergence: str
    anchor: str
    evaluated_at: str
    delta_low: float
    delta_high: float
    n: int
    sign: int | None
    clipped: Mapping[str, int] = field(default_factory=dict)
    max_points: int | None = None
    noise: float | None = None
    methods: tuple[str, str] = ("ppo", "dppo")
    titles: tuple[str, str] = ("PPO", "DPPO")
    drawn: tuple[str, ...] = ("ppo", "dppo")
    selected: Selection = Selection()


def plane(density: pa.Table, dropped: pa.Table, boundaries: pa.Table, frame: Frame, theme: Theme) -> go.Figure:
    """Grey: how many tokens lie where. Marks: tokens that a method drops. Lines: where each method starts to drop.

    density: x_bin, y_bin, n. dropped: step, sample_id, position, token, token_id, sign, cell, x, p, log_ratio,
    divergence, advantage. boundaries: method, sign, x, p, log_ratio, divergence, ordered by x. A point's `customdata`
    is [step, sample_id, position].
    """
    if density.num_rows == 0:
        what = "this divergence is not known for any token" if frame.y == "divergence" else "no tokens here"
        return empty(theme, f"no tokens: {what}" if frame.y == "divergence" else what)
    anchor, policy = symbols(frame.anchor, frame.evaluated_at)
    figure = go.Figure(layout=layout(theme))
    figure.update_xaxes(**logit_axis(frame.x_limit, f"{anchor}(a), the token’s probability under the anchor"))
    if frame.y == "ratio":
        figure.update_yaxes(**ratio_axis(frame.y_low, frame.y_high, f"r = {policy}(a) / {anchor}(a)"))
    else:
        title = f"{DIVERGENCES[frame.divergence]}, {anchor} → {policy}"
        figure.update_yaxes(**divergence_axis(frame.y_low, frame.y_high, title))
    if frame.noise:
        low, high = (-frame.noise, frame.noise) if frame.y == "ratio" else (frame.y_low, math.log(frame.noise) / LN10)
        noise_band(figure, max(low, frame.y_low), min(high, frame.y_high), theme)
    grid = Grid(-frame.x_limit, frame.x_limit, frame.y_low, frame.y_high, frame.x_bins, frame.y_bins)
    figure.add_trace(heat(density, grid, theme))
    add_boundaries(figure, boundaries, frame, theme)
    slots = cell_slots(*frame.methods)
    shown = [(slots[row["cell"]], row) for row in dropped.to_pylist() if _y(row, frame) is not None]
    for cell in MARKS:
        figure.add_trace(_points(cell, [row for slot, row in shown if slot == cell], frame, theme))
    if frame.selected != Selection():
        figure.add_selection(**_outline(frame), line={"color": theme.ink, "width": 1.2, "dash": "dot"})
    edges = {"x": [-frame.x_limit, frame.x_limit], "y": [frame.y_low, frame.y_high]}
    figure.update_layout(showlegend=True, legend=LEGEND, dragmode="select", meta=edges)
    footnotes(figure, _coverage(frame, dropped.num_rows), theme, room=2)
    return figure


def _outline(frame: Frame) -> dict[str, float]:
    """The selected rectangle in the axes' units; what has no bound reaches the edge."""
    of_y = math.log if frame.y == "ratio" else math.log10

    def place(value: float | None, low: float, high: float, default: float) -> float:
        return default if value is None else min(max(value, low), high)

    limit, chosen = frame.x_limit, frame.selected
    sides = [None if p is None else logit(min(max(p, 1e-9), 1 - 1e-9)) for p in (chosen.p_low, chosen.p_high)]
    ends = [None if y is None else of_y(max(y, 1e-9)) for y in (chosen.y_low, chosen.y_high)]
    return {
        "x0": place(sides[0], -limit, limit, -limit),
        "x1": place(sides[1], -limit, limit, limit),
        "y0": place(ends[0], frame.y_low, frame.y_high, frame.y_low),
        "y1": place(ends[1], frame.y_low, frame.y_high, frame.y_high),
    }


def _y(row: Mapping[str, Any], frame: Frame) -> float | None:
    if frame.y == "ratio":
        return float(row["log_ratio"])
    return None if row["divergence"] is None else math.log(max(row["divergence"], 1e-9)) / LN10


def _points(cell: str, rows: list[dict[str, Any]], frame: Frame, theme: Theme) -> go.Scatter:
    mark = MARKS[cell]
    return go.Scatter(
        x=[round(min(max(row["x"], -frame.x_limit), frame.x_limit), 4) for row in rows],  # a pixel is .03
        y=[round(min(max(_y(row, frame) or 0.0, frame.y_low), frame.y_high), 4) for row in rows],
        mode="markers",
        name=dict(zip(MARKS, (f"only {frame.titles[0]}", f"only {frame.titles[1]}", "both"), strict=True))[cell],
        cliponaxis=False,
        marker={
            "symbol": mark.symbol,
            "color": getattr(theme, mark.colour),
            "size": 6.5,
            "opacity": 0.85,
            "line": {"width": 0.75, "color": theme.paper},
        },
        customdata=[[row["step"], row["sample_id"], row["position"], *_told(row)] for row in rows],
        hovertemplate=_hover(cell, frame),
    )


def _told(row: Mapping[str, Any]) -> list[str]:
    """What the hover text of a token says. What came with a log is escaped: Plotly reads HTML there."""
    token = f"“{label(row['token'])}”" if row["token"] is not None else f"token {row['token_id']}"
    numbers = [number(row["p"]), number(math.exp(row["log_ratio"])), number(row["divergence"])]
    return [token, *numbers, signed(row["advantage"]), label(row["sample_id"], 40)]


def _hover(cell: str, frame: Frame) -> str:
    """One token in words, from its `customdata`: step, sample, position, and what `_told` says."""
    anchor, _ = symbols(frame.anchor, frame.evaluated_at)
    lines = (
        f"<b>%{{customdata[3]}}</b>  {cell_name(cell, frame.evaluated_at, frame.titles)}",
        f"{anchor}(a) = %{{customdata[4]}}   r = %{{customdata[5]}}",
        f"{DIVERGENCES[frame.divergence]} = %{{customdata[6]}}   A = %{{customdata[7]}}",
        "step %{customdata[0]}, position %{customdata[2]}, %{customdata[8]}",
    )
    return "<br>".join(lines) + "<extra></extra>"


def _coverage(frame: Frame, marked: int) -> list[str]:
    """What is drawn, what lies beyond the axes, and what is left out."""
    shown = SIGNS[frame.sign] if frame.sign is not None else "every A"
    lines = [f"{count(frame.n)} tokens, {shown}"]
    if marked == frame.max_points:
        lines[0] += f"; marked: the {count(marked)} dropped ones that moved most"
    beyond = [f"{count(n)} {side}" for side, n in frame.clipped.items() if n]
    if beyond:
        lines.append(f"drawn at the edges: {', '.join(beyond)}")
    if frame.noise is not None:
        what = "|ln r|" if frame.y == "ratio" else DIVERGENCES[frame.divergence].split()[-1]
        lines.append(f"grey band: noise floor, {what} ≤ {number(frame.noise)} on 99 % of tokens")
    return lines
