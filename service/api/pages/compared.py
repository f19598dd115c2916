"""What the Disagreement page says of its two methods, of a lock of δ to ε and of a selection."""

from __future__ import annotations

from typing import Any

from service.api.pages.frame import Frame
from service.api.pages.html import url
from service.api.views.settled import NOT_MEASURED, method_reasons
from service.schemas.methods import LIVE, METHODS, title
from service.schemas.view import DisagreementView
from web import words
from web.numbers import count, number, percent, plain

__all__ = ["matched", "methods", "selection"]

Row = dict[str, Any]
BOUNDS = ("p_low", "p_high", "y_low", "y_high")


def methods(found: Frame) -> Row:
    """The two methods by name, what can be chosen in their place, and what the dials do not move."""
    at = found.at
    why = dict.fromkeys(LIVE, "") | method_reasons(found.lens, at)
    labels = {"ppo": "PPO, at ε", "dppo": "DPPO, at δ"} | {name: method.title for name, method in METHODS.items()}

    def choices(side: str, other: str) -> list[Row]:
        return [
            {
                "value": name,
                "label": label,
                "reason": why[name] or ("it is the other one already" if name == at[other] else ""),
                "disabled": bool(why[name]) or name == at[other],
                "selected": name == at[side],
            }
            for name, label in labels.items()
        ]

    fixed = [name for name in (at["first"], at["second"]) if name not in LIVE]
    lines: dict[str, list[str]] = {}
    for name, reason in why.items():
        if reason:
            lines.setdefault(reason, []).append(labels[name])
    binnings = [
        {"value": by, "label": label, "disabled": False, "reason": "", "selected": by == at["by"]}
        for by, label in words.BINNINGS.items()
    ]
    planes = [
        {"value": plane, "label": label, "disabled": False, "reason": "", "selected": plane == at["brush"]}
        for plane, label in (("ratio", "ratio r"), ("divergence", "divergence D"))
    ]
    return {
        "titles": (title(at["first"]), title(at["second"])),
        "first": title(at["first"]),
        "second": title(at["second"]),
        "fixed": [{"message": _fixed(name)} for name in fixed],
        "has_fixed": bool(fixed),
        "why_not": [{"message": f"{', '.join(names)}: {reason}"} for reason, names in lines.items()],
        "has_why_not": bool(lines),
        "unmeasured": NOT_MEASURED in lines and found.row["n_finished"] == found.row["n_steps"],
        "measure": url("api", "v1", "analyses", at["analysis"], "measure"),
        "options": {
            "first": choices("first", "second"),
            "second": choices("second", "first"),
            "by": binnings,
            "brush": planes,
        },
        "defaults": {
            "first": "ppo",
            "second": "dppo",
            "by": "probability",
            "brush": "ratio",
            "match": "",
            **dict.fromkeys(BOUNDS, ""),
        },
    }


def _fixed(method: str) -> str:
    own = method.partition("_")[0] in LIVE
    at = "the thresholds of the analysis" if own else "its published defaults"
    return f"{title(method)} stands at {at}, as measured: the dials do not move it. {METHODS[method].rule}"


def matched(at: Row) -> Row:
    """What a lock of δ to ε achieves, one line a sign of A."""
    lines = []
    for sign, side in ((1, "high"), (-1, "low")) if at.get("match") else ():
        found = at["matched"].get(sign)
        lines.append({"message": f"{words.SIGNS[sign]}: {_match(found, side, at)}"})
    return {"locked": bool(at.get("match")), "lock": lines}


def _match(found: Row | None, side: str, at: Row) -> str:
    if found is None:
        return f"no token to match on; δ_{side} stays at {plain(at[f'delta_{side}'])}."
    verb = "dropped" if at["evaluated_at"] == "logged" else "would drop"
    rates = {name: f"{count(found[name])} ({percent(found[name], found['n'])})" for name in ("n_ppo", "n_dppo")}
    delta = f"δ_{side} = {number(found['delta'])}"
    says = f"of {count(found['n'])} tokens PPO {verb} {rates['n_ppo']}, DPPO {rates['n_dppo']} at {delta}"
    if found["n_dppo"] == found["n_ppo"]:
        return f"{says}."
    if found["delta"] > 0:
        return f"{says}; {count(found['n_tied'])} tie at δ, where a strict mask keeps them."
    return f"{says}: no δ drops more, since DPPO never drops an update toward r = 1, nor one with D = 0."


def selection(view: DisagreementView, found: Frame) -> Row:
    """The rectangle that is selected on a plane: its fields, what it says, and the address without it."""
    anchor, _ = words.symbols(found.at["anchor"], found.at["evaluated_at"])
    what = "r" if view.brush == "ratio" else words.DIVERGENCES[found.at["divergence"]]
    spans = [
        _span(name, low, high)
        for name, low, high in ((f"{anchor}(a)", view.p_low, view.p_high), (what, view.y_low, view.y_high))
        if low is not None or high is not None
    ]
    sign = "" if view.sign is None else f"; the list below: {words.SIGNS[int(view.sign)]}"
    rest = {name: value for name, value in view.chosen.items() if name not in (*BOUNDS, "brush")}
    return {
        "brushed": view.brushed,
        "fields": {name: "" if (value := getattr(view, name)) is None else f"{value:.6g}" for name in BOUNDS}
        | {"match": view.match or ""},
        "selection": f"{' and '.join(spans)}{sign}",
        "of_selected": " selected" if view.brushed else "",
        "clear_href": url("analyses", found.at["analysis"], query=rest),
    }


def _span(name: str, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{name} ≤ {plain(high)}" if low is None else f"{name} ≥ {plain(low)}"
    return f"{name} from {plain(low)} to {plain(high)}"
