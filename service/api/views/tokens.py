"""Which tokens are dropped most, and where they stand (claims C7 and C8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.api.views.registry import Figure, Parameters, Table
from service.schemas.view import TokensView
from service.store.lens import Lens
from web.figures import clipped
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "PAGE", "TABLES"]

PAGE = 20  # tokens on a page and in its figure
BINS = {"x_limit": 9.2102404, "x_bins": 25}  # those of the macro _logit_bins


def _most_clipped(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    rows = lens.table("most_clipped", {**parameters, "limit": PAGE, "offset": parameters["first"]})
    return clipped.most_clipped(rows, parameters, theme)


def _probability(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    at = {**parameters, **BINS}
    return clipped.clipped_probability(lens.table("clipped_probability", at), at, theme)


TABLES = {
    "most_clipped": Table(
        "Tokens by sign of A, most dropped first, with Wilson intervals and enrichment over the base rate",
        "most_clipped",
        view=TokensView,
    ),
    "token_places": Table("Where one token stands, with the text around it", "token_places", view=TokensView),
    "clipped_summary": Table(
        "How likely and how open the dropped tokens were, against all", "clipped_summary", view=TokensView
    ),
    "clipped_probability": Table(
        "Dropped tokens by bin of the anchor's probability and by side", "clipped_probability", view=TokensView
    ),
}
FIGURES = {
    "most_clipped": Figure(_most_clipped, "most_clipped", view=TokensView),
    "clipped_probability": Figure(_probability, "clipped_probability", view=TokensView),
}
