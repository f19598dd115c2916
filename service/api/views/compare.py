"""Two analyses in the same axes: their definitions, cells, steps, planes, and how far tokens moved by probability."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import pyarrow.compute as pc

from service.api.views.disagreement import BOUNDS, MAX_POINTS, X_BINS, X_LIMIT, Y_BINS
from service.api.views.overview import thinned
from service.api.views.registry import Figure, Parameters, Table
from service.api.views.settled import with_quick
from service.errors import NotFound
from service.schemas.overview import CompareView
from service.schemas.view import View, plane_limits
from service.store.lens import Lens
from web.figures import compare, planes
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES", "sides"]

Axis = Literal["ratio", "divergence"]


def sides(lens: Lens, parameters: Parameters) -> tuple[Parameters, Parameters]:
    """Either side's own SQL parameters, from those of a `CompareView`."""
    rows = lens.table("analysis", {"analysis": parameters["b"]}).to_pylist()
    if not rows:
        raise NotFound(f"there is no analysis {parameters['b']!r} to compare with")
    view: View = parameters["other"]
    return with_quick(lens, parameters), with_quick(lens, view.parameters(rows[0]))


def _both(lens: Lens, parameters: Parameters) -> Parameters:
    """The parameters of a query over both sides: b's have `b_` before their names."""
    a, b = sides(lens, parameters)
    return {**a, **{f"b_{name}": value for name, value in b.items()}, "b": b["analysis"]}


def _plane_axes(y: Axis, lens: Lens, parameters: Parameters) -> Parameters:
    """Bins that hold both sides."""
    limits = []
    for side in sides(lens, parameters):
        (spread,) = lens.table("ranges", {**side, "sign": None}).to_pylist()
        limits.append(plane_limits(spread["log_ratio"], spread["divergence"], side)[y])
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    axes = {"x_limit": X_LIMIT, "y": y, "y_low": low, "y_high": high, "x_bins": X_BINS, "y_bins": Y_BINS}
    return {**_both(lens, parameters), **axes}


def _plane(y: Axis, which: int, lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    """One side's plane, in the axes that both have."""
    axes = _plane_axes(y, lens, parameters)
    side = sides(lens, parameters)[which]
    at = {**side, **{name: axes[name] for name in ("x_limit", "y", "y_low", "y_high", "x_bins", "y_bins")}}
    at |= {"limit": MAX_POINTS, "sign": None, "first": "ppo", "second": "dppo", "brush": y, **dict.fromkeys(BOUNDS)}
    density = lens.table("plane", at)
    (noise,) = lens.table("noise", at).to_pylist()
    (spread,) = lens.table("ranges", at).to_pylist()
    frame = planes.Frame(
        y=y,
        x_limit=X_LIMIT,
        y_low=at["y_low"],
        y_high=at["y_high"],
        x_bins=X_BINS,
        y_bins=Y_BINS,
        divergence=at["divergence"],
        anchor=at["anchor"],
        evaluated_at=at["evaluated_at"],
        delta_low=at["delta_low"],
        delta_high=at["delta_high"],
        n=spread["n"] if y == "ratio" else spread["n_divergence"],
        sign=None,
        clipped={edge: pc.sum(density[f"n_{edge}"]).as_py() for edge in ("left", "right", "below", "above")},
        max_points=MAX_POINTS,
        noise=noise["log_ratio" if y == "ratio" else at["divergence"].rpartition("_")[2]],
    )
    return planes.plane(density, lens.table("dropped", at), lens.table("boundaries", at), frame, theme)


def _timeline(name: str) -> Callable[[Lens, Parameters, Theme], go.Figure]:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        found = []
        for side in sides(lens, parameters):
            rows = thinned(lens.table("timeline", side), lens.table("step_marks", side))
            found.append(compare.Side(rows, side["step"]))
        same = parameters["b"] == parameters["analysis"]
        return compare.overlay(name, found[0], None if same else found[1], theme, other_step=found[1].step)

    return draw


def _over(query: str, drawn: Callable[..., go.Figure]) -> Callable[[Lens, Parameters, Theme], go.Figure]:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        return drawn(lens.table(query, _both(lens, parameters)), theme)

    return draw


def _table(says: str, query: str, prepare: Callable[[Lens, Parameters], Parameters] = _both) -> Table:
    return Table(says, query, CompareView, prepare)


TABLES = {
    "compare_definitions": _table("What either side's numbers depend on, one row a side", "compare_definitions"),
    "compare_cells": _table("The four cells of both sides by sign of A, and their difference", "compare_cells"),
    "compare_timeline": _table("The steps of both runs, as in the table timeline", "compare_timeline"),
    "compare_quantiles": _table("Quantiles of |π − anchor| by the anchor's probability", "compare_quantiles"),
    **{
        f"compare_{y}_plane": _table(
            f"A density of either side, as in {y}_plane, in the same bins", "compare_plane", partial(_plane_axes, y)
        )
        for y in ("ratio", "divergence")
    },
}
FIGURES = {
    "compare_shares": Figure(_over("compare_cells", compare.shares), "compare_cells", CompareView),
    "compare_quantiles": Figure(_over("compare_quantiles", compare.quantiles), "compare_quantiles", CompareView),
    **{f"compare_{name}": Figure(_timeline(name), "compare_timeline", CompareView) for name in compare.OVERLAYS},
    **{
        f"compare_{y}_{side}": Figure(partial(_plane, y, which), f"compare_{y}_plane", CompareView)
        for y in ("ratio", "divergence")
        for which, side in enumerate("ab")
    },
}
