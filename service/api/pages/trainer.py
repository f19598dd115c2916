"""What the Disagreement page says of the trainer's own mask, where the log has it."""

from __future__ import annotations

from typing import Any

from service.api.pages.frame import Frame
from service.api.pages.html import url
from service.schemas.view import TrainerView
from web import words
from web.numbers import count, number, percent

__all__ = ["trainer_links", "trainer_table"]

Row = dict[str, Any]
WHY = {
    "near": "near the threshold",
    "direction": "another direction",
    "threshold": "another threshold",
    "other": "not explained",
}


def _view(found: Frame) -> TrainerView:
    """The page's view, but where the trainer decided: its own π."""
    return TrainerView(**{name: value for name, value in found.view.common.items() if name != "evaluated_at"})


def trainer_links(found: Frame) -> Row:
    """Where the rows and their SQL can be taken home."""
    query = _view(found).chosen
    place = ("api", "v1", "analyses", found.at["analysis"], "tables", "trainer_agreement")
    return {
        f"{kind}.trainer_agreement": url(*place, query={**query, "format": kind}) for kind in ("csv", "parquet", "sql")
    }


def trainer_table(found: Frame) -> Row:
    """PPO's mask and DPPO's beside the trainer's, by sign of A; `has_trainer`: whether there is one."""
    at = _view(found).parameters(found.row)
    (logged,) = found.lens.table("has_trainer_mask", at).to_pylist()
    model: Row = {**trainer_links(found), **logged, "trainer_rows": []}
    if logged["has_trainer"]:
        shown = {"ppo": "PPO", f"dppo_{at['divergence']}": f"DPPO, {words.DIVERGENCES[at['divergence']]}"}
        rows = found.lens.table("trainer_agreement", at).to_pylist()
        kept = [row for row in rows if row["method"] in shown and row["sign"]]
        model["trainer_rows"] = [_row(row, shown[row["method"]]) for row in kept]
    return model


def _row(row: Row, method: str) -> Row:
    known = {name: row[f"n_differ_{name}"] for name in WHY}
    return {
        "method": f"{method}, {words.SIGNS[row['sign']]}",
        "n": count(row["n"]),
        "alike": percent(row["n_both_keep"] + row["n_both_drop"], row["n"]),
        "kappa": number(row["kappa"]),
        "both": count(row["n_both_drop"]),
        "only_trainer": count(row["n_only_trainer_drops"]),
        "only_ours": count(row["n_only_ours_drops"]),
        "near": count(row["n_near_threshold"]),
        "why": ", ".join(f"{count(n)} {WHY[name]}" for name, n in known.items() if n) or "–",
        "unknown": count(row["n_unknown"]),
    }
