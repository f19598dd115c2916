"""The lines at which PPO and DPPO start to drop tokens, labelled where they run, and where they cross."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import pyarrow as pa

from web.figures.theme import Theme
from web.numbers import plain

if TYPE_CHECKING:
    from web.figures.planes import Frame

__all__ = ["add_boundaries", "crossing"]

Row = dict[str, Any]
Curve = list[tuple[float, float | None]]  # (x, y) by x; y None where the method never drops
DASHES = {"ppo": "solid", "dppo": "5px,3px"}


def add_boundaries(figure: go.Figure, boundaries: pa.Table, frame: Frame, theme: Theme) -> None:
    """Draw the boundaries of `frame.drawn` for the signs of A that the plane shows: PPO solid, DPPO dashed.

    For top-K and exact divergences the DPPO boundary in the ratio plane, and the PPO boundary in the divergence
    plane, are those of the binary divergence: a finer one is never smaller, so DPPO drops at or inside of it.
    """
    rows = boundaries.to_pylist()
    signs = (1, -1) if frame.sign is None else (frame.sign,) if frame.sign else ()
    for sign in signs:
        curves = {method: _curve(rows, method, sign, frame) for method in frame.drawn}
        for method, curve in curves.items():
            _draw(figure, method, curve, frame, theme)
            text = _label(method, sign, rows, frame)
            if text:
                _place(figure, method, sign, curve, text, frame, theme)
        met = crossing(curves["ppo"], curves["dppo"]) if len(curves) == 2 else None
        if met is not None and frame.y_low < met[1] < frame.y_high:
            _mark_crossing(figure, sign, met, frame, theme)


def crossing(first: Curve, second: Curve) -> tuple[float, float] | None:
    """Where two curves over the same x meet, by linear interpolation; None if they do not."""
    gaps = [(x, a, a - b) for (x, a), (_, b) in zip(first, second, strict=True) if a is not None and b is not None]
    for (x0, y0, before), (x1, y1, after) in pairwise(gaps):
        if before * after < 0 or (before == 0) != (after == 0):
            part = before / (before - after)
            return x0 + part * (x1 - x0), y0 + part * (y1 - y0)
    return None


def _of(rows: list[Row], method: str, sign: int) -> list[Row]:
    return [row for row in rows if row["method"] == method and row["sign"] == sign]


def _curve(rows: list[Row], method: str, sign: int, frame: Frame) -> Curve:
    if frame.y == "ratio":
        return [(row["x"], row["log_ratio"]) for row in _of(rows, method, sign)]
    return [(row["x"], math.log10(row["divergence"]) if row["divergence"] else None) for row in _of(rows, method, sign)]


def _inside(curve: Curve, frame: Frame) -> list[tuple[float, float]]:
    return [(x, y) for x, y in curve if y is not None and frame.y_low <= y <= frame.y_high]


def _draw(figure: go.Figure, method: str, curve: Curve, frame: Frame, theme: Theme) -> None:
    """The curve with one point beyond the frame at each end, so that it reaches the edge."""
    reach = 0.5 * (frame.y_high - frame.y_low)
    kept = [y if y is not None and frame.y_low - reach <= y <= frame.y_high + reach else None for _, y in curve]
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in curve],
            y=kept,
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            connectgaps=False,
            line={"color": getattr(theme, method), "width": 1.6, "dash": DASHES[method]},
            name=f"{method} boundary",
        )
    )


def _label(method: str, sign: int, rows: list[Row], frame: Frame) -> str:
    """The condition under which the method drops, with its number."""
    side = "A > 0" if sign > 0 else "A < 0"
    above = ">" if sign > 0 else "<"
    if method == "dppo":
        delta = float(f"{frame.delta_high if sign > 0 else frame.delta_low:.4g}")  # a matched δ has many digits
        kind = "KL" if frame.divergence.endswith("kl") else "TV"
        estimate = "" if frame.divergence.startswith("binary") or frame.y == "divergence" else " (binary)"
        if frame.y == "divergence" and frame.delta_low == frame.delta_high and frame.sign is None:
            return f"DPPO  {kind} > {plain(delta)}" if sign > 0 else ""
        return f"DPPO  {side}, {kind} > {plain(delta)}{estimate}"
    ratios = [row["log_ratio"] for row in _of(rows, "ppo", sign) if row["log_ratio"] is not None]
    return f"PPO  {side}, r {above} {plain(round(math.exp(ratios[0]), 4))}" if ratios else ""


def _place(figure: go.Figure, method: str, sign: int, curve: Curve, text: str, frame: Frame, theme: Theme) -> None:
    """Beside the line, where tokens are few: likely tokens cannot gain much, so the right side has room."""
    inside = _inside(curve, frame)
    if not inside:
        return
    up = 9 if sign > 0 else -9
    if frame.y == "ratio" and method == "dppo":  # right of where the curve leaves the plane
        wanted = 0.84 * (frame.y_high if sign > 0 else frame.y_low)
        x, y = min(inside, key=lambda point: abs(point[1] - wanted))
        at = {"xanchor": "left", "xshift": 7} if x < 0.3 * frame.x_limit else {"xanchor": "right", "yshift": 1.3 * up}
    elif frame.y == "ratio":
        x, y = inside[-1]
        ends_early = x < 0.5 * frame.x_limit
        at = {"xanchor": "left", "xshift": 6} if ends_early else {"xanchor": "right", "yshift": up}
    elif method == "dppo":
        x, y = inside[0]
        at = {"xanchor": "left", "xshift": 4, "yshift": up} if x < 0 else {"xanchor": "right", "yshift": up}
        x = x if x < 0 else inside[-1][0]
    else:
        x, y = inside[-1]
        if sign < 0:
            at = {"xanchor": "right", "yshift": 9}
        elif y < frame.y_low + 0.9 * (frame.y_high - frame.y_low):
            at = {"xanchor": "left", "xshift": -40, "yshift": 22}
        else:
            at = {"xanchor": "right", "xshift": -4}
    figure.add_annotation(
        text=text,
        x=x,
        y=y,
        yanchor="middle",
        showarrow=False,
        bgcolor=_veil(theme),
        borderpad=1,
        font={"size": 11.5, "color": getattr(theme, method)},
        **at,
    )


def _mark_crossing(figure: go.Figure, sign: int, at: tuple[float, float], frame: Frame, theme: Theme) -> None:
    """μ* = δ/ε for the binary TV: below it PPO is the stricter method, above it DPPO."""
    name = "μ*" if frame.anchor == "rollout" else "p*"
    x, y = at
    figure.add_trace(
        go.Scatter(
            x=[x],
            y=[y],
            mode="markers",
            hoverinfo="skip",
            showlegend=False,
            name="crossing",
            marker={"symbol": "circle-open", "size": 8, "color": theme.ink, "line": {"width": 1}},
        )
    )
    if frame.y == "ratio":  # the other plane shows the same crossing
        figure.add_annotation(
            text=f"{name} = {plain(round(1 / (1 + math.exp(-x)), 3))}",
            x=x,
            y=y,
            showarrow=False,
            xanchor="left",
            xshift=7,
            yshift=13 if sign > 0 else -24,
            font={"size": 11, "color": theme.ink},
        )


def _veil(theme: Theme) -> Any:
    """The page's colour, a little transparent, behind a label that may lie over tokens."""
    red, green, blue = (int(theme.paper[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.78)"
