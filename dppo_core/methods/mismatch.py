"""Corrections of the mismatch ratio ρ = π_old/μ on top of PPO: IcePop, token MIS, token TIS.

One form covers them. A statistic s bounds or weighs the token:

    mode                 s    PPO mask    coef
    decoupled            ρ    on r′       keep·r′·w(ρ)·A     three policies; the default everywhere
    bypass-ppo-clip      r    on r        keep·r·A           verl's bypass_mode: μ stands for π_old, and no IS weight
    bypass-reinforce     r    none        keep·w(r)·A        the same with loss_type reinforce

w is 1 where a method has no IS weight. Bounds are inclusive: s on a bound keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_all, keep_ppo, keep_unless, truncated_ratio
from dppo_core.methods.registry import Parameter, method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__ = ["corrected", "needs_of_mode"]

_MODES = ("decoupled", "bypass-ppo-clip", "bypass-reinforce")
_VERL: dict[str, Parameter] = {"eps_low": 0.2, "eps_high": 0.2, "dual_clip": 3.0}
_SYMMETRIC: dict[str, Parameter] = {"eps_low": 0.2, "eps_high": 0.2}
_BYPASS: dict[str, Parameter] = {"mode": "bypass-ppo-clip", **_VERL}
_REINFORCE: dict[str, Parameter] = {"mode": "bypass-reinforce"}

Statistic = Callable[["Tensor"], "Tensor"]
"""From log s [N]."""


def needs_of_mode(mode: Parameter, **_: Parameter) -> tuple[str, ...]:
    return ("logp_rollout", "logp_old", "logp_new") if mode == "decoupled" else ("logp_rollout", "logp_new")


def corrected(
    tokens: TokenArrays,
    mode: str,
    clip: tuple[float, float, float | None],
    outside: Statistic | None,
    importance: Statistic | None,
) -> tuple[Tensor, Tensor]:
    """The table above: `clip` is (ε_low, ε_high, dual clip), `outside` [N] bool drops, `importance` [N] is w."""
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}, not one of: {', '.join(_MODES)}")
    advantage, decoupled = tokens.advantage, mode == "decoupled"
    log_s = tokens.log_mismatch if decoupled else tokens.log_ratio("rollout")
    log_ratio = tokens.log_ratio("old" if decoupled else "rollout")
    decision, weight = keep_all(log_s, log_ratio, advantage), log_ratio.new_ones(log_ratio.shape)
    if outside is not None:
        decision = keep_unless(outside(log_s) & (advantage != 0), log_s, log_ratio, advantage)
    if mode != "bypass-reinforce":
        decision = decision & keep_ppo(log_ratio, advantage, *clip)
        weight = truncated_ratio(log_ratio)
    if mode != "bypass-ppo-clip" and importance is not None:
        weight = weight * importance(log_s)
    return coefficients(decision, weight, advantage)


def _log(bound: float | None) -> float:
    return math.log(bound) if bound else -math.inf


@method(
    "icepop",
    "IcePop",
    source="arXiv:2510.18855; slime `icepop_function`; verl `rollout_is_threshold`",
    status="read",
    needs=needs_of_mode,
    variants={
        "verl": _VERL,
        "verl-bypass-reinforce": _REINFORCE,
        "nemo-rl": _SYMMETRIC,
        "slime": {"lower": 0.0, "upper": 2.0, **_SYMMETRIC},  # --tis-clip-low, --tis-clip
        "open-instruct": {"rho_cap": 2.0, "eps_low": 0.2, "eps_high": 0.272},
        "intellect-3": _REINFORCE,  # arXiv:2512.16144 Eq. 1
    },
)
def icepop(
    tokens: TokenArrays,
    *,
    lower: float = 0.5,
    upper: float = 5.0,
    rho_cap: float | None = None,
    mode: str = "decoupled",
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′, and drop iff ρ < α or ρ > β; coef = keep·r′·ρ·A (that is keep·r·A), or keep·r′·min(ρ, C)·A. Mode
    `bypass-reinforce`: drop iff r < α or r > β, coef = keep·r·A."""
    if mode == "bypass-ppo-clip":
        raise ValueError("IcePop is an IS weight, which bypass-ppo-clip does not apply: that is ppo_rollout")
    low, high = _log(lower), _log(upper)
    return corrected(
        tokens,
        mode,
        (eps_low, eps_high, dual_clip),
        lambda log_s: (log_s < low) | (log_s > high),
        lambda log_s: truncated_ratio(log_s, rho_cap),
    )


