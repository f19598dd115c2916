"""Colours, marks and type. Defined once here: figures use them directly, pages as CSS custom properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import plotly.graph_objects as go

__all__ = [
    "LEGEND",
    "MARKS",
    "THEMES",
    "Mark",
    "Theme",
    "css",
    "empty",
    "footnotes",
    "layout",
    "noise_band",
    "theme_of",
]

SANS = 'Inter, "Helvetica Neue", "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif'


@dataclass(frozen=True)
class Theme:
    """One set of colours. `ppo`, `dppo` and `both` mean the same in text, tables and figures; grey is what is kept.

    `rise` and `fall` colour text by a metric: above 0 and below.
    """

    name: str
    paper: str
    raised: str
    ink: str
    muted: str
    rule: str
    grid: str
    ppo: str
    dppo: str
    both: str
    ppo_wash: str
    dppo_wash: str
    both_wash: str
    density_low: str
    density_high: str
    rise: str
    fall: str


LIGHT = Theme(
    name="light",
    paper="#fdfcf9",
    raised="#f6f4ee",
    ink="#1d1c1a",
    muted="#63605a",
    rule="#d8d4ca",
    grid="#ebe8e0",
    ppo="#b3470c",
    dppo="#155fa0",
    both="#6a2468",
    ppo_wash="#fbe6d6",
    dppo_wash="#dcebf8",
    both_wash="#efdcee",
    density_low="#eceae4",
    density_high="#77746c",
    rise="#0c7f70",
    fall="#b8336f",
)
DARK = Theme(
    name="dark",
    paper="#161719",
    raised="#1f2124",
    ink="#e9e6e0",
    muted="#a5a29b",
    rule="#3b3d41",
    grid="#292b2e",
    ppo="#f29a5f",
    dppo="#7db7f0",
    both="#dba0dc",
    ppo_wash="#45291a",
    dppo_wash="#17324c",
    both_wash="#40253f",
    density_low="#232528",
    density_high="#8f8c86",
    rise="#2fa796",
    fall="#d9739f",
)
THEMES = {"light": LIGHT, "dark": DARK}


@dataclass(frozen=True)
class Mark:
    """How a cell looks: a `Theme` colour, a Plotly symbol, and the same shape as a character."""

    colour: str
    symbol: str
    character: str


MARKS = {
    "ppo_only_drops": Mark("ppo", "triangle-up", "▲"),
    "dppo_only_drops": Mark("dppo", "diamond", "◆"),
    "both_drop": Mark("both", "x", "✖"),
}


LEGEND: dict[str, Any] = {  # above the axes, on one line where there is room
    "orientation": "h",
    "x": 0,
    "xanchor": "left",
    "y": 1.015,
    "yanchor": "bottom",
    "font": {"size": 11.5},
    "bgcolor": "rgba(0,0,0,0)",
    "itemsizing": "trace",
    "itemwidth": 30,
}


def theme_of(name: str) -> Theme:
    """The theme called `name`. Raises KeyError for another name than light or dark."""
    return THEMES[name]


def css() -> str:
    """The themes as CSS custom properties: the reader's system decides unless `data-theme` on the root does."""

    def block(theme: Theme) -> str:
        named = {field.name: getattr(theme, field.name) for field in fields(theme) if field.name != "name"}
        values = "".join(f"--{name.replace('_', '-')}:{value};" for name, value in named.items())
        return f"{{color-scheme:{theme.name};{values}}}"

    return (
        f":root{block(LIGHT)}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){block(DARK)}}}\n"
        f":root[data-theme=dark]{block(DARK)}\n"
        f"@media print{{:root:root:root{block(LIGHT)}}}\n"
    )


def layout(theme: Theme, **settings: Any) -> go.Layout:
    """The common frame of every figure: thin rules, small type, no background of its own."""
    axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": theme.muted,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": theme.muted,
        "tickfont": {"size": 11.5},
        "title": {"standoff": 8, "font": {"size": 12.5}},
        "automargin": True,
    }
    base = go.Layout(
        template=go.layout.Template(),
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        font={"family": SANS, "size": 12, "color": theme.ink},
        margin={"l": 52, "r": 14, "t": 28, "b": 44},
        showlegend=False,
        hovermode="closest",
        dragmode=False,
        hoverlabel={
            "bgcolor": theme.raised,
            "bordercolor": theme.rule,
            "align": "left",
            "font": {"family": SANS, "size": 12, "color": theme.ink},
        },
        xaxis=axis,
        yaxis=axis,
    )
    return base.update(settings)


def empty(theme: Theme, message: str) -> go.Figure:
    """A figure that says why there is nothing to draw, instead of an axis that looks like a result."""
    figure = go.Figure(layout=layout(theme))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text=message, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 13, "color": theme.muted}
    )
    return figure


def footnotes(figure: go.Figure, lines: Sequence[str], theme: Theme, room: int = 0) -> None:
    """Small lines below the x axis' title: what is drawn and what is not. `room`: for at least how many lines."""
    figure.add_annotation(
        text="<br>".join(lines),
        x=0,
        y=0,
        yshift=-46,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="top",
        showarrow=False,
        font={"size": 11, "color": theme.muted},
        align="left",
    )
    figure.update_layout(margin={"b": 48 + 16 * max(room, len(lines))})


def noise_band(figure: go.Figure, low: float, high: float, theme: Theme, yref: str = "y") -> None:
    """Shade [low, high] of an axis: what scoring one policy twice already shows. Nothing where it has no height."""
    if high <= low:
        return
    figure.add_shape(
        type="rect",
        name="noise floor",
        x0=0,
        x1=1,
        xref="paper",
        y0=low,
        y1=high,
        yref=yref,
        layer="below",
        line={"width": 0},
        fillcolor=theme.rule,
        opacity=0.55,
    )
