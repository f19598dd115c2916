"""What a table and a figure of an analysis are; the modules beside this one name them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.schemas.view import View
from service.store.lens import Lens

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import pyarrow as pa

    from web.figures.theme import Theme

__all__ = ["Figure", "Parameters", "Table"]

Parameters = dict[str, Any]
DEFAULTS: Parameters = {"limit": 1000, "offset": 0}


def _as_they_are(_lens: Lens, parameters: Parameters) -> Parameters:
    return parameters


@dataclass(frozen=True)
class Table:
    """A table of an analysis under a view: one named query of `sql/views/`.

    says: what a row is, in one line. query: its name, if it is not the table's. view: the query string that it takes.
    prepare: from the view's SQL parameters to the query's, where it needs more than those.
    """

    says: str
    query: str
    view: type[View] = View
    prepare: Callable[[Lens, Parameters], Parameters] = _as_they_are

    def parameters(self, lens: Lens, parameters: Parameters) -> Parameters:
        """The query's parameters, from those of the view."""
        return {**DEFAULTS, **self.prepare(lens, parameters)}

    def rows(self, lens: Lens, parameters: Parameters) -> pa.Table:
        """The table under the view's parameters."""
        return lens.table(self.query, self.parameters(lens, parameters))

    def sql(self, lens: Lens, parameters: Parameters) -> str:
        """The statement that gives the table on `lens.duckdb`, its parameters written out."""
        return lens.text(self.query, self.parameters(lens, parameters))


@dataclass(frozen=True)
class Figure:
    """A figure of an analysis under a view.

    draw: from the view's parameters to the drawn figure. table: the name of the table whose rows it shows.
    """

    draw: Callable[[Lens, Parameters, Theme], go.Figure]
    table: str
    view: type[View] = View
