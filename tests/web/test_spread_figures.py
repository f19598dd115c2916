"""Figures of approximation and mismatch, from hand-made tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
import pytest

from web.figures import approximation, mismatch
from web.figures.axes import Bins, interval
from web.figures.theme import THEMES, Theme

LIGHT = THEMES["light"]
DENSITY = pa.table({"x_bin": [0, 3, 3], "y_bin": [0, 1, 0], "n": [1, 5, 10], "n_beyond": [1, 0, 0]})
SCATTER = approximation.Scatter("tv", "topk", 20, -7.0, 0.0, 4, (0.15,), 1)
PLANE = mismatch.Frame("mismatch", None, 4.0, -1.0, 1.0, 4, 2, 16, None, 0.01)


def texts(figure: go.Figure) -> str:
    return " ".join(annotation.text for annotation in figure.layout.annotations)


def part(name: str, low: float | None, high: float | None, **values: float | None) -> dict[str, Any]:
    spread = {f"{level}_abs_{kind}": 0.1 for level in ("q50", "q90", "q99", "mean") for kind in ("log", "dp")}
    return {"part": name, "p_low": low, "p_high": high, "n": 5, "step": 3, **spread, **values}


PARTS = pa.Table.from_pylist(
    [
        part("mismatch", None, None),
        part("mismatch", 0.01, 0.1, q50_abs_log=0.0),
        part("mismatch", 0.1, 0.5),
        part("update", 0.1, 0.5, q99_abs_log=None),
        part("together", 0.1, 0.5, mean_abs_dp=None),
    ]
)
RATIOS = pa.Table.from_pylist(
    [
        {"estimate": estimate, "p_low": low, "p_high": high, "n": 5, "n_zero": 0}
        | dict(zip(("q05", "q25", "q50", "q75", "q95"), (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
        for estimate in ("binary", "topk")
        for low, high in ((None, None), (0.5, 0.9))
    ]
)
AGREEMENT = pa.Table.from_pylist(
    [
        {"sign": 1, "estimate": estimate, "delta": delta, "n": 9, "kappa": kappa}
        | {"n_only_exact_drops": 2, "n_only_estimate_drops": 0}
        for estimate in ("binary", "topk")
        for delta, kappa in ((0.1, 0.5), (0.15, 0.25), (0.5, None))
    ]
)
MASS = pa.table({"step": [None, 4], "mean_mass_old": [0.9, 0.99], "mean_mass_new": [0.9, 0.98]})
TRUNCATION = pa.Table.from_pylist(
    [
        {"cap": cap, "p_low": 0.0, "p_high": high, "is_bin": is_bin, "n": 4, "n_truncated": truncated}
        | {"share": 0.5, "share_of_truncated": 1.0, "share_of_lost": 1.0}
        for cap, high, is_bin, truncated in ((2.0, 0.001, True, 3), (2.0, 0.01, False, 3), (5.0, 0.001, True, 0))
    ]
)
Draw = Callable[[pa.Table, Theme], go.Figure]
FACTORIES: dict[str, tuple[Draw, pa.Table]] = {
    "scatter": (lambda table, theme: approximation.against_exact(table, SCATTER, theme), DENSITY),
    "ratios": (lambda table, theme: approximation.ratios(table, "tv", 20, theme), RATIOS),
    "kappa": (lambda table, theme: approximation.kappa(table, 1, 0.15, "tv", 20, theme), AGREEMENT),
    "mass": (lambda table, theme: approximation.topk_mass(table, 20, theme), MASS),
    "plane": (lambda table, theme: mismatch.plane(table, PLANE, theme), DENSITY),
    "by_probability": (lambda table, theme: mismatch.by_probability(table, "log", theme), PARTS),
    "by_step": (lambda table, theme: mismatch.by_step(table, "dp", theme), PARTS),
    "truncation": (lambda table, theme: mismatch.truncation(table, 2.0, theme), TRUNCATION),
}


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_every_figure_draws_and_says_when_there_is_nothing(name: str, theme: Theme) -> None:
    factory, table = FACTORIES[name]
    assert json.loads(factory(table, theme).to_json())["data"]
    nothing = factory(table.slice(0, 0), theme)
    assert not nothing.data
    assert texts(nothing)


def test_a_scatter_says_what_lies_beyond_and_where_delta_is() -> None:
    figure = approximation.against_exact(DENSITY, SCATTER, LIGHT)
    assert "16 tokens, A > 0<br>1 beyond the axes" in texts(figure)
    vertical = [trace.x[0] for trace in figure.data if trace.type == "scatter" and trace.x[0] == trace.x[1]]
    assert vertical == pytest.approx([math.log10(0.15)])
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("exact TV, π_old → π", "top-20 TV")


def test_kappa_marks_the_view_s_delta_and_ends_where_nothing_is_dropped() -> None:
    figure = approximation.kappa(AGREEMENT, 1, 0.15, "tv", 20, LIGHT)
    assert "δ = 0.15" in texts(figure)
    assert list(figure.data[0].y) == [0.5, 0.25, None]
    assert "2 missed" in figure.data[0].hovertext[0]
    assert "A < 0" in texts(approximation.kappa(AGREEMENT, -1, 0.15, "tv", 20, LIGHT))


def test_a_plane_names_its_policies_and_what_has_no_list() -> None:
    ratio = mismatch.plane(DENSITY, PLANE, LIGHT)
    assert (ratio.layout.xaxis.title.text, ratio.layout.yaxis.title.text) == ("μ(a)", "ρ = π_old(a) / μ(a)")
    assert [shape.name for shape in ratio.layout.shapes] == ["noise floor"]
    tv = mismatch.plane(DENSITY, mismatch.Frame("mismatch", "topk", 4, -6, 0.2, 4, 2, 20, -1), LIGHT)
    assert tv.layout.yaxis.title.text == "top-K TV, μ → π_old"
    assert "16 tokens, A < 0<br>4 without a logged list" in texts(tv)
    assert not tv.layout.shapes


def test_a_zero_median_has_no_place_on_a_log_axis() -> None:
    lines, ticks, dots = mismatch.by_probability(PARTS, "log", LIGHT).data  # the update's 99 % quantile is not known
    assert list(dots.y) == [None, 0.1]
    assert list(lines.y)[:2] == [0.1, 0.1]
    assert list(ticks.x) == pytest.approx([-0.14, 0.86])


def test_a_short_log_axis_has_more_ticks() -> None:
    axis = mismatch.by_probability(PARTS, "log", LIGHT).layout.yaxis
    ticks = dict(zip(axis.tickvals, axis.ticktext, strict=True))
    assert (ticks[0.1], ticks[0.01], ticks[3 * 0.1], ticks[3 * 0.01]) == (".1", ".01", ".3", ".03")
    wide = pa.Table.from_pylist([part("mismatch", 0.1, 0.5, q50_abs_log=1e-4)])
    assert 3 * 0.1 not in mismatch.by_probability(wide, "log", LIGHT).layout.yaxis.tickvals


def test_truncation_shows_the_bins_at_its_cap() -> None:
    everyone, truncated, lost = mismatch.truncation(TRUNCATION, 2.0, LIGHT).data
    assert (list(everyone.y), list(truncated.y), list(lost.y)) == ([0.5], [1.0], [1.0])
    assert truncated.name == "3 tokens with r > 2"
    assert "no token with a gradient has r > 5" in texts(mismatch.truncation(TRUNCATION, 5.0, LIGHT))


def test_bins_share_their_edges() -> None:
    rows = [{"p_low": 0.1, "p_high": 0.5}, {"p_low": 0.0, "p_high": 0.1}, {"p_low": 0.5, "p_high": 1.0}]
    bins = Bins(rows)
    assert [bins.place(row) for row in rows] == [1, 0, 2]
    axis = bins.axis("p")
    assert list(zip(axis["tickvals"], axis["ticktext"], strict=True)) == [
        (-0.5, "0"),
        (0.5, ".1"),
        (1.5, ".5"),
        (2.5, "1"),
    ]
    assert [interval(row["p_low"], row["p_high"]) for row in rows] == [".1–.5", "< .1", "≥ .5"]
