"""Where two methods disagree: the four cells and their intervals, the two planes, bins, tokens and responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow.compute as pc

from service.api.views.registry import Figure, Parameters, Table
from service.schemas.methods import LIVE, title
from service.schemas.view import DisagreementView, plane_limits
from service.store.lens import Lens
from web.figures import planes
from web.figures.bins import dumbbells
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES"]

X_BINS, Y_BINS = 92, 64
X_LIMIT = 9.2102404  # logit(.9999)
MAX_POINTS = 1600
BOUNDS = ("p_low", "p_high", "brush_low", "brush_high")


def _axes(y: Literal["ratio", "divergence"], lens: Lens, parameters: Parameters) -> tuple[Parameters, dict[str, Any]]:
    """A plane's SQL parameters, and how far what it shows spreads. A plane shows every token, whatever is selected."""
    (spread,) = lens.table("ranges", parameters).to_pylist()
    low, high = plane_limits(spread["log_ratio"], spread["divergence"], parameters)[y]
    axes = {"x_limit": X_LIMIT, "y": y, "y_low": low, "y_high": high, "x_bins": X_BINS, "y_bins": Y_BINS}
    return {**parameters, **axes, **dict.fromkeys(BOUNDS)}, spread


def _plane(y: Literal["ratio", "divergence"]) -> tuple[Table, Figure]:
    def prepare(lens: Lens, parameters: Parameters) -> Parameters:
        return _axes(y, lens, parameters)[0]

    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        at, spread = _axes(y, lens, parameters)
        at["limit"] = MAX_POINTS
        density = lens.table("plane", at)
        (noise,) = lens.table("noise", at).to_pylist()
        methods = (parameters["first"], parameters["second"])
        bounds = [parameters[name] for name in (BOUNDS if parameters["brush"] == y else BOUNDS[:2])]
        frame = planes.Frame(
            y=y,
            x_limit=X_LIMIT,
            y_low=at["y_low"],
            y_high=at["y_high"],
            x_bins=X_BINS,
            y_bins=Y_BINS,
            divergence=parameters["divergence"],
            anchor=parameters["anchor"],
            evaluated_at=parameters["evaluated_at"],
            delta_low=parameters["delta_low"],
            delta_high=parameters["delta_high"],
            n=spread["n"] if y == "ratio" else spread["n_divergence"],
            sign=parameters["sign"],
            clipped={side: pc.sum(density[f"n_{side}"]).as_py() for side in ("left", "right", "below", "above")},
            max_points=MAX_POINTS,
            noise=noise["log_ratio" if y == "ratio" else parameters["divergence"].rpartition("_")[2]],
            methods=methods,
            titles=(title(methods[0]), title(methods[1])),
            drawn=tuple(method for method in LIVE if method in methods),
            selected=planes.Selection(*bounds),
        )
        return planes.plane(density, lens.table("dropped", at), lens.table("boundaries", at), frame, theme)

    name = f"{y}_plane"
    says = f"A density: tokens by bin of the anchor's probability (logit) and of the {y} (ln r, or log10 of D)"
    return Table(says, "plane", DisagreementView, prepare), Figure(draw, name, DisagreementView)


def _bins(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    titles = (title(parameters["first"]), title(parameters["second"]))
    return dumbbells(lens.table("bins", parameters), parameters["by"], titles, parameters["evaluated_at"], theme)


def _with_limit(_lens: Lens, parameters: Parameters) -> Parameters:
    return {**parameters, "x_limit": X_LIMIT}


def _table(says: str, query: str, **settings: Any) -> Table:
    return Table(says, query, DisagreementView, **settings)


_RATIO_TABLE, _RATIO_FIGURE = _plane("ratio")
_DIVERGENCE_TABLE, _DIVERGENCE_FIGURE = _plane("divergence")

TABLES = {
    "cells": _table("The four cells by step and sign of A; a NULL step holds all of the view's", "cells"),
    "intervals": _table("95 % intervals of the cells, from a bootstrap over prompts", "intervals"),
    "rate_match": _table("By sign of A, the δ at which DPPO drops as many tokens as PPO", "rate_match"),
    "bins": _table("Disagreement by bin of one dimension and sign of A", "bins"),
    "rollouts": Table("The responses under PPO and DPPO, most disagreement first", "rollouts"),
    "responses": _table("The responses under the two methods of a view, most disagreement first", "responses"),
    "selected": _table("The tokens selected on a plane, most mass moved first", "selected"),
    "dropped": _table("Tokens that a method drops, most mass moved first", "dropped", prepare=_with_limit),
    "boundaries": _table("Where PPO and DPPO start to drop, over the anchor", "boundaries", prepare=_with_limit),
    "ratio_plane": _RATIO_TABLE,
    "divergence_plane": _DIVERGENCE_TABLE,
}
FIGURES = {
    "ratio_plane": _RATIO_FIGURE,
    "divergence_plane": _DIVERGENCE_FIGURE,
    "bins": Figure(_bins, "bins", DisagreementView),
}
