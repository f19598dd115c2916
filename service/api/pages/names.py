"""How pages name an analysis where several are listed."""

from __future__ import annotations

from typing import Any

from service.api.pages.html import short
from web.numbers import plain
from web.words import pair_arrow

__all__ = ["analysis_label", "both_sides"]


def both_sides(low: float, high: float) -> str:
    """A threshold for A < 0 and A > 0; one number where they are equal."""
    return plain(low) if low == high else f"{plain(low)} / {plain(high)}"


def analysis_label(row: dict[str, Any]) -> str:
    """An analysis in a list: its id, its pair, its thresholds and how much of it is done."""
    return (
        f"{short(row['analysis'])}: {pair_arrow(row['anchor'], row['evaluated_at'])}, "
        f"ε {plain(row['eps_low'])} / {plain(row['eps_high'])}, "
        f"δ {both_sides(row['delta_tv_low'], row['delta_tv_high'])}, {row['n_finished']} of {row['n_steps']} steps"
    )
