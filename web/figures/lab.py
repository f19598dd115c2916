"""Figures of the lab: every seed's curve, arm by arm, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import pyarrow as pa
from plotly.subplots import make_subplots

from web.figures.theme import Theme, empty, layout

__all__ = ["curves", "forest"]

ROW, PANEL = 21, 150  # pixels of a row of a forest, and of a panel of curves
DIGITS = 4
SHADES = ("dppo", "ppo", "both", "rise", "fall", "muted")


def curves(
    table: pa.Table, theme: Theme, titles: dict[str, str], *, columns: int = 4, start: float | None = None
) -> go.Figure:
    """A panel an arm, in the order of `titles`: each seed a thin line, their mean (seed null) a thick one.

    table: arm, seed, step, value. start: a dotted line, what runs start from.
    """
    arms = [arm for arm in titles if arm in set(table["arm"].to_pylist())]
    if not arms:
        return empty(theme, "no runs yet")
    rows = -(-len(arms) // columns)
    figure = make_subplots(
        rows,
        columns,
        shared_xaxes="all",
        shared_yaxes="all",
        subplot_titles=[titles[arm] for arm in arms],
        vertical_spacing=0.35 / rows / 1.6,
        horizontal_spacing=0.02,
    )
    figure.update_layout(layout(theme, showlegend=False, margin={"l": 52, "r": 12, "t": 26, "b": 34}))
    figure.update_layout(height=PANEL * rows + 60, width=880)
    for place, arm in enumerate(arms):
        row, column = place // columns + 1, place % columns + 1
        lines: dict[int | None, list[tuple[int, float]]] = {}
        for of_arm in table.filter(pa.compute.equal(table["arm"], arm)).to_pylist():
            lines.setdefault(of_arm["seed"], []).append((of_arm["step"], of_arm["value"]))
        mean = lines.pop(None, [])
        for seed, line in sorted(lines.items()):
            _line(figure, line, f"seed {seed}", theme.muted, 0.7, (row, column))
        _line(figure, mean, "mean", theme.dppo if arm.startswith("dppo") else theme.ppo, 2.2, (row, column))
        if start is not None:
            figure.add_hline(y=start, line={"dash": "dot", "width": 1, "color": theme.muted}, row=row, col=column)
    figure.update_annotations(font={"size": 11.5, "color": theme.ink})
    figure.update_xaxes(nticks=5, title=None)
    figure.update_yaxes(nticks=5)
    return figure


def _line(
    figure: go.Figure, points: Sequence[tuple[int, float]], name: str, colour: str, width: float, where: tuple[int, int]
) -> None:
    steps, values = [step for step, _ in points], [_short(value) for _, value in points]
    style = {"color": colour, "width": width}
    figure.add_trace(go.Scatter(x=steps, y=values, name=name, mode="lines", line=style), row=where[0], col=where[1])


def forest(table: pa.Table, theme: Theme, titles: dict[str, str], *, zero: bool = True) -> go.Figure:
    """Values with intervals, a row each and a panel an outcome, in the order of `titles`.

    table: panel, label, group, value, low, high; rows of one label stand on one line, groups in colours of their own.
    zero: a line at 0, for differences.
    """
    panels = [panel for panel in titles if panel in set(table["panel"].to_pylist())]
    if not panels:
        return empty(theme, "no runs yet")
    labels = list(dict.fromkeys(table["label"].to_pylist()))
    groups = list(dict.fromkeys(table["group"].to_pylist()))
    figure = make_subplots(
        1, len(panels), shared_yaxes=True, subplot_titles=[titles[panel] for panel in panels], horizontal_spacing=0.03
    )
    figure.update_layout(
        layout(theme, showlegend=len(groups) > 1, margin={"l": 8, "r": 12, "t": 30, "b": 30}),
        height=ROW * max(1.0, 0.55 * len(groups)) * len(labels) + 90,
        width=880,
        legend={"orientation": "h", "y": -0.12, "x": 0},
    )
    rows = table.to_pylist()
    for column, panel in enumerate(panels, 1):
        for place, group in enumerate(groups):
            shown = [row for row in rows if row["panel"] == panel and row["group"] == group]
            shift = 0.0 if len(groups) == 1 else 0.5 * (place / (len(groups) - 1) - 0.5)
            colour = getattr(theme, SHADES[place % len(SHADES)])
            figure.add_trace(
                go.Scatter(
                    x=[_short(row["value"]) for row in shown],
                    y=[labels.index(row["label"]) + shift for row in shown],
                    error_x={
                        "type": "data",
                        "symmetric": False,
                        "array": [_short(row["high"] - row["value"]) for row in shown],
                        "arrayminus": [_short(row["value"] - row["low"]) for row in shown],
                        "thickness": 1.4,
                        "width": 3,
                        "color": colour,
                    },
                    mode="markers",
                    marker={"size": 7, "color": colour},
                    name=group,
                    showlegend=column == 1,
                    text=[row["label"] for row in shown],
                    hovertemplate="%{text}: %{x:.3~g}<extra></extra>",
                ),
                row=1,
                col=column,
            )
        if zero:
            figure.add_vline(x=0, line={"width": 1, "color": theme.rule}, row=1, col=column)
    figure.update_annotations(font={"size": 11.5, "color": theme.ink})
    figure.update_xaxes(nticks=5, title=None)
    figure.update_yaxes(range=[len(labels) - 0.4, -0.6], tickvals=list(range(len(labels))), ticktext=labels, title=None)
    figure.update_yaxes(automargin=True, col=1)
    return figure


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
