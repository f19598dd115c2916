"""Which tokens are dropped, and how likely they were: the most clipped ones, and all of them by side (App. D, Fig. 6).

arXiv:2602.04879. Both factories take the tables of the same names; what is counted and bounded there is drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.axes import logit_axis
from web.figures.theme import Theme, empty, layout
from web.numbers import count, number, percent
from web.text import label
from web.words import SIGNS, symbols, when

__all__ = ["clipped_probability", "most_clipped"]

Row = dict[str, Any]
METHODS = {"ppo": ("PPO", "circle", 0.17), "dppo": ("DPPO", "diamond", -0.17)}  # name, mark, place within the line
FEW = 20  # tokens that have no distribution yet


@dataclass(frozen=True)
class Group:
    """A group of tokens of one side: its columns, and how it is drawn."""

    n: str
    share: str
    colour: str
    symbol: str
    width: float
    dash: str

    def of(self, theme: Theme) -> str:
        """Its colour in a theme."""
        return str(getattr(theme, self.colour))


GROUPS = {
    "all": Group("n", "share", "density_high", "line-ns-open", 1, "solid"),
    "PPO": Group("n_ppo", "share_ppo", "ppo", "circle", 1.7, "solid"),
    "DPPO": Group("n_dppo", "share_dppo", "dppo", "diamond", 1.7, "5px,3px"),
}


def most_clipped(tokens: pa.Table, at: dict[str, Any], theme: Theme) -> go.Figure:
    """One line a token and sign of A: the share of its occurrences that each method drops, and the sign's base rate.

    tokens: token_id, token, sign, n, n_ppo, n_dppo, and rate, low, high and base of each method as `ppo_rate` …;
    drawn from the top in their order. A mark's `customdata` is its token id. `at`: evaluated_at.
    """
    rows = tokens.to_pylist()
    if not rows:
        return empty(theme, "no token to rank here")
    figure = go.Figure(layout=layout(theme, margin={"l": 60, "r": 18, "t": 30, "b": 46}))
    for method in METHODS:
        figure.add_trace(_base(rows, method, theme))
    for method in METHODS:
        figure.add_trace(_rates(rows, method, at["evaluated_at"], theme))
    signs = len({row["sign"] for row in rows}) > 1
    names = [f"{_name(row)}  {SIGNS[row['sign']]}" if signs else _name(row) for row in rows]
    figure.update_yaxes(
        range=[len(rows) - 0.4, -0.6], tickvals=list(range(len(rows))), ticktext=names, ticks="", showline=False
    )
    top = 100 * max(max(row["ppo_high"], row["dppo_high"], row["base_ppo"], row["base_dppo"]) for row in rows)
    done = at["evaluated_at"] == "logged"
    title = "share dropped" if done else f"share that would be dropped {when(at['evaluated_at'])}"
    figure.update_xaxes(range=[-0.015 * top, min(1.04 * top, 101.5)], ticksuffix=" %", title_text=title, showgrid=True)
    figure.update_xaxes(gridcolor=theme.grid)
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "font": {"size": 11.5}, "itemsizing": "trace"}
    return figure.update_layout(showlegend=True, legend={**legend, "bgcolor": "rgba(0,0,0,0)"})


def _name(row: Row) -> str:
    return label(row["token"], 18) if row["token"] is not None else f"id {row['token_id']}"


def _rates(rows: list[Row], method: str, evaluated_at: str, theme: Theme) -> go.Scatter:
    name, symbol, lift = METHODS[method]
    verb = "dropped" if evaluated_at == "logged" else "would drop"
    rates = [100 * row[f"{method}_rate"] for row in rows]
    return go.Scatter(
        x=rates,
        y=[place - lift for place in range(len(rows))],
        mode="markers",
        name=f"{name} {verb}",
        cliponaxis=False,
        marker={"symbol": symbol, "size": 7, "color": getattr(theme, method)},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * row[f"{method}_high"] - rate for row, rate in zip(rows, rates, strict=True)],
            "arrayminus": [rate - 100 * row[f"{method}_low"] for row, rate in zip(rows, rates, strict=True)],
            "color": getattr(theme, method),
            "thickness": 1.1,
            "width": 0,
        },
        customdata=[row["token_id"] for row in rows],
        hoverinfo="text",
        hovertext=[
            f"“{_name(row)}”  {SIGNS[row['sign']]}<br>{name} {verb} {count(row[f'n_{method}'])} of {count(row['n'])}: "
            f"{percent(row[f'n_{method}'], row['n'])}<br>95 %: {number(100 * row[f'{method}_low'])} to "
            f"{number(100 * row[f'{method}_high'])} %<br>base rate {number(100 * row[f'base_{method}'])} %"
            for row in rows
        ],
    )


def _base(rows: list[Row], method: str, theme: Theme) -> go.Scatter:
    name, _, lift = METHODS[method]
    return go.Scatter(
        x=[100 * row[f"base_{method}"] for row in rows],
        y=[place - lift for place in range(len(rows))],
        mode="markers",
        name=f"{name}, base rate",
        marker={"symbol": "line-ns-open", "size": 9, "color": getattr(theme, method), "line": {"width": 1}},
        opacity=0.6,
        hoverinfo="skip",
    )


def clipped_probability(bins: pa.Table, at: dict[str, Any], theme: Theme) -> go.Figure:
    """Where on the anchor's probability the dropped tokens lie, by side: A > 0 above, A < 0 below; grey is all tokens.

    bins: sign, x_bin, n, n_ppo, n_dppo, share, share_ppo, share_dppo. `at`: anchor, evaluated_at, x_limit, x_bins.
    A group of fewer than `FEW` tokens is drawn as marks on the axis, for it has no shape yet.
    """
    rows = bins.to_pylist()
    if not rows:
        return empty(theme, "no token of this view has a known decision")
    anchor, _ = symbols(at["anchor"], at["evaluated_at"])
    figure = go.Figure(layout=layout(theme, margin={"l": 56, "r": 14, "t": 42, "b": 46}))
    figure.update_layout(yaxis2={**figure.layout.yaxis.to_plotly_json(), "anchor": "x"})
    signs = sorted({row["sign"] for row in rows}, reverse=True)
    for place, sign in enumerate(signs):
        axis = "y2" if place else "y"
        domain = [0.0, 1.0] if len(signs) == 1 else [[0.59, 1.0], [0.0, 0.41]][place]
        side = [row for row in rows if row["sign"] == sign]
        figure.add_traces([_group(side, name, axis, at, theme) for name in GROUPS])
        figure.update_layout({axis.replace("y", "yaxis"): {"domain": domain, "rangemode": "tozero", "nticks": 4}})
        figure.add_annotation(
            text=_caption(side, sign, at["evaluated_at"], theme),
            x=0,
            y=domain[1],
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 11.5},
            align="left",
        )
    figure.update_yaxes(ticksuffix=" %", title_text="share of each")
    figure.update_xaxes(**logit_axis(at["x_limit"], f"{anchor}(a), the token’s probability under the anchor"))
    return figure.update_xaxes(anchor="y2" if len(signs) > 1 else "y")


def _group(side: list[Row], name: str, axis: str, at: dict[str, Any], theme: Theme) -> go.Scatter:
    """One group of a side as a line of steps, with a zero where a bin is empty; few tokens as marks."""
    group = GROUPS[name]
    width = 2 * at["x_limit"] / at["x_bins"]
    found = {row["x_bin"]: row for row in side if row[group.n]}
    few = 0 < sum(row[group.n] for row in side) < FEW
    places = sorted(found) if few or not found else list(range(at["x_bins"]))
    shares = [100 * found[place][group.share] if place in found else 0.0 for place in places]
    drawn: dict[str, Any] = {"mode": "markers", "marker": {"symbol": group.symbol, "size": 8, "color": group.of(theme)}}
    if not few:
        line = {"shape": "hvh", "color": group.of(theme), "width": group.width, "dash": group.dash}
        drawn = {"mode": "lines", "line": line, "fill": "tozeroy" if name == "all" else None}
    return go.Scatter(
        x=[-at["x_limit"] + (place + 0.5) * width for place in places],
        y=[0.0] * len(places) if few else shares,
        yaxis=axis,
        name=f"{name} {axis}",
        cliponaxis=False,
        hoverinfo="text",
        hovertext=[
            f"{name}: {count(found[place][group.n] if place in found else 0)} tokens, {number(share)} % of them"
            for place, share in zip(places, shares, strict=True)
        ],
        **drawn,
    )


def _caption(side: list[Row], sign: int, evaluated_at: str, theme: Theme) -> str:
    """The panel's own legend, in two lines: how many tokens there are, and how many each method drops."""
    texts = {
        name: f"<span style='color:{theme.muted if name == 'all' else group.of(theme)}'>"
        f"{name} {count(sum(row[group.n] for row in side))}</span>"
        for name, group in GROUPS.items()
    }
    verb = "dropped" if evaluated_at == "logged" else f"would be dropped {when(evaluated_at)}"
    return f"<b>{label(SIGNS[sign])}</b>   {texts['all']} tokens<br>{verb}: {texts['PPO']}, {texts['DPPO']}"
