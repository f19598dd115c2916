"""What stands below a response: the other responses to its prompt, and its rounds."""

from __future__ import annotations

from typing import Any

from service.api.pages.frame import Frame
from web.numbers import count, number, percent, signed
from web.text import visible

__all__ = ["siblings", "turns"]

Row = dict[str, Any]
MOST = 100  # siblings that are listed


def siblings(found: Frame) -> Row:
    """The responses to the same prompt in the same step, this one among them."""
    rows = found.lens.table("siblings", {**found.at, "limit": MOST, "offset": 0}).to_pylist()
    shown = [_sibling(row, found) for row in rows]
    return {
        "siblings": shown,
        "this": next((row for row in shown if row["here"]), None),
        "has_siblings": len(rows) > 1,
        "siblings_of": visible(rows[0]["group_id"], 40) if rows else "",
        "siblings_cut": len(rows) == MOST,
    }


def _sibling(row: Row, found: Frame) -> Row:
    kept = {name: value for name, value in found.view.chosen.items() if name not in ("at", "beside", "sample_id")}
    here = row["sample_id"] == found.at["sample_id"]
    pair = {**found.view.chosen, "beside": row["sample_id"]}
    return {
        "sample_id": row["sample_id"],
        "sample": visible(row["sample_id"], 48),
        "href": found.href("rollout", **kept, sample_id=row["sample_id"]),
        "here": here,
        "beside": found.href("rollout", **pair),
        "is_beside": row["sample_id"] == found.at["beside"],
        "reward": number(row["reward"]),
        "advantage": signed(row["advantage"]),
        "length": count(row["response_tokens"]),
        "counted": count(row["counted_tokens"]),
        "finished": visible(row["finish_reason"] or "–", 24),
        "ppo_only": count(row["n_ppo_only"]),
        "dppo_only": count(row["n_dppo_only"]),
        "both": count(row["n_both"]),
        "mean_dp": number(row["mean_abs_dp"]),
    }


def turns(found: Frame) -> Row:
    """The rounds of a multi-turn response, where the log has them."""
    rows = found.lens.table("turns", found.at).to_pylist()
    return {"turns": [_turn(row, found) for row in rows], "has_turns": bool(rows)}


def _turn(row: Row, found: Frame) -> Row:
    return {
        "turn": str(row["turn"]),
        "href": found.href("rollout", **{**found.view.chosen, "at": row["first_position"]}),
        "n": count(row["n"]),
        "mean_dp": number(row["mean_abs_dp"]),
        "mismatch": signed(row["mean_mismatch"]),
        "abs_mismatch": number(row["mean_abs_mismatch"]),
        "rated": count(row["n_rated"]),
        **{f"{name}_n": count(row[f"n_{name}"]) for name in ("ppo", "dppo", "disputed")},
        **{f"{name}_share": percent(row[f"n_{name}"], row["n_rated"]) for name in ("ppo", "dppo", "disputed")},
        "near_ppo": count(row["n_near_ppo"]),
        "near_dppo": count(row["n_near_dppo"]),
    }
