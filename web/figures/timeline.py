"""Small multiples over training steps (arXiv:2602.04879 Fig. 3 and Fig. 5–7), one factory each.

Every factory takes the `timeline` table: step, mean_reward, mean_abs_dp, min_dp, max_dp, mean_entropy_old,
ppo_positive, ppo_negative, binary_tv_positive, binary_tv_negative, noise_tv, anchor, evaluated_at. A null is a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.theme import Theme, empty, layout
from web.numbers import number
from web.words import symbols

__all__ = ["FIGURES", "drift", "entropy", "extremes", "masks", "reward"]

MANY = 40  # steps beyond which single points are no longer marked


@dataclass(frozen=True)
class Series:
    """One line: a column of the table, its label at the line's end, a theme colour and a dash."""

    column: str
    label: str
    colour: str
    dash: str = "solid"
    scale: float = 1.0
    unit: str = ""


def drift(table: pa.Table, theme: Theme) -> go.Figure:
    """Mean |π − anchor| of the sampled tokens per step (Fig. 3, left; claim C2)."""
    anchor, policy = _pair(table)
    series = Series("mean_abs_dp", f"mean |{policy} − {anchor}|", "ink")
    return _with_noise(_lines(table, [series], theme, rangemode="tozero"), table, theme, two_sided=False)


def extremes(table: pa.Table, theme: Theme) -> go.Figure:
    """The largest rise and the largest fall of a token's probability per step (Fig. 3, right; claim C3)."""
    known = [abs(value) for name in ("min_dp", "max_dp") for value in _column(table, name) if value is not None]
    reach = min(1.05, 1.15 * max(known, default=1.0) or 1.0)
    lines = [Series("max_dp", "max", "ink"), Series("min_dp", "min", "ink", "5px,3px")]
    figure = _lines(table, lines, theme, range=[-reach, reach])
    if figure.data:
        figure.add_hline(y=0, line={"color": theme.rule, "width": 1}, layer="below")
    return _with_noise(figure, table, theme, two_sided=True)


def masks(table: pa.Table, theme: Theme, sign: str) -> go.Figure:
    """Share of the tokens of one sign of A that each method drops, in percent (claim C14).

    `sign`: positive or negative. Both signs get the same y axis.
    """
    top = max(
        (
            value
            for name in ("ppo", "binary_tv")
            for side in ("positive", "negative")
            for value in _column(table, f"{name}_{side}")
            if value is not None
        ),
        default=0.0,
    )
    series = [
        Series(f"ppo_{sign}", "PPO", "ppo", scale=100, unit=" %"),
        Series(f"binary_tv_{sign}", "DPPO", "dppo", "5px,3px", scale=100, unit=" %"),
    ]
    return _lines(table, series, theme, range=[-0.04 * max(top, 1e-4) * 100, 115 * max(top, 1e-4)], ticksuffix=" %")


def reward(table: pa.Table, theme: Theme) -> go.Figure:
    """Mean reward of a step's responses, as logged (claim C13)."""
    return _lines(table, [Series("mean_reward", "mean reward", "ink")], theme)


def entropy(table: pa.Table, theme: Theme) -> go.Figure:
    """Mean entropy of OLD at the response tokens, in nats (claim C12)."""
    return _lines(table, [Series("mean_entropy_old", "mean entropy", "ink", unit=" nats")], theme, rangemode="tozero")


def _pair(table: pa.Table) -> tuple[str, str]:
    anchor, point = (next((v for v in _column(table, name) if v), None) for name in ("anchor", "evaluated_at"))
    return symbols(anchor or "rollout", point or "end")


def _column(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist() if name in table.column_names else []


def _lines(table: pa.Table, lines: Sequence[Series], theme: Theme, **axis: Any) -> go.Figure:
    steps = _column(table, "step")
    values = {
        line.column: [None if v is None else v * line.scale for v in _column(table, line.column)] for line in lines
    }
    if not any(value is not None for column in values.values() for value in column):
        return empty(theme, "no steps yet" if not steps else "not known for these steps")
    figure = go.Figure(layout=layout(theme, hovermode="x", margin={"l": 48, "r": 48, "t": 8, "b": 26}))
    for line in lines:
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=values[line.column],
                name=line.label,
                mode="lines" if len(steps) > MANY else "lines+markers",
                line={"color": getattr(theme, line.colour), "width": 1.6, "dash": line.dash},
                marker={"size": 5},
                connectgaps=False,
                hovertext=[
                    f"step {step}: {line.label} {number(value)}{line.unit}"
                    for step, value in zip(steps, values[line.column], strict=True)
                ],
                hoverinfo="text",
            )
        )
    if len(lines) > 1:
        _label_ends(figure, [(line, values[line.column]) for line in lines], theme)
    room = 0.5 if len(steps) == 1 else 0.03 * (steps[-1] - steps[0])
    figure.update_xaxes(range=[steps[0] - room, steps[-1] + room], title=None, nticks=8, tickformat=",d")
    if len(steps) <= 8:
        figure.update_xaxes(tickvals=steps)
    figure.update_yaxes(nticks=5, **axis)
    return figure


def _with_noise(figure: go.Figure, table: pa.Table, theme: Theme, *, two_sided: bool) -> go.Figure:
    """Shade what is below the step's noise floor (q99 of TV between two scorings of OLD)."""
    floor = [(step, v) for step, v in zip(_column(table, "step"), _column(table, "noise_tv"), strict=False) if v]
    if not figure.data or not floor:
        return figure
    steps, tops = [step for step, _ in floor], [value for _, value in floor]
    bottoms = [-value for value in tops] if two_sided else [0.0] * len(tops)
    band = go.Scatter(
        x=[*steps, *reversed(steps)],
        y=[*tops, *reversed(bottoms)],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=theme.rule,
        opacity=0.55,
        name="noise floor",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_trace(band)
    figure.data = (figure.data[-1], *figure.data[:-1])  # behind the lines
    return figure


def _label_ends(figure: go.Figure, lines: list[tuple[Series, list[Any]]], theme: Theme) -> None:
    """Each line's name at its last known value; where two would lie on one another they are pushed apart."""
    ends = sorted(
        (
            (next(v for v in reversed(column) if v is not None), line)
            for line, column in reversed(lines)
            if any(v is not None for v in column)
        ),
        key=lambda end: float(end[0]),
    )
    known = [v for _, column in lines for v in column if v is not None]
    close = len(ends) > 1 and ends[-1][0] - ends[0][0] < 0.14 * (max(known) - min(known) or 1.0)
    for place, (value, line) in enumerate(ends):
        figure.add_annotation(
            text=line.label,
            x=1,
            xref="paper",
            y=value,
            xanchor="left",
            yanchor="middle",
            xshift=2,
            showarrow=False,
            yshift=(-7 if place == 0 else 7) if close else 0,
            font={"size": 11.5, "color": getattr(theme, line.colour)},
        )


FIGURES: dict[str, Callable[[pa.Table, Theme], go.Figure]] = {
    "drift": drift,
    "extremes": extremes,
    "masks_positive": partial(masks, sign="positive"),
    "masks_negative": partial(masks, sign="negative"),
    "reward": reward,
    "entropy": entropy,
}
