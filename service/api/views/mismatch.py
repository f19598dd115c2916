"""The engine's mismatch and the step's update, apart and together, and what each does to the masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from service.api.views.registry import Figure, Parameters, Table
from service.store.lens import Lens
from web.figures import mismatch
from web.figures.theme import Theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FIGURES", "TABLES"]

X_BINS, Y_BINS = 92, 64
X_LIMIT = 9.2102404  # logit(.9999)
TV_LOW, TV_HIGH = -6.0, 0.2  # log10
NARROW, WIDE = math.log(1.25), math.log(1e4)  # a ratio plane shows at least and at most this far: bands stay visible

Part = Literal["mismatch", "update"]


def _axes(part: Part, of: Literal["ratio", "tv"], lens: Lens, at: Parameters) -> tuple[Parameters, dict[str, Any]]:
    """A plane's SQL parameters, and how many tokens have what it shows."""
    (spread,) = lens.table("mismatch_ranges", at).to_pylist()
    axes: Parameters = {"x_limit": X_LIMIT, "x_bins": X_BINS, "y_bins": Y_BINS}
    if of == "ratio":
        reach = min(max(NARROW, 1.15 * (spread[part] or 0.0)), WIDE)
        return {**at, **axes, "quantity": f"log_{part}", "y_low": -reach, "y_high": reach, "tv": None}, spread
    full = "topk" if part == "mismatch" else "exact"
    tv = full if 2 * spread[f"n_{full}"] >= max(spread[f"n_{part}"], 1) else "binary"
    return {**at, **axes, "quantity": f"tv_{part}_{tv}", "y_low": TV_LOW, "y_high": TV_HIGH, "tv": tv}, spread


def _plane(part: Part, of: Literal["ratio", "tv"]) -> tuple[Table, Figure]:
    def prepare(lens: Lens, parameters: Parameters) -> Parameters:
        return _axes(part, of, lens, parameters)[0]

    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        at, spread = _axes(part, of, lens, parameters)
        (noise,) = lens.table("noise", at).to_pylist()
        frame = mismatch.Frame(
            part=part,
            tv=at["tv"],
            x_limit=X_LIMIT,
            y_low=at["y_low"],
            y_high=at["y_high"],
            x_bins=X_BINS,
            y_bins=Y_BINS,
            n=spread[f"n_{part}"],
            sign=at["sign"],
            noise=None if at["evaluated_at"] == "logged" else noise["log_ratio" if of == "ratio" else "tv"],
        )
        return mismatch.plane(lens.table("mismatch_plane", at), frame, theme)

    says = "A density: tokens by bin of the probability before (logit) and of the " + (
        "ratio (ln)" if of == "ratio" else "total variation (log10)"
    )
    return Table(says, "mismatch_plane", prepare=prepare), Figure(draw, f"{part}_{of}_plane")


def _spread(factory: Callable[..., go.Figure], table: str, quantity: Literal["log", "dp"]) -> Figure:
    def draw(lens: Lens, parameters: Parameters, theme: Theme) -> go.Figure:
        return factory(lens.table(table, parameters), quantity, theme)

    return Figure(draw, table)


def _truncation(lens: Lens, at: Parameters, theme: Theme) -> go.Figure:
    cap = 2.0 if at["weight_cap"] is None else float(at["weight_cap"])
    return mismatch.truncation(lens.table("truncation", at), cap, theme)


_PLANES = {f"{part}_{of}_plane": _plane(part, of) for part in ("mismatch", "update") for of in ("ratio", "tv")}

TABLES = {
    "mismatch_parts": Table("log r = log ρ + log r′ and |Δp| of each part, by bin of μ(a)", "mismatch_parts"),
    "mismatch_steps": Table("The same by step", "mismatch_steps"),
    **{name: table for name, (table, _) in _PLANES.items()},
    "bands": Table("Whether ln ρ of rare tokens gathers at multiples of the spacing of bfloat16 logits", "bands"),
    "anchors": Table("Each method’s mask from μ against the same from OLD, in four cells by sign of A", "anchors"),
    "truncation": Table("Whom truncating r at C hits, by range of μ(a)", "truncation"),
    "mismatch_responses": Table("The responses, largest mean |ln ρ| first", "mismatch_responses"),
    "staleness": Table("Mismatch by how many versions μ lies behind its step", "staleness"),
}
FIGURES = {
    **{name: figure for name, (_, figure) in _PLANES.items()},
    "mismatch_log_by_probability": _spread(mismatch.by_probability, "mismatch_parts", "log"),
    "mismatch_dp_by_probability": _spread(mismatch.by_probability, "mismatch_parts", "dp"),
    "mismatch_log_by_step": _spread(mismatch.by_step, "mismatch_steps", "log"),
    "mismatch_dp_by_step": _spread(mismatch.by_step, "mismatch_steps", "dp"),
    "truncation": Figure(_truncation, "truncation"),
}
