"""Binary and top-K divergences against the exact one of OLD → NEW (arXiv:2602.04879 App. B and F.3; C10, C11)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.axes import Bins, divergence_axis
from web.figures.density import Grid, heat
from web.figures.theme import LEGEND, Theme, empty, footnotes, layout
from web.numbers import count, number, plain
from web.words import SIGNS

__all__ = ["Scatter", "against_exact", "kappa", "ratios", "topk_mass"]

Estimate = Literal["binary", "topk"]
KINDS = {"tv": "TV", "kl": "KL"}
COLOURS: dict[Estimate, str] = {"binary": "muted", "topk": "ink"}
DASHES: dict[Estimate, str] = {"binary": "5px,3px", "topk": "solid"}
SHARES = {1.0: "all of it", 0.1: "a tenth"}  # of the exact divergence that an estimate sees: lines of the density


def name_of(estimate: Estimate, top_k: int) -> str:
    """What figures and tables call an estimate."""
    return "binary" if estimate == "binary" else f"top-{top_k}"


@dataclass(frozen=True)
class Scatter:
    """What a density of an estimate against the exact divergence shows: both axes from log₁₀ `low` to `high`.

    deltas: the thresholds of the view, drawn on both axes.
    """

    measure: str
    estimate: Estimate
    top_k: int
    low: float
    high: float
    bins: int
    deltas: tuple[float, ...]
    sign: int | None


def against_exact(density: pa.Table, frame: Scatter, theme: Theme) -> go.Figure:
    """How many tokens have which exact divergence and which estimate. density: x_bin, y_bin, n, n_beyond."""
    if density.num_rows == 0:
        return empty(theme, "no token with a known exact divergence")
    kind, low, high = KINDS[frame.measure], frame.low, frame.high
    figure = go.Figure(layout=layout(theme))
    figure.update_xaxes(**divergence_axis(low, high, f"exact {kind}, π_old → π"))
    figure.update_yaxes(**divergence_axis(low, high, f"{name_of(frame.estimate, frame.top_k)} {kind}"))
    figure.add_trace(heat(density, Grid(low, high, low, high, frame.bins, frame.bins), theme))
    for share, text in SHARES.items():
        below = -math.log10(share)
        figure.add_trace(_line([low + below, high], [low, high - below], theme.ink, "2px,3px" if below else "solid"))
        figure.add_annotation(
            text=text,
            x=low + below + (0.06 if below else 0.4) * (high - low),
            y=low + (0.06 if below else 0.4) * (high - low),
            xanchor="left" if below else "right",
            xshift=5 if below else -5,
            showarrow=False,
            font={"size": 11, "color": theme.muted},
        )
    drawn = [math.log10(delta) for delta in frame.deltas if low <= math.log10(max(delta, 1e-30)) <= high]
    for delta in drawn:
        figure.add_trace(_line([delta, delta], [low, high], theme.dppo, "5px,3px"))
        figure.add_trace(_line([low, high], [delta, delta], theme.dppo, "5px,3px"))
    if drawn:
        figure.add_annotation(
            text="δ", x=drawn[0], y=1, yref="paper", yanchor="bottom", showarrow=False, font={"color": theme.dppo}
        )
    total, beyond = sum(density["n"].to_pylist()), sum(density["n_beyond"].to_pylist())
    shown = f"{count(total)} tokens, {SIGNS[frame.sign] if frame.sign is not None else 'every A'}"
    footnotes(figure, [shown, f"{count(beyond)} beyond the axes are drawn at their edge"][: 1 + (beyond > 0)], theme, 2)
    return figure


def _line(x: list[float], y: list[float], colour: str, dash: str) -> go.Scatter:
    return go.Scatter(x=x, y=y, mode="lines", line={"color": colour, "width": 1, "dash": dash}, hoverinfo="skip")


def ratios(table: pa.Table, measure: str, top_k: int, theme: Theme) -> go.Figure:
    """Estimate over exact by bin of π_old(a): boxes from the quartiles, whiskers to the 5 % and 95 % quantiles.

    table: estimate, p_low, p_high, n, q05, q25, q50, q75, q95; rows without a bin are left out.
    """
    rows = [row for row in table.to_pylist() if row["p_low"] is not None and row["q50"] is not None]
    if not rows:
        return empty(theme, "no token with a known exact divergence")
    figure = go.Figure(layout=layout(theme, boxmode="group", boxgap=0.25, boxgroupgap=0.2))
    bins = Bins(rows)
    estimates: tuple[Estimate, ...] = ("binary", "topk")
    for estimate in estimates:
        of = [row for row in rows if row["estimate"] == estimate]
        figure.add_trace(
            go.Box(
                x=[bins.place(row) for row in of],
                lowerfence=[row["q05"] for row in of],
                q1=[row["q25"] for row in of],
                median=[row["q50"] for row in of],
                q3=[row["q75"] for row in of],
                upperfence=[row["q95"] for row in of],
                name=name_of(estimate, top_k),
                line={"color": getattr(theme, COLOURS[estimate]), "width": 1.2},
                fillcolor=theme.density_low if estimate == "binary" else theme.paper,
                hoverinfo="y+name",
            )
        )
    figure.update_xaxes(**bins.axis("π_old(a)"))
    figure.update_yaxes(title=f"{KINDS[measure]} seen, estimate / exact", range=[-0.02, 1.02], tickformat=".0%")
    return figure.update_layout(showlegend=True, legend=LEGEND)


def kappa(table: pa.Table, sign: int, chosen: float, measure: str, top_k: int, theme: Theme) -> go.Figure:
    """Cohen's κ of an estimate's mask with the exact one over δ, for one sign of A; the view's δ, `chosen`, is marked.

    table: sign, estimate, delta, n, n_only_exact_drops, n_only_estimate_drops, kappa.
    """
    rows = [row for row in table.to_pylist() if row["sign"] == sign]
    if not any(row["kappa"] is not None for row in rows):
        return empty(theme, f"no token with {SIGNS[sign]} and a known exact divergence")
    figure = go.Figure(layout=layout(theme, margin={"l": 52, "r": 58, "t": 24, "b": 44}))
    estimates: tuple[Estimate, ...] = ("binary", "topk")
    for estimate in estimates:
        of = [row for row in rows if row["estimate"] == estimate]
        figure.add_trace(
            go.Scatter(
                x=[math.log10(row["delta"]) for row in of],
                y=[row["kappa"] for row in of],
                mode="lines",
                name=name_of(estimate, top_k),
                line={"color": getattr(theme, COLOURS[estimate]), "width": 1.6, "dash": DASHES[estimate]},
                hovertext=[_hover(row, name_of(estimate, top_k)) for row in of],
                hoverinfo="text",
            )
        )
        last = next(row for row in reversed(of) if row["kappa"] is not None)
        figure.add_annotation(
            text=name_of(estimate, top_k),
            x=math.log10(last["delta"]),
            y=last["kappa"],
            xanchor="left",
            xshift=4,
            showarrow=False,
            font={"size": 11.5, "color": getattr(theme, COLOURS[estimate])},
        )
    figure.update_xaxes(**divergence_axis(-4, 0, f"δ on {KINDS[measure]}"))
    figure.update_yaxes(title="Cohen’s κ with the exact mask", range=[-0.03, 1.03])
    if chosen > 0:
        at = math.log10(chosen)
        figure.add_vline(x=at, line={"color": theme.dppo, "width": 1, "dash": "5px,3px"})
        figure.add_annotation(
            text=f"δ = {plain(chosen)}",
            x=at,
            y=1,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            font={"color": theme.dppo},
        )
    return figure


def _hover(row: dict[str, Any], name: str) -> str:
    return (
        f"{name}, δ = {number(row['delta'])}: κ = {number(row['kappa'])}<br>"
        f"{count(row['n_only_exact_drops'])} missed and {count(row['n_only_estimate_drops'])} dropped in excess "
        f"of {count(row['n'])}"
    )


def topk_mass(table: pa.Table, top_k: int, theme: Theme) -> go.Figure:
    """Mean mass of the top-K set per step under both policies (Fig. 12; C10).

    table: step, mean_mass_old, mean_mass_new; the row without a step is left out.
    """
    rows = [row for row in table.to_pylist() if row["step"] is not None]
    if not rows:
        return empty(theme, "no token with a known exact divergence")
    figure = go.Figure(layout=layout(theme, hovermode="x", margin={"l": 58, "r": 58, "t": 12, "b": 40}))
    steps = [row["step"] for row in rows]
    for column, label, dash in (("mean_mass_old", "π_old", "solid"), ("mean_mass_new", "π", "5px,3px")):
        values = [100 * row[column] for row in rows]
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=values,
                name=label,
                mode="lines+markers" if len(steps) <= 40 else "lines",
                line={"color": theme.ink, "width": 1.6, "dash": dash},
                marker={"size": 5},
                hovertemplate=f"step %{{x}}: {label} %{{y:.3f}} %<extra></extra>",
            )
        )
    room = 0.5 if len(steps) == 1 else 0.03 * (steps[-1] - steps[0])
    figure.update_xaxes(title="step", tickformat=",d", nticks=8, range=[steps[0] - room, steps[-1] + room])
    if len(steps) <= 8:
        figure.update_xaxes(tickvals=steps)
    figure.update_yaxes(title=f"mean top-{top_k} mass", ticksuffix=" %", nticks=5)
    return figure.update_layout(showlegend=True, legend=LEGEND)
