"""What can be chosen: steps, anchors, evaluation points and divergences, and why some cannot."""

from __future__ import annotations

from typing import Any

from service.schemas.methods import PRESETS
from service.schemas.view import DIVERGENCES, View
from web import words

__all__ = ["options", "preset_options", "reasons"]

Row = dict[str, Any]


def options(steps: list[Row], analysis: Row, at: Row, known: dict[str, int]) -> dict[str, list[Row]]:
    """The options of each select. `known` counts tokens by anchor/point/estimate; none means: not known here."""
    anchor, point = at["anchor"], at["evaluated_at"]
    estimate = at["divergence"].partition("_")[0]

    def option(value: str, label: str, key: tuple[str, str, str], chosen: str) -> Row:
        missing = not known.get("/".join(key), 0)
        reason = words.unavailable(*key, analysis["source"]) if missing else ""
        return {"value": value, "label": label, "disabled": missing, "reason": reason, "selected": value == chosen}

    found = {
        "step": [{"value": "", "label": "all steps", "disabled": False, "reason": "", "selected": at["step"] is None}]
        + [_step(step, at["step"]) for step in steps],
        "anchor": [option(value, label, (value, point, "binary"), anchor) for value, label in words.ANCHORS.items()],
        "evaluated_at": [
            option(value, label, (anchor, value, "binary"), point) for value, label in words.POINTS.items()
        ],
        "divergence": [
            option(value, words.DIVERGENCES[value], (anchor, point, value.partition("_")[0]), at["divergence"])
            for value in DIVERGENCES
        ],
        "sign": [
            {
                "value": value,
                "label": label,
                "disabled": False,
                "reason": "",
                "selected": value == ("" if at["sign"] is None else str(at["sign"])),
            }
            for value, label in (("", "both signs"), ("1", "A > 0"), ("-1", "A < 0"), ("0", "A = 0"))
        ],
    }
    if not any(known.values()):  # nothing is scored yet, so nothing can be said
        for name in ("anchor", "evaluated_at", "divergence"):
            found[name] = [{**entry, "disabled": False, "reason": ""} for entry in found[name]]
    elif not known.get(f"{anchor}/{point}/{estimate}", 0):
        found["divergence"] = [
            {**entry, "disabled": entry["disabled"] and not entry["selected"]} for entry in found["divergence"]
        ]
    return found


def preset_options(analysis: Row, view: View, at: Row) -> list[Row]:
    """The presets, the one first that the analysis was asked for with; `custom` where a view's thresholds are none's.

    The option of the analysis's own thresholds has no value: it is what an address without a preset shows.
    """
    thresholds = ("eps_low", "eps_high", "dual_clip", "delta_low", "delta_high", "weight_cap")
    sets = {name: View(divergence=view.divergence, preset=name or None).parameters(analysis) for name in ("", *PRESETS)}

    def alike(one: Row, other: Row) -> bool:
        return all(one[name] == other[name] for name in thresholds)

    own = next((name for name in PRESETS if alike(sets[name], sets[""])), None)
    candidates = [name for name in (view.preset or "", *sets) if name != own]  # under KL some presets are alike
    shown = next((name for name in candidates if alike(sets[name], at)), None)
    labels = {"": "as analysed" if own is None else f"{words.PRESETS[own]}, as analysed"} | {
        name: label for name, label in words.PRESETS.items() if name != own
    }
    found = [
        {"value": name, "label": label, "disabled": False, "reason": "", "selected": name == shown}
        for name, label in labels.items()
    ]
    if shown is None:
        base = view.preset or ""
        found.insert(0, {"value": base, "label": "custom", "disabled": True, "reason": "", "selected": True})
    return found


def _step(step: Row, chosen: int | None) -> Row:
    span = "" if (step["span"] or 1) == 1 else f" (spans {step['span']})"
    return {
        "value": str(step["step"]),
        "label": f"step {step['step']}{span}",
        "selected": step["step"] == chosen,
        "disabled": not step["finished"],
        "reason": "" if step["finished"] else "still being scored",
    }


def reasons(found: dict[str, list[Row]]) -> list[Row]:
    """One line a reason, naming what it rules out."""
    lines: dict[str, list[str]] = {}
    for name in ("anchor", "evaluated_at", "divergence"):
        for entry in found[name]:
            if entry["reason"]:
                lines.setdefault(entry["reason"], []).append(entry["label"].partition(",")[0])
    return [{"what": ", ".join(labels), "reason": reason} for reason, labels in lines.items()]
