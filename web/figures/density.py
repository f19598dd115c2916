"""How many tokens lie where: counts by bin as a grey density, darker for more, on a log scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa

from web.figures.theme import Theme

__all__ = ["Grid", "heat"]


@dataclass(frozen=True)
class Grid:
    """The ranges that two axes show, each cut into equal bins."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    x_bins: int
    y_bins: int


def heat(counts: pa.Table, grid: Grid, theme: Theme) -> go.Heatmap:
    """The density of `counts` (x_bin, y_bin, n), which has a row or more. A bin without tokens stays blank."""
    tokens = np.zeros((grid.y_bins, grid.x_bins), dtype=np.int32)
    tokens[counts["y_bin"].to_numpy(), counts["x_bin"].to_numpy()] = counts["n"].to_numpy()
    shade = np.full(tokens.shape, np.nan, dtype=np.float32)
    np.log10(tokens, out=shade, where=tokens > 0)
    return go.Heatmap(
        x=_centres(grid.x_low, grid.x_high, grid.x_bins),
        y=_centres(grid.y_low, grid.y_high, grid.y_bins),
        z=shade,
        zmin=0,
        zmax=max(1.0, float(np.nanmax(shade))),
        customdata=tokens,
        hoverongaps=False,
        hovertemplate="%{customdata:,} tokens<extra></extra>",
        showscale=False,
        showlegend=False,
        colorscale=[[0, theme.density_low], [1, theme.density_high]],
        name="density",
    )


def _centres(low: float, high: float, bins: int) -> np.ndarray[Any, Any]:
    edges = np.linspace(low, high, bins + 1)
    return (edges[:-1] + edges[1:]) / 2
