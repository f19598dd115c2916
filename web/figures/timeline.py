"""Small multiples over training steps (arXiv:2602.04879 Fig. 3, 5, 6, 7 and 12), one factory each.

Every factory takes the table it shows (`TABLE_OF`), the table `step_marks` and a theme. `timeline` has a row a step:
mean_abs_dp and its quantiles, max_dp, min_dp, bad_share, means of mismatch, entropy, top-K mass, reward and length,
improvement, noise_tv, anchor, evaluated_at. `mask_rates` has a row a step, method and sign. A null is a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc

from web.figures.lines import DASH, Line, band, column, line, logarithmic, panel, ring
from web.figures.theme import Theme
from web.words import method_labels, symbols

__all__ = ["FIGURES", "TABLE_OF", "drift", "masks"]

GREYS = (("ink", "solid"), ("ink", "2px,2px"), ("muted", "solid"), ("muted", "6px,2px,2px,2px"))


def drift(table: pa.Table, marks: pa.Table, theme: Theme) -> go.Figure:
    """|π − anchor| of the sampled tokens per step: mean, median, 90 % and 99 % quantile (Fig. 3, left; claim C2)."""
    anchor, policy = pair(table)
    style: dict[str, Any] = {"colour": "muted", "width": 0.8}
    lines = [
        line(table, "mean_abs_dp", f"mean |{policy} − {anchor}|"),
        line(table, "q99_abs_dp", "99 %", **style),
        line(table, "q90_abs_dp", "90 %", **style),
        line(table, "q50_abs_dp", "median", **style),
    ]
    lines, low, axis = logarithmic(lines)
    figure = panel(lines, theme, **axis)
    steps = table["step"].to_pylist()
    q99, q90, q50 = (each.values for each in lines[1:])
    band(figure, steps, q90, q99, theme.density_high, 0.13, "90 to 99 %")
    band(figure, steps, q50, q90, theme.density_high, 0.28, "50 to 90 %")
    noise = [None if value is None else max(value, low) for value in column(table, "noise_tv")]
    band(figure, steps, [None if value is None else low for value in noise], noise, theme.rule, 0.6, "noise floor")
    return _marked(figure, marks, "mean_abs_dp", theme)


def extremes(table: pa.Table, marks: pa.Table, theme: Theme) -> go.Figure:
    """The largest rise and the largest fall of a token's probability per step (Fig. 3, right; claim C3)."""
    lines = [line(table, "max_dp", "max"), line(table, "min_dp", "min", dash=DASH)]
    reach = min(1.05, 1.15 * max((abs(value) for each in lines for value in each.known), default=1.0) or 1.0)
    figure = panel(lines, theme, range=[-reach, reach])
    _zero(figure, theme)
    noise = column(table, "noise_tv")
    band(figure, table["step"].to_pylist(), [None if v is None else -v for v in noise], noise, theme.rule, 0.6, "noise")
    return _marked(_marked(figure, marks, "max_dp", theme), marks, "min_dp", theme)


def bad_updates(table: pa.Table, marks: pa.Table, theme: Theme) -> go.Figure:
    """Share of the tokens with A ≠ 0 that have A < 0 and μ − π ≥ .5, in percent (§5.3; Fig. 5; claim C5)."""
    share = line(table, "bad_share", "bad updates", 100, unit=" %")
    reach = max([*share.known, 0.01])
    figure = panel([share], theme, range=[-0.04 * reach, 1.2 * reach], ticksuffix=" %")
    return _marked(figure, marks, "bad_share", theme, 100)


def sources(table: pa.Table, marks: pa.Table, theme: Theme) -> go.Figure:
    """Where the drift comes from: mean |π_old − μ|, the mismatch, and mean |π_new − π_old|, the update."""
    lines = [
        line(table, "mean_tv_binary_mismatch", "mismatch"),
        line(table, "mean_tv_binary_old", "update", colour="muted", dash=DASH),
    ]
    figure = panel(lines, theme, rangemode="tozero")
    return _marked(figure, marks, "mean_tv_binary_mismatch", theme)


