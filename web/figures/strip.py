"""One response from its first token to its last: the ratio and the divergence of each token, with both bounds."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.axes import divergence_axis, ratio_axis
from web.figures.theme import MARKS, Theme, empty, layout, noise_band
from web.numbers import count, number, plain
from web.text import label
from web.words import DIVERGENCES, METRICS, cell_name, symbols

__all__ = ["strip"]

Row = dict[str, Any]
FLOOR = 1e-5


def strip(tokens: pa.Table, at: dict[str, Any], theme: Theme) -> go.Figure:
    """log r (upper) and D (lower) by position (arXiv:2602.04879 Eq. 10, 12), and a metric below where one is chosen.

    tokens: position, token, token_id, log_ratio, divergence, advantage, cell, and with a metric its value; n_tokens
    where the response has more tokens than these. `at` holds the view: divergence, anchor, evaluated_at, eps_low,
    eps_high, delta_low, delta_high, perhaps `metric`, and `noise`, its noise floor (log_ratio, tv, kl). A point's
    `customdata` is its position.
    """
    every = tokens.to_pylist()
    rows = [row for row in every if row["log_ratio"] is not None]
    if not rows:
        return empty(theme, "no token of this response has a known ratio")
    metric = at.get("metric")
    third = metric not in (None, "decision", "ratio") and any(row["metric"] is not None for row in every)
    figure = _axes(rows, at, third, theme)
    for cell in ("both_keep", "no_gradient", "unknown", *MARKS):
        of_cell = [row for row in rows if row["cell"] == cell]
        figure.add_trace(_dots(of_cell, "y", at, theme, cell))
        figure.add_trace(_dots([row for row in of_cell if row["divergence"] is not None], "y2", at, theme, cell))
        if third:
            figure.add_trace(_dots([row for row in of_cell if row["metric"] is not None], "y3", at, theme, cell))
    for y, axis, text, colour, dash in _bounds(rows, at):
        _bound(figure, y, axis, text, getattr(theme, colour), dash)
    left_out = every[0].get("n_tokens", len(every)) - len(every)
    if left_out > 0:
        _note(figure, left_out, len(every), theme)
    return figure


def _axes(rows: list[Row], at: dict[str, Any], third: bool, theme: Theme) -> go.Figure:
    """The frame: two or three panels over one axis of positions, with the noise floor as bands."""
    anchor, policy = symbols(at["anchor"], at["evaluated_at"])
    reach = max(1.15 * max(abs(row["log_ratio"]) for row in rows), 1.5 * math.log1p(at["eps_high"]))
    low, high = math.log10(FLOOR), 0.15
    figure = go.Figure(layout=layout(theme, hovermode="closest", margin={"l": 58, "r": 60, "t": 6, "b": 34}))
    domains = [[0.7, 1], [0.35, 0.65], [0, 0.3]] if third else [[0.55, 1], [0, 0.47]]
    bare = figure.layout.yaxis.to_plotly_json()
    figure.update_layout(
        yaxis={"domain": domains[0], "anchor": "x"},
        yaxis2={**bare, "anchor": "x", "domain": domains[1]},
        **({"yaxis3": {**bare, "anchor": "x", "domain": domains[2], "nticks": 4}} if third else {}),
    )
    figure.update_layout(
        yaxis=ratio_axis(-reach, reach, f"{policy}/{anchor}", most=6),
        yaxis2=divergence_axis(low, high, DIVERGENCES[at["divergence"]]),
        xaxis={"title.text": "position in the response", "range": [-1, rows[-1]["position"] + 1]},
    )
    figure.update_xaxes(anchor="y3" if third else "y2")
    if third:
        figure.update_layout(
            yaxis3={"title": {"text": METRICS[at["metric"]].replace(", ", "<br>", 1), "font": {"size": 11.5}}}
        )
    noise = at.get("noise") or {}
    if noise.get("log_ratio"):
        noise_band(figure, -min(noise["log_ratio"], reach), min(noise["log_ratio"], reach), theme)
    if noise.get(kind := at["divergence"].rpartition("_")[2]):
        noise_band(figure, low, min(math.log10(noise[kind]), high), theme, "y2")
    return figure


def _bound(figure: go.Figure, y: float, axis: str, text: str, colour: str, dash: str) -> None:
    line = {"color": colour, "width": 1.2, "dash": dash}
    figure.add_shape(type="line", x0=0, x1=1, xref="paper", y0=y, y1=y, yref=axis, layer="below", line=line)
    figure.add_annotation(
        text=text,
        x=1,
        xref="paper",
        y=y,
        yref=axis,
        xanchor="left",
        xshift=3,
        showarrow=False,
        font={"size": 11, "color": colour},
    )


def _note(figure: go.Figure, left_out: int, drawn: int, theme: Theme) -> None:
    """What of a long response is not drawn."""
    figure.add_annotation(
        text=f"{count(drawn)} of {count(drawn + left_out)} tokens: those that a method drops (at most 300, those that "
        "moved most), and the largest ratio and divergence of each 250th of the response",
        x=0,
        y=0,
        yshift=-34,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="top",
        showarrow=False,
        font={"size": 11, "color": theme.muted},
    )
    figure.update_layout(margin={"b": 58})


def _bounds(rows: list[Row], at: dict[str, Any]) -> list[tuple[float, str, str, str, str]]:
    """The bounds for the signs of A that the response has: (y, axis, label, colour, dash)."""
    signs = {math.copysign(1, row["advantage"]) for row in rows if row["advantage"]}
    bounds = []
    if 1 in signs:
        bounds.append((math.log1p(at["eps_high"]), "y", f"×{plain(1 + at['eps_high'])}", "ppo", "solid"))
        if at["delta_high"] > 0:
            bounds.append((math.log10(at["delta_high"]), "y2", f"δ {plain(at['delta_high'])}", "dppo", "5px,3px"))
    if -1 in signs:
        if at["eps_low"] < 1:
            bounds.append((math.log1p(-at["eps_low"]), "y", f"×{plain(1 - at['eps_low'])}", "ppo", "solid"))
        if at["delta_low"] > 0 and (1 not in signs or at["delta_low"] != at["delta_high"]):
            bounds.append((math.log10(at["delta_low"]), "y2", f"δ {plain(at['delta_low'])}", "dppo", "5px,3px"))
    return bounds


def _dots(rows: list[Row], axis: str, at: dict[str, Any], theme: Theme, cell: str) -> go.Scatter:
    mark = MARKS.get(cell)
    if axis == "y":
        values = [row["log_ratio"] for row in rows]
    elif axis == "y2":
        values = [math.log10(max(row["divergence"], FLOOR)) for row in rows]
    else:
        values = [row["metric"] for row in rows]
    colour = getattr(theme, mark.colour) if mark else theme.muted
    return go.Scatter(
        x=[row["position"] for row in rows],
        y=values,
        yaxis=axis,
        mode="markers",
        name=cell,
        cliponaxis=False,
        marker={"symbol": mark.symbol if mark else "circle", "size": 7 if mark else 3.5, "color": colour},
        customdata=[row["position"] for row in rows],
        hoverinfo="text",
        hovertext=[_hover(row, axis, at, cell) for row in rows],
    )


def _hover(row: Row, axis: str, at: dict[str, Any], cell: str) -> str:
    shown = label(row["token"], 24) if row["token"] is not None else row["token_id"]
    more = f"<br>{METRICS[at['metric']]}: {number(row['metric'])}" if axis == "y3" else ""
    return (
        f"{row['position']} “{shown}”<br>r = {number(math.exp(row['log_ratio']))}   D = {number(row['divergence'])}"
        f"{more}<br>{cell_name(cell, at['evaluated_at'])}"
    )
