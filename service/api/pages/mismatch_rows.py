"""Rows of the mismatch page's tables, and the sentences above them: what named queries found, ready to print."""

from __future__ import annotations

from typing import Any

from web import words
from web.figures.axes import interval
from web.numbers import UNKNOWN, count, number, percent, plain, share, signed

__all__ = ["anchor_rows", "band_rows", "bin_rows", "headline", "lags", "part_row", "truncation_rows"]

Row = dict[str, Any]
PARTS = {"mismatch": "mismatch, μ → π_old", "update": "update, π_old → π", "together": "together, μ → π"}
METHODS = {"ppo": "PPO", "dppo": "DPPO"}
CELLS = ("both_keep", "only_rollout_drops", "only_old_drops", "both_drop")
RARE = (0.01, 0.1, 0.5)  # x of P(μ < x)
AGAINST = {"old": "π_old, scored", "logged": "the trainer’s old_logprobs"}


def headline(whole: dict[str, Row]) -> Row:
    return {
        "head.n": count(whole["mismatch"]["n"]),
        "head.mismatch": number(whole["mismatch"]["mean_abs_log"]),
        "head.mismatch_dp": number(whole["mismatch"]["mean_abs_dp"]),
        "head.update": number(whole["update"]["mean_abs_log"]),
        "head.update_dp": number(whole["update"]["mean_abs_dp"]),
        "head.share": share(whole["mismatch"]["share"]),
        "has_update": whole["update"]["n"] > 0,
    }


def part_row(row: Row) -> Row:
    return {
        "part": PARTS[row["part"]],
        "n": count(row["n"]),
        "mean_log": signed(row["mean_log"]),
        "share": share(row["share"]) if row["part"] != "together" else "",
        **{
            name: number(row[name])
            for name in (
                *("mean_abs_log", "q50_abs_log", "q90_abs_log", "q99_abs_log", "max_abs_log", "k3"),
                *("mean_abs_dp", "q50_abs_dp", "q90_abs_dp", "q99_abs_dp", "max_abs_dp"),
            )
        },
    }


def bin_rows(rows: list[Row]) -> list[Row]:
    """One row a bin of μ(a), mismatch and update side by side."""
    found = []
    for low, high in sorted({(row["p_low"], row["p_high"]) for row in rows}):
        of = {row["part"]: row for row in rows if row["p_low"] == low}
        found.append(
            {
                "bin": interval(low, high),
                "n": count(of["mismatch"]["n"]),
                "share": share(of["mismatch"]["share"]),
                **{
                    f"{part}_{name}": number(of[part][name])
                    for part in ("mismatch", "update")
                    for name in ("q50_abs_log", "q99_abs_log", "q50_abs_dp", "q99_abs_dp")
                },
            }
        )
    return found


def lags(rows: list[Row]) -> Row:
    """Whether the policy that sampled lies behind its step, and the mismatch by how far."""
    known = [row for row in rows if row["lag"] is not None]
    behind = [row for row in known if row["lag"] > 0]
    return {
        "is_stale": bool(behind),
        "stale_responses": count(sum(row["n_responses"] for row in behind)),
        "lag_responses": count(sum(row["n_responses"] for row in rows)),
        "most_behind": str(max((row["lag"] for row in behind), default=0)),
        "lags": [
            {
                "lag": UNKNOWN if row["lag"] is None else plain(row["lag"]),
                "responses": count(row["n_responses"]),
                "tokens": count(row["n_tokens"]),
                "log": number(row["mean_abs_log"]),
                "dp": number(row["mean_abs_dp"]),
            }
            for row in rows
        ],
    }


def band_rows(rows: list[Row]) -> Row:
    found = [row for row in rows if row["bands"] == "found"]
    widest = max(found, key=lambda row: float(row["spacing"]), default=None)
    if widest is not None:
        says = (
            f"Bands found: ln ρ gathers at multiples of {plain(widest['spacing'])} (μ against "
            f"{AGAINST[widest['against']]}). Both sides round their logits to bfloat16; compute the LM head in float32."
        )
    elif not rows or all(row["bands"] == "too few tokens" for row in rows):
        says = "Too few rare tokens to look for bands."
    else:
        says = "No bands found: nothing shows that both sides round their logits to bfloat16."
    return {
        "bands_say": says,
        "bands": [
            {
                "against": AGAINST[row["against"]],
                "spacing": plain(row["spacing"]),
                "n": count(row["n"]),
                "near": count(row["n_near"]),
                "between": count(row["n_between"]),
                "z": signed(row["z"]),
                "bands": row["bands"],
            }
            for row in rows
        ],
        "has_bands": bool(rows),
    }


def anchor_rows(rows: list[Row], at: Row) -> Row:
    """C4: the four cells of each method, by sign, and what the recompute anchor keeps of what μ's mask drops."""
    known = [row for row in rows if row["cell"] in CELLS]
    table = []
    for method, name in METHODS.items():
        for sign in (1, -1):
            of = {row["cell"]: row for row in known if (row["method"], row["sign"]) == (method, sign)}
            if not of:
                continue
            kept = of.get("only_rollout_drops")
            drops = sum(of[cell]["n"] for cell in ("only_rollout_drops", "both_drop") if cell in of)
            table.append(
                {
                    "method": name,
                    "sign": words.SIGNS[sign],
                    **{cell: count(of[cell]["n"] if cell in of else 0) for cell in CELLS},
                    "drops": count(drops),
                    "kept_share": percent(kept["n"] if kept else 0, drops),
                    "kept_dp": number(kept["mean_abs_dp_rollout"] if kept else None),
                    "near": count(sum(row["n_near"] for row in of.values())),
                }
            )
    kept = sum(row["n"] for row in known if (row["method"], row["cell"]) == ("dppo", "only_rollout_drops"))
    both = sum(row["n"] for row in known if (row["method"], row["cell"]) == ("dppo", "both_drop"))
    unknown = sum(row["n"] for row in rows if (row["method"], row["cell"]) == ("dppo", "unknown"))
    return {
        "anchors": table,
        "has_cells": bool(table),
        "has_anchors": any(row["method"] == "dppo" for row in known),
        "no_anchors": not any(row["method"] == "dppo" for row in known),
        "anchor_kept": count(kept),
        "anchor_drops": count(kept + both),
        "anchor_unknown": count(unknown),
        "when": words.when(at["evaluated_at"]) or "as the trainer logged it",
        "delta_names": f"{words.DIVERGENCES[at['divergence']]}, δ = {plain(at['delta_low'])} / "
        f"{plain(at['delta_high'])}",
    }


def truncation_rows(rows: list[Row]) -> Row:
    """C6: P(μ < x | r > C) against P(μ < x), and the weight that truncation takes."""
    table = []
    for cap in sorted({row["cap"] for row in rows}):
        of = {row["p_high"]: row for row in rows if row["cap"] == cap and row["p_low"] == 0}
        bins = [row for row in rows if row["cap"] == cap and row["is_bin"]]
        lost, weight = sum(row["lost"] for row in bins), sum(row["weight"] for row in bins)
        table.append(
            {
                "cap": plain(cap),
                "truncated": count(sum(row["n_truncated"] for row in bins)),
                "lost": number(lost),
                "lost_share": share(lost / weight if weight else None),
                **{f"all_{plain(x)}": share(of[x]["share"]) for x in RARE},
                **{f"hit_{plain(x)}": share(of[x]["share_of_truncated"]) for x in RARE},
            }
        )
    return {"truncation": table, "has_truncation": any(row["n"] for row in rows)}
