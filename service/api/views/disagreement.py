"""Where PPO and DPPO disagree: the four cells, the two planes, and the responses with most of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from service.api.views.registry import Figure, Parameters, Table
from service.schemas.view import plane_limits
from service.store.lens import Lens
from web.figures import planes
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES"]

X_BINS, Y_BINS = 92, 64
X_LIMIT = 9.2102404  # logit(.9999)
MAX_POINTS = 3000


def _axes(y: Literal["ratio", "divergence"], lens: Lens, parameters: Parameters) -> tuple[Parameters, dict[str, Any]]:
    """A plane's SQL parameters, and how far what it shows spreads."""
    (spread,) = lens.table("ranges", parameters).to_pylist()
    low, high = plane_limits(spread["log_ratio"], spread["divergence"], parameters)[y]
    axes = {"x_limit": X_LIMIT, "y": y, "y_low": low, "y_high": high, "x_bins": X_BINS, "y_bins": Y_BINS}
    return {**parameters, **axes}, spread


def _plane(y: Literal["ratio", "divergence"]) -> tuple[Table, Figure]:
    def prepare(lens: Lens, parameters: Parameters) -> Parameters:
        return _axes(y, lens, parameters)[0]

    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        at, spread = _axes(y, lens, parameters)
        at["limit"] = MAX_POINTS
        (clipped,) = lens.table("clipped", at).to_pylist()
        (noise,) = lens.table("noise", at).to_pylist()
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
            clipped=clipped,
            max_points=MAX_POINTS,
            noise=noise["log_ratio" if y == "ratio" else parameters["divergence"].rpartition("_")[2]],
        )
        return planes.plane(
            lens.table("plane", at), lens.table("dropped", at), lens.table("boundaries", at), frame, theme
        )

    name = f"{y}_plane"
    says = f"A density: tokens by bin of the anchor's probability (logit) and of the {y} (ln r, or log10 of D)"
    return Table(says, "plane", prepare=prepare), Figure(draw, name)


def _with_limit(_lens: Lens, parameters: Parameters) -> Parameters:
    return {**parameters, "x_limit": X_LIMIT}


_RATIO_TABLE, _RATIO_FIGURE = _plane("ratio")
_DIVERGENCE_TABLE, _DIVERGENCE_FIGURE = _plane("divergence")

TABLES = {
    "cells": Table("The four cells by step and sign of A; a NULL step holds all of the view's", "cells"),
    "rollouts": Table("The responses, most disagreement first", "rollouts"),
    "dropped": Table("Tokens that a method drops, most mass moved first", "dropped", prepare=_with_limit),
    "boundaries": Table("Where each method starts to drop, over the anchor", "boundaries", prepare=_with_limit),
    "ratio_plane": _RATIO_TABLE,
    "divergence_plane": _DIVERGENCE_TABLE,
}
FIGURES = {"ratio_plane": _RATIO_FIGURE, "divergence_plane": _DIVERGENCE_FIGURE}
