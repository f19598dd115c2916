"""One response: its tokens under the view, and the strip that draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.api.views.registry import Figure, Parameters, Table
from service.schemas.view import ResponseView
from service.store.lens import Lens
from web.figures.strip import strip
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES"]


def _strip(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    (noise,) = lens.table("noise", parameters).to_pylist()
    return strip(lens.table("tokens", parameters), {**parameters, "noise": noise}, theme)


TABLES = {"tokens": Table("Every token of one response; masked ones have NULLs", "tokens", view=ResponseView)}
FIGURES = {"strip": Figure(_strip, "tokens", view=ResponseView)}
