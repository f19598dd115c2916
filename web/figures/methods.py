"""Registered methods on one run: how every two agree, and what each drops by the sign of the advantage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa

from web.figures.theme import Theme, empty, layout
from web.numbers import count, number

__all__ = ["drop_rates", "matrix"]

SIGNS = {"positive": ("ink", "A > 0", "circle"), "negative": ("muted", "A < 0", "diamond-open")}


def matrix(
    table: pa.Table, titles: Mapping[str, str], measure: Literal["agreement", "kappa"], theme: Theme
) -> go.Figure:
    """Every two methods: Cohen's κ, or the share of tokens with A ≠ 0 that they decide alike.

    Rows are named and numbered, columns numbered alike. table: method, other, place, other_place, n, the four counts,
    agreement, kappa. A null (κ where neither or both drop everything) is a gap.
    """
    rows = table.to_pylist()
    if not rows:
        return empty(theme, "no method is measured yet")
    names = [titles[row["method"]] for row in rows if row["method"] == row["other"]]
    numbers = [str(place + 1) for place in range(len(names))]
    values = np.full((len(names), len(names)), np.nan)
    hover: list[list[str]] = [[""] * len(names) for _ in names]
    for row in rows:
        y, x = row["place"], row["other_place"]
        if row[measure] is not None:
            values[y, x] = row[measure]
        hover[y][x] = _pair(row, titles)
    low = -1.0 if measure == "kappa" else float(np.nanmin(values))
    figure = go.Figure(layout=layout(theme, margin={"l": 8, "r": 8, "t": 8, "b": 8}))
    figure.add_trace(
        go.Heatmap(
            x=numbers,
            y=[f"{name}  {place}" for name, place in zip(names, numbers, strict=True)],
            z=values,
            zmin=low,
            zmax=1.0,
            colorscale=_scale(measure, theme),
            hovertext=hover,
            hoverinfo="text",
            hoverongaps=True,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "κ" if measure == "kappa" else "alike"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    figure.update_xaxes(
        side="top", type="category", tickangle=0, dtick=1, showline=False, ticks="", tickfont={"size": 8}
    )
    figure.update_yaxes(autorange="reversed", dtick=1, showline=False, ticks="", tickfont={"size": 10.5})
    return figure


def _scale(measure: str, theme: Theme) -> list[list[Any]]:
    if measure == "agreement":
        return [[0, theme.density_low], [1, theme.dppo]]
    return [[0, theme.ppo], [0.5, theme.density_low], [1, theme.dppo]]


def _pair(row: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    method, other = titles[row["method"]], titles[row["other"]]
    lines = [f"<b>{method}</b>" if method == other else f"<b>{method}</b> and <b>{other}</b>"]
    kappa = "not defined: chance alone agrees" if row["kappa"] is None else number(row["kappa"])
    lines.append(f"{count(row['n'])} tokens with A ≠ 0; alike {number(row['agreement'])}, κ {kappa}")
    if method != other:
        lines.append(f"only {method} drops {count(row['n_only_method_drops'])}")
        lines.append(f"only {other} drops {count(row['n_only_other_drops'])}")
    lines.append(f"dropped {'by both ' if method != other else ''}{count(row['n_both_drop'])}")
    return "<br>".join(lines)


def drop_rates(table: pa.Table, titles: Mapping[str, str], theme: Theme) -> go.Figure:
    """Share of its known tokens that each method drops, one mark a sign of A; where it drops none there is no mark.

    table: method, n_positive, n_negative, n_drop_positive, n_drop_negative, drop_rate_positive, drop_rate_negative.
    """
    rows = [row for row in table.to_pylist() if row["n_drop_positive"] or row["n_drop_negative"]]
    if not rows:
        return empty(theme, "no method drops a token here")
    figure = go.Figure(layout=layout(theme, showlegend=True, margin={"l": 8, "r": 14, "t": 30, "b": 40}))
    for sign, (colour, label, symbol) in SIGNS.items():
        figure.add_trace(
            go.Scatter(
                x=[_percent(row[f"drop_rate_{sign}"]) for row in rows],
                y=[titles[row["method"]] for row in rows],
                name=label,
                mode="markers",
                marker={"symbol": symbol, "size": 8, "color": getattr(theme, colour)},
                hovertext=[
                    f"<b>{titles[row['method']]}</b>, {label}<br>drops {count(row[f'n_drop_{sign}'])} of "
                    f"{count(row[f'n_{sign}'])} tokens"
                    for row in rows
                ],
                hoverinfo="text",
            )
        )
    figure.update_xaxes(title="dropped, share of the known tokens of that sign", type="log", ticksuffix=" %")
    figure.update_yaxes(autorange="reversed", dtick=1, showline=False, ticks="", showgrid=True, gridcolor=theme.grid)
    return figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"})


def _percent(share: float | None) -> float | None:
    return 100 * share if share else None  # an axis of ratios has no place for none
