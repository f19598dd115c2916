"""DPPO: twelve methods from one rule, `dppo_{binary,topk,exact}_{tv,kl}_{rollout,old}`.

The anchor is the policy that the divergence, the direction and the weight are taken from. From `old` that is verl's
form; what weighs otherwise than it masks stands in `dppo_variations`.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_dppo, truncated_ratio
from dppo_core.methods.registry import Parameter, method
from dppo_core.profiles import PROFILES

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.masks import Decision
    from dppo_core.tokens import TokenArrays

__all__ = ["DELTA", "FORMULA", "RULE", "decide", "thresholds"]

Variants = dict[str, dict[str, Parameter]]

DELTA = {"tv": 0.15, "kl": 0.05}  # arXiv:2602.04879 §5
_POLICY = {"rollout": ("μ", "r"), "old": ("π_old", "r′")}
RULE = """Drop iff (A > 0 and {r} > 1 and D > δ_high) or (A < 0 and {r} < 1 and D > δ_low), D = {divergence};
coef = keep·{weight}·A."""
FORMULA = {
    ("binary", "tv"): ("|π(a) − {p}(a)|", "Eq. 13"),
    ("binary", "kl"): ("KL of {{a, rest}} from {p} to π", "Eq. 14"),
    ("topk", "tv"): ("TV of {p} and π over the top-K of {p}, a and one bucket for the rest", "Eq. 15"),
    ("topk", "kl"): ("KL({p}‖π) over the top-K of {p}, a and one bucket for the rest", "Eq. 16"),
    ("exact", "tv"): ("½ Σ|{p} − π| over the vocabulary", "Eq. 12"),
    ("exact", "kl"): ("KL({p}‖π) over the vocabulary", "Eq. 12"),
}
_LABEL = {"binary": "Binary", "topk": "Top-K", "exact": "exact"}


def thresholds(delta: float, weight_cap: float | None, profile: str = "exact") -> dict[str, Parameter]:
    """A variant with one δ for both signs."""
    return {"delta_low": delta, "delta_high": delta, "weight_cap": weight_cap, "profile": profile}


_SENSITIVITY = {"tv": (0.1, 0.15, 0.2), "kl": (0.05, 0.1, 0.15)}  # App. F.4
_TV_ONLY: Variants = {
    "paper-scaling-lora": thresholds(0.15, 5.0),
    "prime-rl": thresholds(0.2, None, "prime-rl"),  # the mask of `prime_rl`
    "zaya1": thresholds(0.1, None),  # of these two only δ is known here
    "tmax": thresholds(0.1, None),
}


def _frameworks(metric: str, estimate: str, anchor: str) -> Variants:
    """Each framework's defaults. Where δ is set by a clip ratio (verl, Stable-RL, slime) it is .2 for KL too; TRL,
    verl and SkyRL recommend .05."""
    script = thresholds(DELTA[metric], 10_000.0, "verl")  # verl's example script
    if estimate == "exact":
        return {}
    if anchor == "old":
        if estimate == "topk":
            return {}
        return {
            "verl": thresholds(0.2, 3.0, "verl"),  # `dppo_tv`, `dppo_kl` as they are unless bypass_mode is set
            "verl-script": script,
            "skyrl": thresholds(0.2, None, "skyrl"),  # what it falls back to without rollout log-probs
            "slime": thresholds(0.2, 20.0, "slime"),  # forks
        }
    common = {
        "paper-stability": thresholds(DELTA[metric], None),
        "paper-scaling": thresholds(0.2 if metric == "tv" else 0.05, 5.0),
        "stable-rl": thresholds(0.2, 3.0, "stable-rl"),
        "trl": thresholds(0.15, 20.0, "trl"),
    }
    if estimate == "topk":
        return common
    return {
        **common,
        "trl-5956": thresholds(0.2, 20.0, "trl"),
        "verl": thresholds(0.2, 3.0, "verl"),  # with bypass_mode
        "verl-script": script,
        "open-instruct": thresholds(0.1, None, "open-instruct"),
        "skyrl": thresholds(0.2, None, "skyrl"),
        "rllm": thresholds(0.2, None, "rllm"),
        **{f"sensitivity-{delta}": thresholds(delta, None) for delta in _SENSITIVITY[metric]},
        **(_TV_ONLY if metric == "tv" else {}),
    }


def decide(
    tokens: TokenArrays, pair: tuple[str, str, str], delta_low: float, delta_high: float, profile: str
) -> Decision:
    """Eq. 12 of the pair (metric, estimate, anchor), with the profile's binary KL and its convention for A = 0."""
    return keep_dppo(
        tokens.divergence(*pair, profile),
        tokens.log_ratio(pair[2]),
        tokens.advantage,
        delta_low,
        delta_high,
        PROFILES[profile].zero_advantage,
    )


def _register_dppo(estimate: str, metric: str, anchor: str) -> None:
    policy, ratio = _POLICY[anchor]
    divergence, equation = FORMULA[estimate, metric]
    delta = DELTA[metric]
    stored = () if estimate == "binary" else (f"{metric}_{estimate}_{anchor}",)

    def dppo(
        tokens: TokenArrays,
        *,
        delta_low: float = delta,
        delta_high: float = delta,
        weight_cap: float | None = None,
        profile: str = "exact",
    ) -> tuple[Tensor, Tensor]:
        decision = decide(tokens, (metric, estimate, anchor), delta_low, delta_high, profile)
        return coefficients(decision, truncated_ratio(tokens.log_ratio(anchor), weight_cap), tokens.advantage)

    dppo.__doc__ = RULE.format(r=ratio, divergence=divergence.format(p=policy), weight=f"min({ratio}, C)")
    method(
        f"dppo_{estimate}_{metric}_{anchor}",
        f"DPPO {_LABEL[estimate]} {metric.upper()}, from {policy}",
        source=f"arXiv:2602.04879 Eq. 12, {equation}" if equation != "Eq. 12" else "arXiv:2602.04879 Eq. 12",
        status="read",
        needs=(f"logp_{anchor}", "logp_new", *stored),
        variants=_frameworks(metric, estimate, anchor),
    )(dppo)


for _anchor, _estimate, _metric in product(("rollout", "old"), ("binary", "topk", "exact"), ("tv", "kl")):
    _register_dppo(_estimate, _metric, _anchor)
