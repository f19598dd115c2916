"""What Theorem 3.1 and the lower bounds of Eq. 7 and 8 say by step. Every factory takes the table `bounds`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.theme import Theme, empty, layout
from web.numbers import number

__all__ = ["FIGURES"]

Line = tuple[str, str, str, str]  # key of a row, label, theme colour, dash


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """The table with what follows from it: the change itself, and the least that it can be."""
    return [
        {
            **row,
            "change": _minus(row["first_order"], row["correction"]),
            "floor": _minus(row["reward_min"], row["mean_reward"]),
        }
        for row in table.to_pylist()
    ]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _draw(lines: Sequence[Line], table: pa.Table, theme: Theme) -> go.Figure:
    rows = _rows(table)
    if all(row[line[0]] is None for row in rows for line in lines):
        return empty(theme, "no steps yet" if not rows else "not known for these steps")
    steps = [row["step"] for row in rows]
    many = len(steps) > 40
    figure = go.Figure(layout=layout(theme, hovermode="x", margin={"l": 48, "r": 64, "t": 8, "b": 26}))
    figure.add_hline(y=0, line={"color": theme.rule, "width": 1}, layer="below")
    for key, label, colour, dash in lines:
        values = [row[key] for row in rows]
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=values,
                name=label,
                mode="lines" if many else "lines+markers",
                line={"color": getattr(theme, colour), "width": 1.6, "dash": dash},
                marker={"size": 5},
                connectgaps=False,
                hovertext=[f"step {s}: {label} = {number(v)}" for s, v in zip(steps, values, strict=True)],
                hoverinfo="text",
            )
        )
        last = next((value for value in reversed(values) if value is not None), None)
        if len(lines) > 1 and last is not None:
            figure.add_annotation(
                text=label, x=1, xref="paper", y=last, xanchor="left", xshift=4, showarrow=False,
                font={"size": 11, "color": getattr(theme, colour)},
            )  # fmt: skip
    figure.update_xaxes(nticks=8, tickformat=",d", **({"tickvals": steps} if len(steps) <= 8 else {}))
    return figure.update_yaxes(nticks=5)


FIGURES: dict[str, Callable[[pa.Table, Theme], go.Figure]] = {
    "first_order": partial(_draw, [("first_order", "L′", "ink", "solid")]),
    "change": partial(_draw, [("change", "L′ − Δ", "ink", "solid")]),
    "eq8": partial(_draw, [("eq8", "Eq. 8", "dppo", "solid"), ("floor", "R_min − J", "muted", "5px,3px")]),
    "eq7": partial(_draw, [("eq7", "Eq. 7", "ppo", "solid")]),
}
"""Figure name → factory: the first-order gain, the whole change (Theorem 3.1), and the bounds."""
