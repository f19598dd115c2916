"""Every registered method on one run: what each drops, how each two agree, and what theory says of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dppo_core.methods.catalog import METHODS
from service.api.views.registry import Figure, Parameters, Table
from service.schemas.view import MethodsView
from service.store.lens import Lens
from web.figures import methods, theory
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES", "TITLES"]

TITLES = {name: method.title for name, method in METHODS.items()}


def _matrix(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    return methods.matrix(lens.table("method_matrix", parameters), TITLES, parameters["measure"], theme)


def _rates(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
    return methods.drop_rates(lens.table("methods", parameters), TITLES, theme)


def _bounds(name: str) -> Callable[[Lens, Parameters, Theme], go.Figure]:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        return theory.FIGURES[name](lens.table("bounds", parameters), theme)

    return draw


TABLES = {
    "methods": Table("What each registered method drops, and its agreement with PPO and DPPO", "methods", MethodsView),
    "method_matrix": Table("How every two methods agree, strictest first", "method_matrix", MethodsView),
}
FIGURES = {
    "method_matrix": Figure(_matrix, "method_matrix", MethodsView),
    "method_drop_rates": Figure(_rates, "methods", MethodsView),
    **{f"theory_{name}": Figure(_bounds(name), "bounds") for name in theory.FIGURES},
}