@method(
    "token_mis",
    "Token MIS, token rejection sampling",
    source="verl `compute_rollout_rejection_mask`; SkyRL `compute_token_mask`; AReaL `apply_rejection_sampling`",
    status="read",
    needs=needs_of_mode,
    variants={
        "verl": _VERL,  # rollout_rs token_k1, rollout_rs_threshold "0.5_2.0"
        "verl-k2": {"statistic": "k2", **_VERL},
        "verl-k3": {"statistic": "k3", "upper": 0.01, **_VERL},
        "verl-tis": {"importance": "ratio", "rho_cap": 2.0, **_VERL},  # with rollout_is token
        "verl-bypass": _BYPASS,
        "verl-bypass-reinforce": _REINFORCE,
        "skyrl": {"statistic": "ratio", **_SYMMETRIC},
        "skyrl-tis": {"statistic": "ratio", "importance": "ratio", "rho_cap": 2.0, **_SYMMETRIC},
        "slime": {"statistic": "ratio", "importance": "ratio", "rho_cap": 2.0, **_SYMMETRIC},  # mis.yaml, unnormalised
        # vllm_importance_sampling_mode token_mask
        "trl": {"statistic": "ratio", "importance": "ratio", "lower": 0.0, "upper": 3.0, **_SYMMETRIC},
        # rejection_sampling: level token, action mask, metric ratio, kl_k2 or kl_k3
        "areal": {"statistic": "ratio", "importance": "ratio", "lower": 0.0, "upper": 5.0, **_SYMMETRIC},
        "areal-k2": {"statistic": "k2", "importance": "ratio", "upper": 5.0, **_SYMMETRIC},
        "areal-k3": {"statistic": "k3-inverse", "importance": "ratio", "upper": 5.0, **_SYMMETRIC},
    },
)
def token_mis(
    tokens: TokenArrays,
    *,
    statistic: str = "k1",
    lower: float = 0.5,
    upper: float = 2.0,
    importance: str = "none",
    rho_cap: float | None = None,
    mode: str = "decoupled",
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′, and keep iff the statistic of ρ is within bounds: k1: log lower ≤ −log ρ ≤ log upper (so ρ in
    [1/upper, 1/lower]); ratio: lower ≤ ρ ≤ upper; k2: ½log²ρ ≤ upper; k3: ρ − 1 − log ρ ≤ upper; k3-inverse:
    1/ρ − 1 + log ρ ≤ upper. coef = keep·r′·A, with importance `ratio` keep·r′·min(ρ, C)·A. In the bypass modes the
    statistic is that of r, and coef = keep·r·A (`bypass-ppo-clip`: PPO on r) or keep·A (`bypass-reinforce`)."""
    if importance not in ("none", "ratio"):
        raise ValueError(f"importance is {importance!r}, not none or ratio")
    low, high = _log(lower), _log(upper)
    statistics: dict[str, Statistic] = {
        "k1": lambda log_s: (-log_s < low) | (-log_s > high),
        "ratio": lambda log_s: (log_s < low) | (log_s > high),
        "k2": lambda log_s: 0.5 * log_s.square() > upper,
        "k3": lambda log_s: log_s.expm1() - log_s > upper,
        "k3-inverse": lambda log_s: (-log_s).expm1() + log_s > upper,
    }
    if statistic not in statistics:
        raise ValueError(f"statistic is {statistic!r}, not one of: {', '.join(statistics)}")
    weigh: Statistic | None = (lambda log_s: truncated_ratio(log_s, rho_cap)) if importance == "ratio" else None
    return corrected(tokens, mode, (eps_low, eps_high, dual_clip), statistics[statistic], weigh)


@method(
    "token_tis",
    "Token TIS, truncated importance sampling of the mismatch",
    source="verl `compute_rollout_correction_weights`; slime `vanilla_tis_function`",
    status="read",
    needs=needs_of_mode,
    variants={
        "verl": _VERL,
        "verl-bypass": _BYPASS,
        "verl-bypass-reinforce": _REINFORCE,
        "trl": {"cap": 3.0, **_SYMMETRIC},  # vllm_importance_sampling_mode token_truncate
        "open-instruct": {"eps_low": 0.2, "eps_high": 0.272},
        "slime": _SYMMETRIC,
        "skyrl": _SYMMETRIC,
        "nemo-rl": _SYMMETRIC,
        "areal": {"cap": 5.0, **_SYMMETRIC},  # rejection_sampling: token, clamp, ratio
    },
)
def token_tis(
    tokens: TokenArrays,
    *,
    cap: float = 2.0,
    floor: float = 0.0,
    mode: str = "decoupled",
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO on r′; coef = keep·r′·clip(ρ, floor, C)·A. Mode `bypass-ppo-clip`: PPO on r and no IS weight, keep·r·A;
    `bypass-reinforce`: clip(r, floor, C)·A, nothing dropped."""
    return corrected(
        tokens, mode, (eps_low, eps_high, dual_clip), None, lambda log_s: truncated_ratio(log_s, cap).clamp(min=floor)
    )
