"""One response: its tokens under the view, the strip that draws them, its rounds and its siblings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.api.views.registry import Figure, Parameters, Table
from service.schemas.view import ReaderView, ResponseView
from service.store.lens import Lens
from web.figures.strip import strip
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES"]

DRAWN = {"most": 800, "dropped": 300, "stretches": 250}  # tokens of a strip: a figure stays below 300 kB


def _with_caps(_lens: Lens, parameters: Parameters) -> Parameters:
    return {**parameters, **DRAWN}


def _strip(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    (noise,) = lens.table("noise", parameters).to_pylist()
    return strip(lens.table("strip", {**parameters, **DRAWN}), {**parameters, "noise": noise}, theme)


TABLES = {
    "tokens": Table("Every token of one response; masked ones have NULLs", "tokens", view=ResponseView),
    "token": Table("Every number of the token `at` of a response", "token", view=ReaderView),
    "strip": Table("The tokens that a response's figure draws", "strip", view=ReaderView, prepare=_with_caps),
    "turns": Table("A response by turn: drift, mismatch and what each method drops", "turns", view=ReaderView),
    "siblings": Table("The responses to the same prompt in the same step", "siblings", view=ReaderView),
}
FIGURES = {"strip": Figure(_strip, "strip", view=ReaderView)}
