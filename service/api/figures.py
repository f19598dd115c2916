"""Figures by name: the queries each needs, and the factory in `web.figures` that draws their tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from service.schemas.view import plane_limits
from service.store.lens import Lens
from web.figures import planes, timeline
from web.figures.strip import strip
from web.figures.theme import Theme, theme_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "RUN_FIGURES", "X_LIMIT", "figure"]

X_BINS, Y_BINS = 92, 64
X_LIMIT = 9.2102404  # logit(.9999)
MAX_POINTS = 3000

Parameters = dict[str, Any]
Draw = Callable[[Lens, Parameters, Theme], "go.Figure"]


def figure(name: str, lens: Lens, parameters: Parameters, theme: str) -> go.Figure:
    """Draw the figure `name` under the view's SQL parameters."""
    return FIGURES[name](lens, parameters, theme_of(theme))


def _plane(y: Literal["ratio", "divergence"]) -> Draw:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        (spread,) = lens.table("ranges", parameters).to_pylist()
        low, high = plane_limits(spread["log_ratio"], spread["divergence"], parameters)[y]
        at = {
            **parameters,
            "x_limit": X_LIMIT,
            "y": y,
            "y_low": low,
            "y_high": high,
            "x_bins": X_BINS,
            "y_bins": Y_BINS,
            "limit": MAX_POINTS,
        }
        (clipped,) = lens.table("clipped", at).to_pylist()
        (noise,) = lens.table("noise", at).to_pylist()
        frame = planes.Frame(
            y=y,
            x_limit=X_LIMIT,
            y_low=low,
            y_high=high,
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

    return draw


def _timeline(name: str) -> Draw:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        return timeline.FIGURES[name](lens.table("timeline", parameters), theme)

    return draw


def _strip(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    (noise,) = lens.table("noise", parameters).to_pylist()
    return strip(lens.table("tokens", parameters), {**parameters, "noise": noise}, theme)


RUN_FIGURES: dict[str, Draw] = {f"timeline_{name}": _timeline(name) for name in timeline.FIGURES}
FIGURES: dict[str, Draw] = {
    "ratio_plane": _plane("ratio"),
    "divergence_plane": _plane("divergence"),
    "strip": _strip,  # with step and sample_id
    **RUN_FIGURES,
}
