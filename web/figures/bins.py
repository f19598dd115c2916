"""How often two methods drop tokens, bin by bin: a mark each on one line, A > 0 above A < 0."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.theme import MARKS, Theme, empty, layout
from web.numbers import count, percent
from web.text import label
from web.words import SIGNS, bin_label, when

__all__ = ["dumbbells"]

Row = dict[str, Any]
LINE, HEAD, TOP, FOOT = 19, 30, 26, 46  # pixels: a bin, a panel's name, the legend, the axis
METHODS = (("n_first", MARKS["ppo_only_drops"]), ("n_second", MARKS["dppo_only_drops"]))


def dumbbells(table: pa.Table, by: str, titles: tuple[str, str], evaluated_at: str, theme: Theme) -> go.Figure:
    """Share of a bin's tokens that each of two methods drops, a panel a sign of A; the line between them is their gap.

    table: sign, low, high, token_id, token, n, n_first, n_second, n_only_first, n_only_second, in order.
    by: a key of `words.BINNINGS`. titles: what the two methods are called.
    """
    rows = table.to_pylist()
    panels = [(sign, of_sign) for sign in (1, -1) if (of_sign := [row for row in rows if row["sign"] == sign])]
    if not panels:
        return empty(theme, "no tokens with a gradient here")
    inner = sum(HEAD + LINE * len(of_sign) for _, of_sign in panels)
    margin = {"l": 8, "r": 14, "t": TOP, "b": FOOT}
    figure = go.Figure(layout=layout(theme, height=inner + TOP + FOOT, margin=margin, showlegend=True))
    used = 0
    for place, (sign, of_sign) in enumerate(panels, start=1):
        axis = "y" if place == 1 else f"y{place}"
        domain = [1 - (used + HEAD + LINE * len(of_sign)) / inner, 1 - (used + HEAD) / inner]
        used += HEAD + LINE * len(of_sign)
        _panel(figure, axis, domain, of_sign, by, theme)
        _marks(figure, axis, of_sign, by, titles, theme)
        figure.add_annotation(
            text=f"<i>{label(SIGNS[sign])}</i>",
            x=0,
            y=domain[1],
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            yshift=2,
            showarrow=False,
            font={"size": 12.5},
        )
    top = max(_share(row, name) for row in rows for name, _ in METHODS)
    verb = "dropped" if evaluated_at == "logged" else f"that would be dropped {when(evaluated_at)}"
    figure.update_xaxes(
        range=[-0.02 * (top or 1), 1.06 * (top or 1)], ticksuffix=" %", nticks=6, anchor=axis, title=f"share {verb}"
    )
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "font": {"size": 11.5}}
    return figure.update_layout(legend={**legend, "bgcolor": "rgba(0,0,0,0)", "traceorder": "normal"})


def _panel(figure: go.Figure, axis: str, domain: list[float], rows: list[Row], by: str, theme: Theme) -> None:
    """An axis with a line a bin, the first on top."""
    figure.update_layout(
        {
            axis.replace("y", "yaxis"): {
                **figure.layout.yaxis.to_plotly_json(),
                "domain": domain,
                "range": [len(rows) - 0.5, -0.5],
                "tickvals": list(range(len(rows))),
                "ticktext": [_name(row, by) for row in rows],
                "ticks": "",
                "showline": False,
                "showgrid": True,
                "gridcolor": theme.grid,
                "anchor": "x",
            }
        }
    )


def _marks(figure: go.Figure, axis: str, rows: list[Row], by: str, titles: tuple[str, str], theme: Theme) -> None:
    gaps: list[float | None] = []
    for row in rows:
        gaps += [*(_share(row, name) for name, _ in METHODS), None]
    figure.add_trace(
        go.Scatter(
            x=gaps,
            y=[place for place in range(len(rows)) for _ in range(3)],
            yaxis=axis,
            mode="lines",
            line={"color": theme.density_high, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for (name, mark), title in zip(METHODS, titles, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[_share(row, name) for row in rows],
                y=list(range(len(rows))),
                yaxis=axis,
                mode="markers",
                name=title,
                showlegend=axis == "y",
                legendgroup=name,
                cliponaxis=False,
                marker={"symbol": mark.symbol, "color": getattr(theme, mark.colour), "size": 8},
                hovertext=[_hover(row, by, name, title) for row in rows],
                hoverinfo="text",
            )
        )


def _share(row: Row, name: str) -> float:
    return 100.0 * float(row[name]) / float(row["n"])


def _name(row: Row, by: str) -> str:
    token = f"“{label(row['token'], 24)}”" if row["token"] is not None else f"id {row['token_id']}"
    return bin_label(by, row["low"], row["high"], token)


def _hover(row: Row, by: str, name: str, title: str) -> str:
    alone = row["n_only_first" if name == "n_first" else "n_only_second"]
    return (
        f"<b>{_name(row, by)}</b><br>{title}: {count(row[name])} of {count(row['n'])} ({percent(row[name], row['n'])})"
        f"<br>only {title}: {count(alone)}"
    )
