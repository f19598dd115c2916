"""What a view's parameters leave to the data: a δ that is locked to ε, and whether its methods were measured."""

from __future__ import annotations

from typing import Any

from service.errors import FieldError, Invalid
from service.schemas.methods import LIVE, METHODS
from service.store.lens import Lens

__all__ = ["NOT_MEASURED", "method_reasons", "settled"]

Row = dict[str, Any]
NOT_MEASURED = "not measured for this analysis by this version: measure it again"


def settled(lens: Lens, at: Row) -> Row:
    """SQL parameters `at` whose δ drop as many tokens as PPO does, where the view locks them; `matched` says how well.

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
        return at
    matched = {row["sign"]: row for row in lens.table("rate_match", at).to_pylist()}
    deltas = {name: matched[sign]["delta"] for name, sign in (("delta_low", -1), ("delta_high", 1)) if sign in matched}
    return {**at, **deltas, "matched": matched}


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
