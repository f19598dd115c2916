"""Masks decided over a response by a divergence or a likelihood: TRM, VACO, off-policy sequence masking."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_ppo, keep_unless, truncated_ratio
from dppo_core.methods.registry import Parameter, method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []

_TRM: dict[str, dict[str, Parameter]] = {
    "trm-max": {"delta_max": 0.05, "delta_mean": None},  # Algorithm 1
    "trm-avg": {"delta_max": None, "delta_mean": 0.001},
    "combined": {"delta_max": 0.1, "delta_mean": 0.002},
}


def _trm_needs(estimate: str, **_: Parameter) -> tuple[str, ...]:
    both = ("logp_rollout", "logp_new")
    return (*both, f"kl_{estimate}_rollout") if estimate in ("topk", "exact") else both


@method(
    "trm",
    "Trust Region Masking",
    source="arXiv:2512.23075 §4, Algorithm 1",
    status="read",
    level="sequence",
    needs=_trm_needs,
    variants=_TRM,
)
def trm(
    tokens: TokenArrays,
    *,
    delta_max: float | None = 0.05,
    delta_mean: float | None = None,
    estimate: str = "binary",
    profile: str = "exact",
) -> tuple[Tensor, Tensor]:
    """Drop the response iff max_t KL(μ‖π) > δ_max, or its mean over t > δ_mean; coef = keep·r·A.

    The paper's KL is over the full vocabulary (estimate `exact`); what a log has of μ gives a lower bound of it:
    `binary` or `topk`. None: that criterion is off.
    """
    if estimate not in ("binary", "topk", "exact"):
        raise ValueError(f"estimate is {estimate!r}, not binary, topk or exact")
    divergence = tokens.divergence("kl", estimate, "rollout", profile)
    return _trust_region(tokens, divergence, divergence, delta_max, delta_mean)


@method(
    "trm_sampled",
    "Trust Region Masking, from the sampled tokens",
    source="arXiv:2512.23075 §4, Sample-based approximation",
    status="read",
    level="sequence",
    needs=("logp_rollout", "logp_new"),
    variants=_TRM,
)
def trm_sampled(
    tokens: TokenArrays, *, delta_max: float | None = 0.05, delta_mean: float | None = None
) -> tuple[Tensor, Tensor]:
    """Drop the response iff max_t k2 > δ_max, or the mean of k3 > δ_mean; k2 = ½log²r, k3 = r − 1 − log r;
    coef = keep·r·A."""
    log_ratio = tokens.log_ratio("rollout")
    return _trust_region(tokens, 0.5 * log_ratio.square(), log_ratio.expm1() - log_ratio, delta_max, delta_mean)


def _trust_region(
    tokens: TokenArrays, for_max: Tensor, for_mean: Tensor, delta_max: float | None, delta_mean: float | None
) -> tuple[Tensor, Tensor]:
    largest = tokens.to_tokens(tokens.per_sequence(for_max, "max"))
    mean = tokens.to_tokens(tokens.per_sequence(for_mean))
    outside = (largest > (math.inf if delta_max is None else delta_max)) | (
        mean > (math.inf if delta_mean is None else delta_mean)
    )
    kept = keep_unless(outside & (tokens.advantage != 0), largest, mean)
    return coefficients(kept, truncated_ratio(tokens.log_ratio("rollout")), tokens.advantage)


@method(
    "vaco",
    "VACO, as open-instruct has it",
    source="open-instruct `compute_rho_correction`; arXiv:2603.01365",
    status="read",
    level="sequence",
    needs=("logp_rollout", "logp_old", "logp_new"),
    variants={
        "open-instruct": {"eps_high": 0.272, "log_clamp": 10.0},  # rho_mask_tv_divergence; its bound is off unless set
        "open-instruct-1755-tv": {"divergence": "tv", "eps_high": 0.272, "log_clamp": 10.0},
        "open-instruct-1755-kl": {"divergence": "kl", "profile": "open-instruct", "eps_high": 0.272, "log_clamp": 10.0},
    },
)
def vaco(
    tokens: TokenArrays,
    *,
    delta: float = 0.2,
    divergence: str = "ratio",
    cap: float | None = 2.0,
    log_clamp: float | None = None,
    profile: str = "exact",
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Drop iff the response's mean |ρ − 1| > δ and A·log ρ > 0, and where PPO on r′ does;
    coef = keep·min(ρ, C)·r′·A.

    divergence: `ratio` for |ρ − 1|; `tv` or `kl` for the binary divergence of μ and π_old, as newer open-instruct
    averages it, `kl` in the arithmetic of `profile`. log_clamp bounds each token's log ρ.
    """
    log_rho = tokens.log_mismatch
    if log_clamp is not None:
        log_rho = log_rho.clamp(-log_clamp, log_clamp)
    if divergence == "ratio":
        moved = log_rho.expm1().abs()
    elif divergence in ("tv", "kl"):  # of rollout → old, so with π_old as the new policy
        moved = replace(tokens, logp_new=tokens.logp_old, statistics={}).divergence(
            divergence, "binary", "rollout", profile
        )
    else:
        raise ValueError(f"divergence is {divergence!r}, not ratio, tv or kl")
    mean = tokens.to_tokens(tokens.per_sequence(moved))
    away = (tokens.advantage * log_rho) > 0
    log_ratio = tokens.log_ratio("old")
    kept = keep_unless((mean > delta) & away, mean, log_rho)
    kept = kept & keep_ppo(log_ratio, tokens.advantage, eps_low, eps_high, dual_clip)
    weight = truncated_ratio(log_rho, cap) * truncated_ratio(log_ratio)
    return coefficients(kept, weight, tokens.advantage)


def _opsm_needs(anchor: str, surrogate: str, **_: Parameter) -> tuple[str, ...]:
    return (*(f"logp_{name}" for name in ("rollout", "old") if name in (anchor, surrogate)), "logp_new")


@method(
    "opsm",
    "Off-policy sequence masking",
    source="arXiv:2512.02556 Eq. 9; TRL `get_off_policy_mask`; slime `compute_opsm_mask`",
    status="read",
    level="sequence",
    needs=_opsm_needs,
    variants={
        "deepseek-v3.2": {"surrogate": "rollout"},  # π_old is what sampled; δ and ε are not published
        "trl": {"eps_low": 0.2, "eps_high": 0.2},
        "slime": {"delta": 1e-4, "anchor": "old", "eps_low": 0.2, "eps_high": 0.2},
        "slime-rollout": {"delta": 1e-4, "surrogate": "rollout", "eps_low": 0.2, "eps_high": 0.2},
    },
)
def opsm(
    tokens: TokenArrays,
    *,
    delta: float = 0.5,
    anchor: str = "rollout",
    surrogate: str = "old",
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Drop iff A < 0 and the response's mean of log μ − log π > δ, and where PPO on r′ does; coef = keep·r′·A.

    anchor: the policy of the mean, `rollout` (μ) or `old`; surrogate: that of PPO's ratio. TRL multiplies its vLLM
    correction on top.
    """
    mean = -tokens.to_tokens(tokens.per_sequence(tokens.log_ratio(anchor)))
    kept = keep_unless((tokens.advantage < 0) & (mean > delta), mean)
    log_ratio = tokens.log_ratio(surrogate)
    kept = kept & keep_ppo(log_ratio, tokens.advantage, eps_low, eps_high, dual_clip)
    return coefficients(kept, truncated_ratio(log_ratio), tokens.advantage)
