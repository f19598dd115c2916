"""μ → π_old (the engine) and π_old → π (the update), apart and together (arXiv:2602.04879 Fig. 2 and §5.4; C1, C6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.axes import DECADES, Bins, divergence_axis, interval, logit_axis, ratio_axis
from web.figures.density import Grid, heat
from web.figures.theme import LEGEND, Theme, empty, footnotes, layout, noise_band
from web.numbers import count, number, plain, share
from web.words import SIGNS

__all__ = ["Frame", "by_probability", "by_step", "plane", "truncation"]

PARTS = {  # part: what it is called, its letters, its colour, its dash
    "mismatch": ("μ → π_old", "ρ", "ink", "solid"),
    "update": ("π_old → π", "r′", "muted", "5px,3px"),
    "together": ("μ → π", "r", "density_high", "2px,3px"),
}
TVS = {"topk": "top-K TV", "binary": "binary TV", "exact": "exact TV"}
MANY = 40  # steps beyond which single points are no longer marked


@dataclass(frozen=True)
class Frame:
    """What a plane shows: x over logit(p) in ±x_limit, y over ln ratio or log₁₀ TV from y_low to y_high.

    part: mismatch or update. tv: topk, binary or exact; None for the ratio. known: tokens whose value is known, of
    `n`. noise: the noise floor in ln r or TV, drawn as a band; None where the part is not between two scorings.
    """

    part: str
    tv: str | None
    x_limit: float
    y_low: float
    y_high: float
    x_bins: int
    y_bins: int
    n: int
    sign: int | None
    noise: float | None = None


def plane(density: pa.Table, frame: Frame, theme: Theme) -> go.Figure:
    """Ratio or TV over the probability under the policy before (Fig. 2). density: x_bin, y_bin, n, n_beyond."""
    name, letter, *_ = PARTS[frame.part]
    if density.num_rows == 0:
        return empty(theme, f"{name} is not known for any token here")
    before, after = name.split(" → ")
    figure = go.Figure(layout=layout(theme))
    figure.update_xaxes(**logit_axis(frame.x_limit, f"{before}(a)"))
    if frame.tv is None:
        figure.update_yaxes(**ratio_axis(frame.y_low, frame.y_high, f"{letter} = {after}(a) / {before}(a)"))
    else:
        figure.update_yaxes(**divergence_axis(frame.y_low, frame.y_high, f"{TVS[frame.tv]}, {name}"))
    if frame.noise:
        low, high = (-frame.noise, frame.noise) if frame.tv is None else (frame.y_low, math.log10(frame.noise))
        noise_band(figure, max(low, frame.y_low), min(high, frame.y_high), theme)
    grid = Grid(-frame.x_limit, frame.x_limit, frame.y_low, frame.y_high, frame.x_bins, frame.y_bins)
    figure.add_trace(heat(density, grid, theme))
    drawn, beyond = sum(density["n"].to_pylist()), sum(density["n_beyond"].to_pylist())
    said = [f"{count(drawn)} tokens, {SIGNS[frame.sign] if frame.sign is not None else 'every A'}"]
    if drawn < frame.n:
        said.append(f"{count(frame.n - drawn)} without a logged list left out")
    if beyond:
        said.append(f"{count(beyond)} beyond the axes drawn at their edge")
    footnotes(figure, said, theme, room=2)
    return figure


def by_probability(table: pa.Table, quantity: str, theme: Theme) -> go.Figure:
    """Median (dot), 90 % (tick) and 99 % quantile (line's end) of |ln ratio| or |Δp| by bin of μ(a), for both parts.

    quantity: log or dp. table: part, p_low, p_high, q50_abs_<quantity>, q90_…, q99_…; rows without a bin are left out.
    """
    rows = [row for row in table.to_pylist() if row["p_low"] is not None]
    figure = go.Figure(layout=layout(theme))
    bins = Bins(rows)
    for shift, part in ((-0.14, "mismatch"), (0.14, "update")):
        name, _, colour, _ = PARTS[part]
        of = [row for row in rows if row["part"] == part and row[f"q99_abs_{quantity}"]]
        if not of:
            continue
        x = [bins.place(row) + shift for row in of]
        line = {"color": getattr(theme, colour), "width": 1.4}
        spans: list[float | None] = []
        places: list[float | None] = []
        for place, row in zip(x, of, strict=True):
            places += [place, place, None]
            low, middle, high = (row[f"{level}_abs_{quantity}"] for level in ("q50", "q90", "q99"))
            spans += [low or middle or high, high, None]  # a median of 0 has no place on a log axis
        figure.add_trace(go.Scatter(x=places, y=spans, mode="lines", line=line, hoverinfo="skip", showlegend=False))
        for level, symbol, size in (("q90", "line-ew-open", 8), ("q50", "circle", 7)):
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=[row[f"{level}_abs_{quantity}"] or None for row in of],
                    mode="markers",
                    name=name,
                    showlegend=level == "q50",
                    marker={"symbol": symbol, "size": size, "color": line["color"], "line": {"width": 1.6}},
                    hovertext=[_spread(row, name, quantity) for row in of],
                    hoverinfo="text",
                )
            )
    if not figure.data:
        return empty(theme, "not known for these tokens")
    figure.update_xaxes(**bins.axis("μ(a)"))
    figure.update_yaxes(
        title="|ln ratio|" if quantity == "log" else "|Δp|",
        type="log",
        **_decades([value for trace in figure.data for value in trace.y if value]),
    )
    return figure.update_layout(showlegend=True, legend=LEGEND)


def _decades(values: Sequence[float]) -> dict[str, Any]:
    """Ticks of a logarithmic axis: at powers of ten, where there are few also at their threes."""
    ticks = {10.0**power: text for power, text in DECADES.items()}
    if max(values) < 100 * min(values):
        ticks |= {3 * tick: number(3 * tick).rstrip("0").removeprefix("0") for tick in ticks if 1e-3 <= 3 * tick < 1}
    return {"tickvals": list(ticks), "ticktext": list(ticks.values())}


def _spread(row: dict[str, Any], name: str, quantity: str) -> str:
    values = ", ".join(
        f"{label} {number(row[f'{level}_abs_{quantity}'])}"
        for level, label in (("q50", "median"), ("q90", "90 %"), ("q99", "99 %"))
    )
    return f"{name}, μ(a) {interval(row['p_low'], row['p_high'])}<br>{values}<br>{count(row['n'])} tokens"


def by_step(table: pa.Table, quantity: str, theme: Theme) -> go.Figure:
    """Mean |ln ratio| or |Δp| per step of both parts and of both together. table: step, part, mean_abs_<quantity>."""
    rows = [row for row in table.to_pylist() if row[f"mean_abs_{quantity}"] is not None]
    if not rows:
        return empty(theme, "not known for these steps")
    figure = go.Figure(layout=layout(theme, hovermode="x", margin={"l": 52, "r": 14, "t": 12, "b": 40}))
    for part, (name, letter, colour, dash) in PARTS.items():
        of = [row for row in rows if row["part"] == part]
        label = f"{name}, ln {letter}" if quantity == "log" else name
        figure.add_trace(
            go.Scatter(
                x=[row["step"] for row in of],
                y=[row[f"mean_abs_{quantity}"] for row in of],
                name=label,
                mode="lines+markers" if len(of) <= MANY else "lines",
                line={"color": getattr(theme, colour), "width": 1.6, "dash": dash},
                marker={"size": 5},
                hovertext=[f"step {row['step']}: {name} {number(row[f'mean_abs_{quantity}'])}" for row in of],
                hoverinfo="text",
            )
        )
    figure.update_xaxes(title="step", tickformat=",d", nticks=8, **_ticks([row["step"] for row in rows]))
    figure.update_yaxes(title="mean |ln ratio|" if quantity == "log" else "mean |Δp|", rangemode="tozero", nticks=5)
    return figure.update_layout(showlegend=True, legend=LEGEND)


def _ticks(steps: Sequence[int]) -> dict[str, Any]:
    known = sorted(set(steps))
    return {"tickvals": known} if len(known) <= 8 else {}


def truncation(table: pa.Table, cap: float, theme: Theme) -> go.Figure:
    """By bin of μ(a): the share of all tokens, of those that truncation at C = `cap` hits, and of the weight it takes.

    table: cap, p_low, p_high, is_bin, n, n_truncated, share, share_of_truncated, share_of_lost (§5.4; C6).
    """
    rows = [row for row in table.to_pylist() if row["cap"] == cap and row["is_bin"]]
    truncated = sum(row["n_truncated"] for row in rows)
    if not truncated:
        known = any(row["n"] for row in rows)
        return empty(theme, f"no token with a gradient has r > {plain(cap)}" if known else "r is not known here")
    figure = go.Figure(layout=layout(theme, bargap=0.3, bargroupgap=0.08))
    bins = Bins(rows)
    for column, name, colour in (
        ("share", "all tokens", "density_low"),
        ("share_of_truncated", f"{count(truncated)} tokens with r > {plain(cap)}", "density_high"),
        ("share_of_lost", "weight lost", "ink"),
    ):
        figure.add_trace(
            go.Bar(
                x=[bins.place(row) for row in rows],
                y=[row[column] for row in rows],
                name=name,
                marker={"color": getattr(theme, colour), "line": {"width": 0.5, "color": theme.muted}},
                hovertext=[
                    f"μ(a) {interval(row['p_low'], row['p_high'])}: {share(row[column])} of {name}" for row in rows
                ],
                hoverinfo="text",
            )
        )
    figure.update_xaxes(**bins.axis("μ(a)"))
    figure.update_yaxes(title="share", tickformat=".0%", rangemode="tozero")
    return figure.update_layout(showlegend=True, legend=LEGEND)
