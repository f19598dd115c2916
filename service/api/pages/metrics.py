"""What a response's text can be coloured by, how far that reaches, and why some of it is not known."""

from __future__ import annotations

import math
from typing import Any

from service.api.pages.frame import Frame
from web import words
from web.numbers import count, number, signed

__all__ = ["choices", "scale"]

Row = dict[str, Any]
TWO_SIDED = {"ratio", "log_mismatch", "advantage"}
LEVELS = 6  # as in the query `stretch`
NEEDS = {  # the anchor, evaluation point and estimate that a metric stands for; None is the view's own
    "ratio": (None, None, "binary"),
    "tv_binary": (None, None, "binary"),
    "kl_binary": (None, None, "binary"),
    "tv_topk": (None, None, "topk"),
    "kl_topk": (None, None, "topk"),
    "tv_exact": ("old", "end", "exact"),
    "kl_exact": ("old", "end", "exact"),
    "log_mismatch": ("rollout", "start", "binary"),
    "entropy_old": ("old", "start", "exact"),
    "entropy_new": ("old", "end", "exact"),
}


def choices(found: Frame) -> list[Row]:
    """The options of the select `metric`."""
    return [
        {
            "value": name,
            "label": label,
            "selected": name == found.at["metric"],
            "disabled": bool(reason := _missing(name, found)) and name != found.at["metric"],
            "reason": reason,
        }
        for name, label in words.METRICS.items()
    ]


def _missing(name: str, found: Frame) -> str:
    """Why a metric is not known in this analysis; empty where it is."""
    if name not in NEEDS:
        return ""
    anchor, point, estimate = NEEDS[name]
    key = (anchor or found.at["anchor"], point or found.at["evaluated_at"], estimate)
    return "" if found.known.get("/".join(key), 0) else words.unavailable(*key, found.row["source"])


def scale(found: Frame) -> Row:
    """The colours of the view's metric: `reach`, where they are deepest, and what the page says about them."""
    name = found.at["metric"]
    if name == "decision":
        return {"reach": None, "ramp": [], "low": "", "high": "", "said": "", "label": words.METRICS[name]}
    (row,) = found.lens.table("metric_scale", found.at).to_pylist()
    reach = row["reach"]
    sides = ("fall", "rise") if name in TWO_SIDED else ("rise",)
    ramp = [
        f"{side}{at}" for side in sides for at in (range(LEVELS, 0, -1) if side == "fall" else range(1, LEVELS + 1))
    ]
    return {
        "reach": reach or None,
        "ramp": ramp if reach else [],
        "low": _end(name, -reach if name in TWO_SIDED else 0.0) if reach else "",
        "high": _end(name, reach) if reach else "",
        "said": _said(name, row, found),
        "label": words.METRICS[name],
    }


def _end(name: str, value: float) -> str:
    if name == "ratio":
        return f"×{number(math.exp(value))}"
    return signed(value) if name in TWO_SIDED else number(value)


def _said(name: str, row: Row, found: Frame) -> str:
    if row["n"] == 0:
        reason = _missing(name, found) or "no counted token of this step has it"
        return f"Not known here: {reason}."
    if row["reach"] == 0:
        return (
            f"0 at 99 % or more of the {count(row['n'])} counted tokens of step {found.at['step']}: nothing to colour."
        )
    known = "" if row["n"] == row["n_counted"] else f" (known for {count(row['n'])})"
    return (
        f"99 % of the {count(row['n_counted'])} counted tokens of step {found.at['step']}{known} lie within this "
        "range; beyond it the colour stays. Masked tokens take no part."
    )
