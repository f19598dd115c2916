"""Two analyses in the same axes: A solid and filled, B dashed and hollow. Colours mean what they mean elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.lines import DASH, Line, line, logarithmic, panel
from web.figures.theme import MARKS, Theme, empty, layout
from web.numbers import number

__all__ = ["OVERLAYS", "Side", "overlay", "quantiles", "shares"]

CELLS = {"ppo_only_drops": "only PPO", "dppo_only_drops": "only DPPO", "both_drop": "both"}


@dataclass(frozen=True)
class Side:
    """One side's steps (the table `timeline`), and the step that it shows of them, if it shows one."""

    table: pa.Table
    step: int | None = None


@dataclass(frozen=True)
class Overlay:
    """What a panel draws of both sides: columns of `timeline` with a colour and what they are called, if several."""

    columns: Sequence[tuple[str, str, str]]
    scale: float = 1.0
    unit: str = ""
    from_zero: bool = True


def _one(column: str, **settings: Any) -> Overlay:
    return Overlay([(column, "ink", "")], **settings)


PERCENT: dict[str, Any] = {"scale": 100.0, "unit": " %"}
OVERLAYS = {
    "drift": _one("mean_abs_dp"),
    "mismatch": _one("mean_tv_binary_mismatch"),
    "update": _one("mean_tv_binary_old"),
    "extremes": Overlay([("max_dp", "ink", "max"), ("min_dp", "muted", "min")], from_zero=False),
    "bad_updates": _one("bad_share", **PERCENT),
    "entropy": _one("mean_entropy_old", unit=" nats"),
    "masks_positive": Overlay([("ppo_positive", "ppo", "PPO"), ("binary_tv_positive", "dppo", "DPPO")], **PERCENT),
    "masks_negative": Overlay([("ppo_negative", "ppo", "PPO"), ("binary_tv_negative", "dppo", "DPPO")], **PERCENT),
    "topk_mass": _one("mean_topk_mass_old", from_zero=False, **PERCENT),
    "reward": _one("mean_reward", from_zero=False),
    "improvement": _one("improvement", from_zero=False),
    "length": _one("mean_length", unit=" tokens"),
}


def overlay(name: str, a: Side, b: Side | None, theme: Theme, other_step: int | None = None) -> go.Figure:
    """A quantity over the steps of both sides. Without `b` both are steps of `a`: `other_step` is B's.

    A ring is around the step that a side shows.
    """
    chosen = OVERLAYS[name]
    lines = [
        line(side.table, column, f"{what} {letter}".strip(), chosen.scale, colour=colour, dash=dash, unit=chosen.unit)
        for side, letter, dash in ((a, "A" if b else "", "solid"), (b, "B", DASH))
        if side is not None
        for column, colour, what in chosen.columns
    ]
    axis: dict[str, Any] = {"ticksuffix": " %"} if chosen.unit == " %" else {}
    if chosen.from_zero:
        axis["rangemode"] = "tozero"
    figure = panel(lines, theme, **axis)
    n = len(chosen.columns)
    for each in lines[:n]:
        _point(figure, each, "A", a.step, theme)
    for each in lines[-n:]:
        _point(figure, each, "B", other_step if b is None else b.step, theme)
    return figure


def _point(figure: go.Figure, each: Line, letter: str, step: int | None, theme: Theme) -> None:
    """The step that a side shows, with the side's letter."""
    if not figure.data or step not in each.steps:
        return
    value = each.values[each.steps.index(step)]
    if value is None:
        return
    figure.add_trace(
        go.Scatter(
            x=[step],
            y=[value],
            mode="markers+text",
            text=[letter],
            textposition="top center",
            textfont={"size": 11.5, "color": getattr(theme, each.colour)},
            name=f"step of {letter}",
            hoverinfo="skip",
            cliponaxis=False,
            marker={"symbol": "circle-open", "size": 11, "color": getattr(theme, each.colour), "line": {"width": 1.6}},
        )
    )


def shares(table: pa.Table, theme: Theme) -> go.Figure:
    """What a method would drop: the share of the tokens of a sign of A in each cell but the first, A ● against B ○.

    table: sign, cell, n_a, n_b, share_a, share_b.
    """
    rows = [row for row in table.to_pylist() if row["cell"] in CELLS]
    if all(row[share] is None for row in rows for share in ("share_a", "share_b")):
        return empty(theme, "no decision is known on either side")
    names = [f"A {'>' if row['sign'] > 0 else '<'} 0, {CELLS[row['cell']]}" for row in rows]
    figure = go.Figure(layout=layout(theme, margin={"l": 120, "r": 20, "t": 22, "b": 52}))
    for name, row in zip(names, rows, strict=True):
        values = [None if row[share] is None else 100 * row[share] for share in ("share_a", "share_b")]
        colour = getattr(theme, MARKS[row["cell"]].colour)
        figure.add_trace(
            go.Scatter(
                x=values,
                y=[name, name],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={
                    "symbol": ["circle", "circle-open"],
                    "size": 9,
                    "color": colour,
                    "line": {"width": 2, "color": colour},
                },
                hovertext=[
                    f"{letter}: {number(value)} % of the tokens, {row[n]:,}"
                    for letter, value, n in zip("AB", values, ("n_a", "n_b"), strict=True)
                ],
                hoverinfo="text",
                name=name,
            )
        )
    top = max(100 * row[share] for row in rows for share in ("share_a", "share_b") if row[share] is not None) or 0.01
    figure.update_xaxes(range=[-0.03 * top, 1.05 * top], ticksuffix=" %", nticks=6, title="share of the tokens")
    figure.update_yaxes(autorange="reversed", ticks="", showline=False, type="category")
    figure.add_annotation(
        text="● A   ○ B", x=1, y=1, xref="paper", yref="paper", xanchor="right", yanchor="bottom", showarrow=False
    )
    return figure


def quantiles(table: pa.Table, theme: Theme) -> go.Figure:
    """|π − anchor| by bin of the anchor's probability: median and 99 % quantile of A, solid, and B, dashed.

    table: side, low, high, n, q50, q99; one row a bin and side.
    """
    rows = table.to_pylist()
    if not rows:
        return empty(theme, "no token of either side has a known change")
    bins = sorted({(row["low"], row["high"]) for row in rows})
    names = [f"{low:g} to {high:g}" for low, high in bins]
    known = {(row["side"], row["low"]): row for row in rows}
    lines, hovers = [], []
    for side, dash in (("a", "solid"), ("b", DASH)):
        for name, colour, what in (("q99", "ink", "99 %"), ("q50", "muted", "median")):
            of_side = [known.get((side, low)) for low, _ in bins]
            values = [None if row is None else row[name] for row in of_side]
            lines.append(Line(f"{side.upper()} {what}", list(range(len(bins))), values, colour, dash))
            hovers.append(
                [
                    f"{side.upper()}, {where}: {what} {number(value)} of {row['n']:,} tokens" if row else ""
                    for where, value, row in zip(names, values, of_side, strict=True)
                ]
            )
    lines, _, axis = logarithmic(lines)
    figure = panel(lines, theme, **axis)
    for trace, hover in zip(figure.data, reversed(hovers), strict=True):  # the first line is on top
        trace.update(hovertemplate=None, hovertext=hover, hoverinfo="text")
    figure.update_xaxes(tickvals=list(range(len(bins))), ticktext=names, title="probability under the anchor")
    figure.update_yaxes(title="|π − anchor|")
    return figure.update_layout(margin={"l": 70, "b": 48})
