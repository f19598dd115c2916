"""Every number of one token, ready to print: the panel beside a response."""

from __future__ import annotations

import math
from typing import Any

from web import words
from web.numbers import count, number, probability, signed
from web.text import visible

__all__ = ["token_model"]

Row = dict[str, Any]
POLICIES = {
    "mu": "logp_rollout",
    "old": "logp_old",
    "new": "logp_new",
    "old_logged": "logp_old_logged",
    "new_logged": "logp_new_logged",
}
DIVERGENCES = ("tv_binary", "kl_binary", "tv_topk", "kl_topk", "pair_tv_exact", "pair_kl_exact", "tv_exact", "kl_exact")


def token_model(token: Row, at: Row) -> Row:
    """The panel's model. `at` holds the view's parameters; decisions are the query's, words and digits are ours."""
    ratio = _exp(token["log_ratio"])
    kind = str(token["cell"] or "masked")
    model = {
        "position": token["position"],
        "kind": kind,
        "token": _shown(token),
        "id": str(token["token_id"]),
        "verdict": words.cell_name(kind, at["evaluated_at"]),
        "ppo": words.decision_ppo(token, at, ratio) if token["counted"] else "not counted: response_mask is 0",
        "dppo": words.decision_dppo(token, at, ratio) if token["counted"] else "not counted: response_mask is 0",
        "trainer": {None: "–", True: "kept it", False: "dropped it"}[token["trainer_keep"]],
        "advantage": signed(token["advantage"]),
        "turn": count(token["turn"]),
        "ratio": number(ratio),
        "log_ratio": signed(token["log_ratio"]),
        "update": signed(token["log_ratio_old"]),
        "mismatch": signed(token["log_mismatch"]),
        "entropy_old": number(token["entropy_old"]),
        "entropy_new": number(token["entropy_new"]),
        "mass_old": number(token["topk_mass_old"]),
        "mass_new": number(token["topk_mass_new"]),
        "divergence": number(token["divergence"]),
    }
    for name, column in POLICIES.items():
        model |= {f"logp_{name}": number(token[column]), f"p_{name}": probability(token[column])}
    return model | {name: number(token[name]) for name in DIVERGENCES}


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(min(value, 700.0))


def _shown(token: Row) -> str:
    return visible(token["token"], 60) if token["token"] is not None else "not decoded"
