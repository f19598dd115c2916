"""What sets two analyses apart, in words: the rows of a table of definitions, and what cannot be compared, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from web.numbers import UNKNOWN, count, number, plain
from web.words import ANCHORS, DIVERGENCES, POINTS, pair_arrow

__all__ = ["cautions", "definitions"]

Row = Mapping[str, Any]
THRESHOLDS = {
    "eps_low": "ε_low",
    "eps_high": "ε_high",
    "dual_clip": "dual clip c",
    "delta_low": "δ_low",
    "delta_high": "δ_high",
    "weight_cap": "weight cap C",
}
RAW = {"raw": "raw", "processed": "processed", None: "not said"}


def definitions(a: Row, b: Row) -> list[dict[str, Any]]:
    """The rows of a table: name, either side's words, and whether they differ. Sides: rows of `compare_definitions`."""
    told = zip(_told(a).items(), _told(b).values(), strict=True)
    return [{"name": name, "a": of_a, "b": of_b, "differs": of_a != of_b} for (name, of_a), of_b in told]


def _told(side: Row) -> dict[str, str]:
    return {
        "Steps": _steps(side),
        "Tokens scored": count(side["n_tokens"]),
        "Anchor": ANCHORS[side["anchor"]],
        "Evaluation point": POINTS[side["evaluated_at"]],
        "DPPO’s divergence": DIVERGENCES[side["divergence"]],
        "ε_low, ε_high": f"{plain(side['eps_low'])}, {plain(side['eps_high'])}",
        "dual clip": "none" if side["dual_clip"] is None else plain(side["dual_clip"]),
        "δ_low, δ_high": f"{plain(side['delta_low'])}, {plain(side['delta_high'])}",
        "weight cap C": "∞" if side["weight_cap"] is None else plain(side["weight_cap"]),
        "Policies": "as logged, no model scored" if side["source"] == "logged" else "scored by checkpoint",
        "Computed in": UNKNOWN if side["source"] == "logged" else f"{side['dtype']}, {side['device'] or UNKNOWN}",
        "OLD to NEW": _span(side),
        "Top-K": f"K = {side['top_k']} ({side['topk_mode']})",
        "Sampled at": f"T = {plain(side['temperature'])}, top-p {plain(side['top_p'])}, "
        + (f"top-k {side['sampling_top_k']}" if side["sampling_top_k"] > 1 else "no top-k"),
        "Logged log-probs": RAW[side["logprobs_mode"]],
        "Noise floor, TV": number(side["noise_tv"]),
    }


def _steps(side: Row) -> str:
    if not side["n_steps"]:
        return "none scored yet"
    if side["n_steps"] == 1:
        return f"step {side['first_step']}"
    return f"{count(side['n_steps'])} steps, {side['first_step']} to {side['last_step']}"


def _span(side: Row) -> str:
    least, most = side["least_span"], side["most_span"]
    if least is None:
        return UNKNOWN
    span = str(least) if least == most else f"{least} to {most}"
    return "1 step" if span == "1" else f"{span} steps"


def cautions(a: Row, b: Row) -> list[str]:
    """What makes numbers of the two sides not comparable, or less so; nothing where only the data differ."""
    found = []
    pairs = [pair_arrow(side["anchor"], side["evaluated_at"]) for side in (a, b)]
    if pairs[0] != pairs[1]:
        found.append(
            f"Not comparable: A measures {pairs[0]} and B {pairs[1]}. Ratios, divergences and what is dropped are of "
            "different pairs of policies."
        )
    if a["divergence"] != b["divergence"]:
        kinds = [DIVERGENCES[side["divergence"]] for side in (a, b)]
        found.append(f"DPPO decides by {kinds[0]} in A and by {kinds[1]} in B: their δ are on different scales.")
    found += _thresholds(a, b)
    if a["divergence"].startswith("topk") and (a["top_k"], a["topk_mode"]) != (b["top_k"], b["topk_mode"]):
        found.append("The top-K sets differ: a finer partition never has the smaller divergence.")
    found += _policies(a, b) + _sampling(a, b)
    return found


def _thresholds(a: Row, b: Row) -> list[str]:
    names = [name for name in THRESHOLDS if a[name] != b[name]]
    if a["divergence"] != b["divergence"]:
        names = [name for name in names if not name.startswith("delta")]
    if not names:
        return []
    said = ", ".join(f"{THRESHOLDS[name]} {_setting(a[name])} and {_setting(b[name])}" for name in names)
    return [f"Thresholds differ ({said}): a difference in what is dropped may be theirs and not the policies’."]


def _setting(value: float | None) -> str:
    return "none" if value is None else plain(value)


def _policies(a: Row, b: Row) -> list[str]:
    found = []
    if a["source"] != b["source"]:
        found.append("One side’s policies were scored from checkpoints, the other’s are the trainer’s own log-probs.")
    elif a["dtype"] != b["dtype"] and a["source"] == "scored":
        floors = " and ".join(number(side["noise_tv"]) for side in (a, b))
        found.append(
            f"Computed in {a['dtype']} and {b['dtype']} (noise floors, TV: {floors}): differences below the larger "
            "one are rounding."
        )
    if _span(a) != _span(b) and "end" in (a["evaluated_at"], b["evaluated_at"]):
        found.append(f"NEW lies {_span(a)} after OLD in A and {_span(b)} in B: the longer one has more updates in it.")
    return found


def _sampling(a: Row, b: Row) -> list[str]:
    found = []
    if a["temperature"] != b["temperature"]:
        found.append(
            f"Sampled at T = {plain(a['temperature'])} and {plain(b['temperature'])}: the same model has other "
            "probabilities, and so other divergences."
        )
    if any(a[name] != b[name] for name in ("top_p", "sampling_top_k", "logprobs_mode")):
        found.append("Truncation or the kind of logged log-probs differs: a difference in mismatch may come from that.")
    if a["tokenizer"] != b["tokenizer"]:
        found.append("The runs name different tokenizers: token probabilities may be of different pieces.")
    return found
