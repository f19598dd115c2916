"""What happened over a run's steps: one row a step, and a small figure for each quantity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from service.api.views.registry import Figure, Parameters, Table
from service.store.lens import Lens
from web.figures import timeline
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES"]


def _timeline(name: str) -> Callable[[Lens, Parameters, Theme], go.Figure]:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        return timeline.FIGURES[name](lens.table("timeline", parameters), theme)

    return draw


TABLES = {"timeline": Table("What was logged and found of each step of the run", "timeline")}
FIGURES = {f"timeline_{name}": Figure(_timeline(name), "timeline") for name in timeline.FIGURES}
