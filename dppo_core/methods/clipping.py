"""Clipping the ratio of the sampled token: PPO and its relatives, and two masks of the DPPO paper's ablations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_ppo, keep_unless, truncated_ratio
from dppo_core.methods.registry import Parameter, method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []

_SYMMETRIC: dict[str, Parameter] = {"eps_low": 0.2, "eps_high": 0.2, "dual_clip": None}
_DUAL: dict[str, Parameter] = {**_SYMMETRIC, "dual_clip": 3.0}


@method(
    "ppo_old",
    "PPO / GRPO, from π_old",
    source="arXiv:1707.06347 Eq. 7; dual clip arXiv:1912.09729 Eq. 5",
    status="read",
    needs=("logp_old", "logp_new"),
    variants={
        "paper-stability": {"eps_low": 0.2, "eps_high": 0.28},  # arXiv:2602.04879 §5
        "paper-scaling": {"eps_low": 0.2, "eps_high": 0.27},  # §7
        "dapo": {"eps_low": 0.2, "eps_high": 0.28},  # arXiv:2503.14476
        "verl": _DUAL,
        "trl": _SYMMETRIC,  # `delta`, where set, is the dual clip
        "skyrl": _SYMMETRIC,
        "skyrl-dual-clip": _DUAL,
        "nemo-rl": _SYMMETRIC,
        "slime": _SYMMETRIC,
        "areal": _SYMMETRIC,
        "rllm": _SYMMETRIC,
    },
)
def ppo_old(
    tokens: TokenArrays, *, eps_low: float = 0.2, eps_high: float = 0.28, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """Drop iff (A > 0 and r′ > 1+ε_high) or (A < 0 and r′ < 1−ε_low), with dual clip c also iff A < 0 and r′ > c;
    coef = keep·r′·A."""
    log_ratio = tokens.log_ratio("old")
    decision = keep_ppo(log_ratio, tokens.advantage, eps_low, eps_high, dual_clip)
    return coefficients(decision, truncated_ratio(log_ratio), tokens.advantage)


@method(
    "ppo_rollout",
    "PPO / GRPO, from the rollout policy",
    source="arXiv:1707.06347 Eq. 7 with π_old = μ; arXiv:2602.04879 §5",
    status="read",
    needs=("logp_rollout", "logp_new"),
    variants={
        "paper-stability": {"eps_low": 0.2, "eps_high": 0.28},
        "paper-scaling": {"eps_low": 0.2, "eps_high": 0.27, "weight_cap": 5.0},
        "stable-rl": {**_SYMMETRIC, "weight_cap": 3.0},  # loss_mode ppo
        "verl": _DUAL,  # bypass_mode, loss_type ppo_clip
        "slime": _SYMMETRIC,  # --use-rollout-logprobs
        "areal": _SYMMETRIC,  # neither recomputed nor decoupled
        "open-instruct": {"eps_low": 0.2, "eps_high": 0.272},  # use_vllm_logprobs
        "rllm": _SYMMETRIC,
    },
)
def ppo_rollout(
    tokens: TokenArrays,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
    weight_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Drop iff (A > 0 and r > 1+ε_high) or (A < 0 and r < 1−ε_low), with dual clip c also iff A < 0 and r > c;
    coef = keep·min(r, C)·A."""
    log_ratio = tokens.log_ratio("rollout")
    decision = keep_ppo(log_ratio, tokens.advantage, eps_low, eps_high, dual_clip)
    return coefficients(decision, truncated_ratio(log_ratio, weight_cap), tokens.advantage)


@method(
    "minirl",
    "MiniRL, decoupled PPO",
    source="arXiv:2512.01374; Stable-RL `ppo_recompute`",
    status="read",
    needs=("logp_rollout", "logp_old", "logp_new"),
    variants={
        "paper-stability": {"eps_low": 0.2, "eps_high": 0.28},
        "paper-scaling": {"eps_low": 0.2, "eps_high": 0.27},
        "paper-scaling-tis": {"eps_low": 0.2, "eps_high": 0.27, "weight_cap": 5.0},
        "stable-rl": {**_SYMMETRIC, "weight_cap": 3.0},  # loss_mode ppo_recompute: with TIS
    },
)
def minirl(
    tokens: TokenArrays,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
    weight_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The mask of PPO on r′, the weight of the rollout policy: coef = keep(r′)·min(r, C)·A; with TIS where C < ∞."""
    decision = keep_ppo(tokens.log_ratio("old"), tokens.advantage, eps_low, eps_high, dual_clip)
    return coefficients(decision, truncated_ratio(tokens.log_ratio("rollout"), weight_cap), tokens.advantage)


@method(
    "relaxed_clip",
    "PPO, clipped only where μ(a) ≥ α",
    source="arXiv:2602.04879 §6",
    status="read",
    needs=("logp_rollout", "logp_new"),
    variants={
        # loss_mode ppo_ablation_both, _positive, _negative; its α is clip_ratio_high or clip_ratio_low
        "stable-rl-both": {"weight_cap": 3.0},
        "stable-rl-high": {"sides": "high", "weight_cap": 3.0},
        "stable-rl-low": {"sides": "low", "weight_cap": 3.0},
    },
)
def relaxed_clip(
    tokens: TokenArrays,
    *,
    alpha: float = 0.1,
    sides: str = "both",
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    weight_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r, but a token with μ(a) < α is never clipped: on both sides, or only `high` (A > 0) or `low` (A < 0);
    coef = keep·min(r, C)·A."""
    if sides not in ("both", "high", "low"):
        raise ValueError(f"sides is {sides!r}, not both, high or low")
    log_ratio, advantage = tokens.log_ratio("rollout"), tokens.advantage
    clipped = keep_ppo(log_ratio, advantage, eps_low, eps_high)
    assert tokens.logp_rollout is not None
    rare = tokens.logp_rollout.double() < math.log(alpha)
    if sides != "both":
        rare = rare & (advantage > 0 if sides == "high" else advantage < 0)
    decision = keep_unless(~clipped.keep & ~rare, log_ratio, advantage, tokens.logp_rollout)
    return coefficients(decision, truncated_ratio(log_ratio, weight_cap), advantage)


@method(
    "bad_update",
    "Mask of bad updates only",
    source="arXiv:2602.04879 §5.3",
    status="read",
    needs=("logp_rollout", "logp_new"),
)
def bad_update(tokens: TokenArrays, *, delta: float = 0.5, weight_cap: float | None = None) -> tuple[Tensor, Tensor]:
    """Drop iff A < 0 and μ(a) − π(a) ≥ δ (equality drops here); coef = keep·min(r, C)·A."""
    log_ratio, advantage = tokens.log_ratio("rollout"), tokens.advantage
    moved = tokens.divergence("tv", "binary", "rollout")
    decision = keep_unless((advantage < 0) & (log_ratio < 0) & (moved >= delta), log_ratio, advantage, moved)
    return coefficients(decision, truncated_ratio(log_ratio, weight_cap), advantage)
