"""Correcting the mismatch ρ = π_old/μ over a whole response: truncated weights, and responses that are rejected.

The form is that of `dppo_core.methods.mismatch` (its modes and PPO masks), with a statistic of the response in the
place of the token's ρ, or of its r in the bypass modes. A statistic on a bound keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from dppo_core.masks import truncated_ratio
from dppo_core.methods.mismatch import corrected, needs_of_mode
from dppo_core.methods.registry import Parameter, method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []

_SYMMETRIC: dict[str, Parameter] = {"eps_low": 0.2, "eps_high": 0.2}
_VERL: dict[str, Parameter] = {**_SYMMETRIC, "dual_clip": 3.0}
_VERL_RS: dict[str, Parameter] = {**_VERL, "log_clamp": 20.0}
_BYPASS: dict[str, Parameter] = {**_VERL_RS, "mode": "bypass-ppo-clip"}
_REINFORCE: dict[str, Parameter] = {"mode": "bypass-reinforce", "log_clamp": 20.0}
_RS_SOURCE = "verl `compute_rollout_rejection_mask`"

OfTokens = Callable[["Tensor"], "Tensor"]


def _total(tokens: TokenArrays, log_clamp: float | None = None) -> OfTokens:
    """log ∏ρ of each token's response, each log ρ bounded to ±`log_clamp`."""
    return lambda log_s: tokens.to_tokens(tokens.per_sequence(_bounded(log_s, log_clamp), "sum"))


def _mean(tokens: TokenArrays, log_clamp: float | None = None) -> OfTokens:
    """mean log ρ of each token's response, the log of the geometric mean."""
    return lambda log_s: tokens.to_tokens(tokens.per_sequence(_bounded(log_s, log_clamp)))


def _bounded(log_s: Tensor, log_clamp: float | None) -> Tensor:
    return log_s if log_clamp is None else log_s.clamp(-log_clamp, log_clamp)


def _outside(value: OfTokens, lower: float | None, upper: float | None, statistic: str = "ratio") -> OfTokens:
    """Whether exp(value) is below `lower` or above `upper`; its inverse with statistic `k1`."""
    if statistic not in ("ratio", "k1"):
        raise ValueError(f"statistic is {statistic!r}, not ratio or k1")
    low, high = math.log(lower) if lower else -math.inf, math.log(upper) if upper else math.inf
    sign = 1.0 if statistic == "ratio" else -1.0
    return lambda log_s: (sign * value(log_s) < low) | (sign * value(log_s) > high)


def _importance(tokens: TokenArrays, importance: str, cap: float | None) -> OfTokens | None:
    """min(W, C): W is ρ (`ratio`), ∏ρ (`sequence`), exp(mean log ρ) (`geometric`), or no weight (`none`)."""
    logs = {"none": None, "ratio": lambda log_s: log_s, "sequence": _total(tokens), "geometric": _mean(tokens)}
    if importance not in logs:
        raise ValueError(f"importance is {importance!r}, not one of: {', '.join(logs)}")
    chosen = logs[importance]
    return None if chosen is None else lambda log_s: truncated_ratio(chosen(log_s), cap)


