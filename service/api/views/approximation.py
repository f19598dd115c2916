"""How far binary and top-K divergences are from the exact one, and what follows for masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from service.api.views.registry import Figure, Parameters, Table
from service.schemas.view import ApproximationView
from service.store.lens import Lens
from web.figures import approximation
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES"]

AXES = {"tv": (-7.0, 0.0), "kl": (-9.0, 1.0)}  # log10 of what a density shows
BINS = 80
EXACT_PAIR: Parameters = {"anchor": "old", "evaluated_at": "end"}


def _scatter(estimate: Literal["binary", "topk"], name: str) -> tuple[Table, Figure]:
    def prepare(_lens: Lens, parameters: Parameters) -> Parameters:
        low, high = AXES[parameters["measure"]]
        return {**parameters, "estimate": estimate, "low": low, "high": high, "bins": BINS}

    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        at = prepare(lens, parameters)
        frame = approximation.Scatter(
            measure=at["measure"],
            estimate=estimate,
            top_k=at["top_k"],
            low=at["low"],
            high=at["high"],
            bins=BINS,
            deltas=tuple(sorted({at["delta_low"], at["delta_high"]})),
            sign=at["sign"],
        )
        return approximation.against_exact(lens.table("approximation_plane", at), frame, theme)

    says = "A density: tokens by bin of the exact divergence and of the estimate, both log10"
    return (
        Table(says, "approximation_plane", view=ApproximationView, prepare=prepare),
        Figure(draw, name, view=ApproximationView),
    )


def _of(pair: Parameters) -> Callable[[Lens, Parameters], Parameters]:
    return lambda _lens, parameters: {**parameters, **pair}


def _ratios(lens: Lens, at: Parameters, theme: Theme) -> go.Figure:
    return approximation.ratios(lens.table("approximation_ratios", at), at["measure"], at["top_k"], theme)


def _kappa(sign: int) -> Figure:
    def draw(lens: Lens, at: Parameters, theme: Theme) -> go.Figure:
        delta = at["delta_high"] if sign > 0 else at["delta_low"]
        return approximation.kappa(
            lens.table("approximation_agreement", at), sign, delta, at["measure"], at["top_k"], theme
        )

    return Figure(draw, "approximation_agreement", view=ApproximationView)


def _topk_mass(lens: Lens, at: Parameters, theme: Theme) -> go.Figure:
    return approximation.topk_mass(lens.table("topk_mass", at), at["top_k"], theme)


_BINARY_TABLE, _BINARY_FIGURE = _scatter("binary", "binary_against_exact")
_TOPK_TABLE, _TOPK_FIGURE = _scatter("topk", "topk_against_exact")


def _table(says: str, name: str, pair: Parameters | None = None) -> Table:
    return Table(says, name, view=ApproximationView, prepare=_of(pair or {}))


TABLES = {
    "binary_against_exact": _BINARY_TABLE,
    "topk_against_exact": _TOPK_TABLE,
    "approximation_ratios": _table("Estimate / exact by bin of π_old(a)", "approximation_ratios"),
    "approximation_agreement": _table(
        "The mask of an estimate against the exact one, over δ and by sign of A", "approximation_agreement"
    ),
    "approximation_masks": _table(
        "The mask of an estimate against the exact one at the view’s δ", "approximation_masks"
    ),
    "certified": _table("Certified intervals of TV against the exact TV, OLD → NEW", "certified", EXACT_PAIR),
    "certified_masks": _table("How many masks at δ those intervals decide", "certified_masks", EXACT_PAIR),
    "certified_of_view": _table("Certified intervals of TV of the view’s own pair", "certified"),
    "certified_masks_of_view": _table("How many masks at δ those intervals decide", "certified_masks"),
    "topk_mass": _table("Mass inside the top-K set, and the bound from what lies outside, by step", "topk_mass"),
    "top_k_compared": _table("What analyses of the same tokens with another K found", "top_k_compared"),
}
FIGURES = {
    "binary_against_exact": _BINARY_FIGURE,
    "topk_against_exact": _TOPK_FIGURE,
    "approximation_ratios": Figure(_ratios, "approximation_ratios", view=ApproximationView),
    "kappa_positive": _kappa(1),
    "kappa_negative": _kappa(-1),
    "topk_mass": Figure(_topk_mass, "topk_mass", view=ApproximationView),
}