def masks(table: pa.Table, _marks: pa.Table, theme: Theme, sign: int, steps: Sequence[int] | None = None) -> go.Figure:
    """Share of the tokens of one sign of A that each method drops, in percent (claim C14). Takes `mask_rates`.

    Both signs get the same axes, over the table's steps and `steps`. PPO is solid in its colour, DPPO dashed in
    its own; other methods are grey.
    """
    rows = table.to_pylist()
    known = sorted({row["step"] for row in rows})
    labels = method_labels(row["method"] for row in rows)
    shares: dict[str, dict[int, float]] = {method: {} for method in labels}
    for row in rows:
        if row["sign"] == sign:
            shares[row["method"]][row["step"]] = float(f"{100 * row['share']:.6g}")
    styles = _styles(labels)
    lines = [
        Line(label, known, [shares[method].get(step) for step in known], *styles[method], unit=" %")
        for method, label in labels.items()
    ]
    top = max((100 * row["share"] for row in rows), default=0.0) or 0.01
    return panel(lines, theme, steps, range=[-0.04 * top, 1.15 * top], ticksuffix=" %")


def _styles(labels: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Colour and dash of each method."""
    found, greys, own = {}, 0, {"ppo": 0, "dppo": 0}
    for method in labels:
        family = method.partition("_")[0]
        if family in own:
            dashes = ("solid", "2px,2px", "8px,3px") if family == "ppo" else (DASH, "2px,2px", "8px,3px")
            found[method] = (family, dashes[own[family] % 3])
            own[family] += 1
        else:
            found[method] = GREYS[greys % len(GREYS)]
            greys += 1
    return found


def one(table: pa.Table, _marks: pa.Table, theme: Theme, name: str, label: str, **settings: Any) -> go.Figure:
    """One column over the steps; settings: scale, unit, zero (a line at 0) and what the y axis takes."""
    scale, unit, zero = settings.pop("scale", 1.0), settings.pop("unit", ""), settings.pop("zero", False)
    figure = panel([line(table, name, label, scale, unit=unit)], theme, **settings)
    if zero:
        _zero(figure, theme)
    return figure


def pair(table: pa.Table) -> tuple[str, str]:
    """The letters of the pair that the table's analysis measures: anchor, policy."""
    anchor, point = (next((v for v in table[name].to_pylist() if v), None) for name in ("anchor", "evaluated_at"))
    return symbols(anchor or "rollout", point or "end")


def _marked(figure: go.Figure, marks: pa.Table, quantity: str, theme: Theme, scale: float = 1.0) -> go.Figure:
    """Rings around the marked steps, and the bound that they went beyond, dotted."""
    rows = marks.filter(pc.equal(marks["quantity"], quantity)).to_pylist()
    later = [row for row in rows if row["bound"] is not None]
    if figure.data and later:
        bound = go.Scatter(
            x=[row["step"] for row in later],
            y=[float(f"{row['bound'] * scale:.6g}") for row in later],
            mode="lines",
            name="bound",
            hoverinfo="skip",
            line={"color": theme.muted, "width": 1, "dash": "1px,3px"},
        )
        figure.add_trace(bound)
    out = [row for row in rows if row["marked"]]
    ring(figure, [row["step"] for row in out], [float(f"{row['value'] * scale:.6g}") for row in out], theme)
    return figure


def _zero(figure: go.Figure, theme: Theme) -> None:
    if figure.data:
        figure.add_hline(y=0, line={"color": theme.rule, "width": 1}, layer="below")


FIGURES: dict[str, Callable[..., go.Figure]] = {
    "drift": drift,
    "extremes": extremes,
    "bad_updates": bad_updates,
    "sources": sources,
    "masks_positive": partial(masks, sign=1),
    "masks_negative": partial(masks, sign=-1),
    "entropy": partial(one, name="mean_entropy_old", label="mean entropy", unit=" nats", rangemode="tozero"),
    "topk_mass": partial(one, name="mean_topk_mass_old", label="top-K mass", scale=100, unit=" %", ticksuffix=" %"),
    "reward": partial(one, name="mean_reward", label="mean reward"),
    "improvement": partial(one, name="improvement", label="ξ", zero=True),
    "length": partial(one, name="mean_length", label="mean length", unit=" tokens", rangemode="tozero"),
}
TABLE_OF = {name: "mask_rates" if name.startswith("masks") else "timeline" for name in FIGURES}