@method(
    "seq_tis",
    "Seq-TIS, truncated weight of the response",
    source="verl `compute_rollout_correction_weights`",
    status="read",
    level="sequence",
    needs=needs_of_mode,
    variants={
        "verl": _VERL,
        "verl-bypass-reinforce": {"mode": "bypass-reinforce"},  # bypass_pg_is
        "skyrl": {"cap": 5.0, **_SYMMETRIC},
        "trl": {"cap": 3.0, **_SYMMETRIC},  # vllm_importance_sampling_mode sequence_truncate
        "areal": {"cap": 5.0, "importance": "geometric", **_SYMMETRIC},  # rejection_sampling: sequence, clamp, ratio
    },
)
def seq_tis(
    tokens: TokenArrays,
    *,
    cap: float | None = 2.0,
    importance: str = "sequence",
    mode: str = "decoupled",
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′; coef = keep·r′·min(∏ρ, C)·A, the product over the response. Importance `geometric`: exp(mean log ρ)
    in its place. Mode `bypass-reinforce`: coef = min(∏r, C)·A, nothing dropped."""
    return corrected(tokens, mode, (eps_low, eps_high, dual_clip), None, _importance(tokens, importance, cap))


@method(
    "seq_mis",
    "Seq-MIS, masked responses",
    source=f"{_RS_SOURCE}; SkyRL `compute_sequence_mask`; TRL `vllm_importance_sampling_mode`; slime mis.py",
    status="read",
    level="sequence",
    needs=needs_of_mode,
    variants={
        "verl": {"statistic": "k1", **_VERL_RS},  # rollout_rs seq_sum_k1, rollout_rs_threshold "0.5_2.0"
        "verl-seq-tis": {"statistic": "k1", "importance": "sequence", "rho_cap": 2.0, **_VERL_RS},  # its Seq-MIS preset
        "verl-icepop": {"upper": 5.0, "importance": "sequence", **_VERL},  # rollout_is sequence, "0.5_5.0"
        "verl-bypass": {"statistic": "k1", **_BYPASS},
        "verl-bypass-reinforce": {"statistic": "k1", **_REINFORCE},
        "skyrl": _SYMMETRIC,  # sequence_mask_metric product
        "slime": {"importance": "sequence", "rho_cap": 2.0, **_SYMMETRIC},  # mis.py at level sequence, unnormalised
        # vllm_importance_sampling_mode sequence_mask, the default
        "trl": {"lower": None, "upper": 3.0, "importance": "sequence", **_SYMMETRIC},
        # rejection_sampling: level sequence, action mask, metric ratio, agg sum
        "areal": {"lower": None, "upper": 5.0, "importance": "geometric", **_SYMMETRIC},
    },
)
def seq_mis(
    tokens: TokenArrays,
    *,
    statistic: str = "ratio",
    lower: float | None = 0.5,
    upper: float | None = 2.0,
    importance: str = "none",
    rho_cap: float | None = None,
    mode: str = "decoupled",
    log_clamp: float | None = None,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′, and drop the response iff ∏ρ < lower or ∏ρ > upper, with statistic `k1` iff 1/∏ρ does (verl);
    coef = keep·r′·min(W, C)·A with importance W: `none` 1, `ratio` ρ, `sequence` ∏ρ, `geometric` exp(mean log ρ).
    In the bypass modes ∏r is the statistic, and coef = keep·r·A or keep·min(W(r), C)·A.

    log_clamp bounds each token's log ρ in the statistic.
    """
    outside = _outside(_total(tokens, log_clamp), lower, upper, statistic)
    return corrected(tokens, mode, (eps_low, eps_high, dual_clip), outside, _importance(tokens, importance, rho_cap))


@method(
    "geo_rs",
    "Geo-RS, rejection on the geometric mean",
    source=f"{_RS_SOURCE}; SkyRL `compute_sequence_mask`; NeMo-RL seq-mask-tis; AReaL `apply_rejection_sampling`",
    status="read",
    level="sequence",
    needs=needs_of_mode,
    variants={
        "verl": {"statistic": "k1", **_VERL_RS},  # rollout_rs seq_mean_k1, rollout_rs_threshold "0.999_1.001"
        "verl-token-tis": {"statistic": "k1", "importance": "ratio", "rho_cap": 2.0, **_VERL_RS},
        "verl-seq-tis": {"statistic": "k1", "importance": "sequence", "rho_cap": 2.0, **_VERL_RS},
        "verl-bypass": {"statistic": "k1", **_BYPASS},
        "verl-bypass-reinforce": {"statistic": "k1", **_REINFORCE},
        "skyrl": {"lower": 0.99, "upper": 1.01, **_SYMMETRIC},
        "slime": {"lower": 0.9999, "upper": 1.0001, "importance": "geometric", "rho_cap": 1.0001, **_SYMMETRIC},
        "nemo-rl": {"upper": 1.002, "importance": "ratio", **_SYMMETRIC},  # seq-mask-tis, its reference bounds
        # rejection_sampling: level sequence, action mask, metric ratio, agg mean
        "areal": {"lower": None, "upper": 5.0, "importance": "geometric", **_SYMMETRIC},
    },
)
def geo_rs(
    tokens: TokenArrays,
    *,
    statistic: str = "ratio",
    lower: float | None = 0.999,
    upper: float | None = 1.001,
    importance: str = "none",
    rho_cap: float | None = None,
    mode: str = "decoupled",
    log_clamp: float | None = None,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′, and drop the response iff exp(mean log ρ) is below lower or above upper, with statistic `k1` iff its
    inverse is (verl); coef = keep·r′·min(W, C)·A. Importance, modes and log_clamp as of `seq_mis`."""
    outside = _outside(_mean(tokens, log_clamp), lower, upper, statistic)
    return corrected(tokens, mode, (eps_low, eps_high, dual_clip), outside, _importance(tokens, importance, rho_cap))


@method(
    "k3_rs",
    "K3-RS, rejection on the estimated KL",
    source=f"{_RS_SOURCE}; AReaL `apply_rejection_sampling`",
    status="read",
    level="sequence",
    needs=needs_of_mode,
    variants={
        "verl": _VERL_RS,  # rollout_rs seq_mean_k3
        "verl-token-tis": {"importance": "ratio", "rho_cap": 2.0, **_VERL_RS},
        "verl-seq-tis": {"importance": "sequence", "rho_cap": 2.0, **_VERL_RS},
        "verl-max-k2": {"statistic": "k2", "aggregate": "max", **_VERL_RS},  # rollout_rs seq_max_k2
        "verl-bypass": _BYPASS,
        # rejection_sampling: level sequence, action mask, metric kl_k3, agg mean
        "areal": {"statistic": "k3-inverse", "upper": 5.0, "importance": "ratio", **_SYMMETRIC},
    },
)
def k3_rs(
    tokens: TokenArrays,
    *,
    statistic: str = "k3",
    aggregate: str = "mean",
    upper: float = 0.01,
    importance: str = "none",
    rho_cap: float | None = None,
    mode: str = "decoupled",
    log_clamp: float | None = None,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′, and drop the response iff the mean over it of k3 = ρ − 1 − log ρ exceeds upper;
    coef = keep·r′·min(W, C)·A. Statistic also `k2` = ½log²ρ or `k3-inverse` = 1/ρ − 1 + log ρ (AReaL); aggregate also
    `sum` or `max`. Importance, modes and log_clamp as of `seq_mis`."""
    if aggregate not in ("mean", "sum", "max"):
        raise ValueError(f"aggregate is {aggregate!r}, not mean, sum or max")
    estimates: dict[str, OfTokens] = {
        "k2": lambda log_s: 0.5 * log_s.square(),
        "k3": lambda log_s: log_s.expm1() - log_s,
        "k3-inverse": lambda log_s: (-log_s).expm1() + log_s,
    }
    if statistic not in estimates:
        raise ValueError(f"statistic is {statistic!r}, not one of: {', '.join(estimates)}")

    def outside(log_s: Tensor) -> Tensor:
        estimate = estimates[statistic](_bounded(log_s, log_clamp))
        return tokens.to_tokens(tokens.per_sequence(estimate, aggregate)) > upper

    return corrected(tokens, mode, (eps_low, eps_high, dual_clip), outside, _importance(tokens, importance, rho_cap))


@method(
    "outlier_rs",
    "Rejection of responses with an outlier token",
    source="SkyRL `compute_outlier_token_mask`; slime mis.py `calculate_veto_mask`",
    status="read",
    level="sequence",
    needs=("logp_rollout", "logp_old", "logp_new"),
    variants={"skyrl": _SYMMETRIC, "slime": {"upper": None, **_SYMMETRIC}},  # rs_veto_threshold, with nothing else
)
def outlier_rs(
    tokens: TokenArrays,
    *,
    lower: float | None = 1e-4,
    upper: float | None = 100.0,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′, and drop the response iff any of its tokens has ρ < lower or ρ > upper; coef = keep·r′·A."""
    outlier = _outside(lambda log_s: log_s, lower, upper)

    def outside(log_s: Tensor) -> Tensor:
        return tokens.to_tokens(tokens.per_sequence(outlier(log_s).double(), "sum")) > 0

    return corrected(tokens, "decoupled", (eps_low, eps_high, dual_clip), outside, None)


@method(
    "icepop_sequence",
    "IcePop over the response",
    source="open-instruct `compute_rho_correction`, rho_mask_sequence_level",
    status="read",
    level="sequence",
    needs=("logp_rollout", "logp_old", "logp_new"),
    variants={"open-instruct": {"log_clamp": 10.0, "eps_low": 0.2, "eps_high": 0.272}},  # its bounds are off unless set
)
def icepop_sequence(
    tokens: TokenArrays,
    *,
    lower: float | None = 0.5,
    upper: float | None = 5.0,
    rho_cap: float | None = 2.0,
    log_clamp: float | None = None,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """ρ̄ = exp(mean log ρ); PPO on r′, and drop the response iff ρ̄ < lower or ρ̄ > upper; coef = keep·r′·min(ρ̄, C)·A.

    log_clamp bounds each token's log ρ, in the weight too.
    """
    mean = _mean(tokens, log_clamp)
    return corrected(
        tokens,
        "decoupled",
        (eps_low, eps_high, dual_clip),
        _outside(mean, lower, upper),
        lambda log_s: truncated_ratio(mean(log_s), rho_cap),
    )
