"""What happened over a run's steps: one row a step, and a small figure for each quantity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from service.api.views.registry import Figure, Parameters, Table
from service.schemas.overview import OverviewView
from service.store.lens import Lens
from web.figures import timeline
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "MOST_STEPS", "TABLES", "stride", "thinned"]

MOST_STEPS = 1200  # that a figure draws: as many as it has pixels, and a quarter of a megabyte at most


def stride(n_steps: int) -> int:
    """Every how many-th of so many steps is drawn."""
    return max(1, -(-n_steps // MOST_STEPS))


def thinned(table: pa.Table, marks: pa.Table) -> pa.Table:
    """The rows of the steps that are drawn: all where they are few, else every n-th and every marked one."""
    steps = pc.unique(table["step"]).sort()
    every = stride(len(steps))
    if every == 1:
        return table
    marked = marks.filter(marks["marked"])["step"].cast(pa.uint32()).combine_chunks()
    kept = pa.concat_arrays([steps.cast(pa.uint32())[::every], marked])
    return table.filter(pc.is_in(table["step"], value_set=kept))


def _timeline(name: str) -> Callable[[Lens, Parameters, Theme], go.Figure]:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        marks = lens.table("step_marks", parameters)
        rows = thinned(lens.table(timeline.TABLE_OF[name], parameters), marks)
        settings = {}
        if timeline.TABLE_OF[name] != "timeline":  # the steps of every other panel
            settings["steps"] = lens.table("timeline", parameters)["step"].to_pylist()
        return timeline.FIGURES[name](rows, thinned(marks, marks), theme, **settings)

    return draw


TABLES = {
    "timeline": Table("What was logged and found of each step of the run", "timeline", view=OverviewView),
    "step_marks": Table("Each step against the range of the run's first steps", "step_marks", view=OverviewView),
    "mask_rates": Table("What chosen methods drop, by step and sign of A", "mask_rates", view=OverviewView),
}
FIGURES = {
    f"timeline_{name}": Figure(_timeline(name), timeline.TABLE_OF[name], view=OverviewView) for name in timeline.FIGURES
}
