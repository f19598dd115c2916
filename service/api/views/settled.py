"""What a view's parameters leave to the data: a δ that is locked to ε, whether its methods were measured, and whether
quiet tokens matter to it."""

from __future__ import annotations

import math
from typing import Any

from service.errors import FieldError, Invalid
from service.schemas.methods import LIVE, METHODS
from service.store.lens import Lens
from service.store.quiet import beyond

__all__ = ["NOT_MEASURED", "method_reasons", "settled", "with_quick"]

Row = dict[str, Any]
NOT_MEASURED = "not measured for this analysis by this version: measure it again"


def settled(lens: Lens, at: Row) -> Row:
    """SQL parameters `at` whose δ drop as many tokens as PPO does, where the view locks them; `matched` says how well.

    With `quick`, as `with_quick` has it.

    Raises `Invalid` where the view asks for a method whose decisions are not kept, with the reason.
    """
    sides = ("first", "second") if "second" in at else ()  # where two methods are compared
    chosen = [at[side] for side in sides if at[side] not in LIVE]
    reasons = method_reasons(lens, at) if chosen else {}
    for method in chosen:
        if reasons[method]:
            message = f"{METHODS[method].title} cannot be shown here: {reasons[method]}"
            raise Invalid(message, [FieldError(message, field="first" if method == at["first"] else "second")])
    if not at.get("match"):
        return with_quick(lens, at)
    open_ = with_quick(lens, {**at, "delta_low": math.inf, "delta_high": math.inf})
    matched = {row["sign"]: row for row in lens.table("rate_match", open_).to_pylist()}
    if not with_quick(lens, {**at, **_deltas(matched)})["quick"]:  # a δ among the quiet tokens: look at all
        matched = {row["sign"]: row for row in lens.table("rate_match", {**at, "quick": False}).to_pylist()}
    deltas = _deltas(matched)
    return with_quick(lens, {**at, **deltas, "matched": matched})


def with_quick(lens: Lens, at: Row) -> Row:
    """`at` with `quick`: whether the view's methods keep every quiet token, so that their sums stand for them."""
    return {**at, "quick": beyond(at, lens.table("noise", {**at, "step": None}).to_pylist()[0])}


def _deltas(matched: dict[int, Row]) -> Row:
    return {name: matched[sign]["delta"] for name, sign in (("delta_low", -1), ("delta_high", 1)) if sign in matched}


def method_reasons(lens: Lens, at: Row) -> dict[str, str]:
    """Why each registered method cannot be shown under a view; an empty reason: it can."""
    rows = lens.table("method_reasons", at).to_pylist()
    known = {row["method"]: row for row in rows}

    def reason(method: str) -> str:
        row = known.get(method)
        if row is None or not row["kept"]:
            return NOT_MEASURED
        if row["evaluated_at"] != at["evaluated_at"]:
            return "measured at the analysis’s own evaluation point only: ask for an analysis at this one"
        return str(row["reason"] or "")

    return {method: reason(method) for method in METHODS}
