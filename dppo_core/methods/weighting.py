"""No mask: every token keeps a gradient, and the weight on it is truncated, gated or turned back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_all, keep_unless, truncated_ratio
from dppo_core.methods.registry import Parameter, method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []


def _from_anchor(anchor: str, **_: Parameter) -> tuple[str, ...]:
    return (f"logp_{anchor}", "logp_new")


@method(
    "pg_is",
    "Policy gradient with importance sampling",
    source="arXiv:2602.04879 §5 (PG-IS)",
    status="read",
    needs=("logp_rollout", "logp_new"),
)
def pg_is(tokens: TokenArrays) -> tuple[Tensor, Tensor]:
    """Keep all; coef = r·A."""
    log_ratio = tokens.log_ratio("rollout")
    return coefficients(keep_all(log_ratio), truncated_ratio(log_ratio), tokens.advantage)


@method(
    "pg_tis",
    "Policy gradient with truncated importance sampling",
    source="arXiv:2602.04879 §5 (PG-TIS, there also named CISPO)",
    status="read",
    needs=("logp_rollout", "logp_new"),
    variants={
        "paper-scaling": {"weight_cap": 5.0},
        "stable-rl": {"weight_cap": 3.0},  # loss_mode pg_no_mask
        "verl": {"weight_cap": 2.0},  # bypass_mode, loss_type reinforce, rollout_is token
    },
)
def pg_tis(tokens: TokenArrays, *, weight_cap: float = 5.0) -> tuple[Tensor, Tensor]:
    """Keep all; coef = min(r, C)·A."""
    log_ratio = tokens.log_ratio("rollout")
    return coefficients(keep_all(log_ratio), truncated_ratio(log_ratio, weight_cap), tokens.advantage)


@method(
    "cispo",
    "CISPO",
    source="arXiv:2506.13585 Eq. 4–5",
    status="read",
    needs=_from_anchor,
    variants={
        "verl": {"eps_low": 0.2, "eps_high": 0.2},
        "verl-script": {"eps_low": 10.0, "eps_high": 0.2},
        "trl": {"eps_low": None, "eps_high": 4.0},  # its epsilon_high, 5.0, is the cap itself
        "open-instruct": {"eps_low": None, "eps_high": 0.272},
        "tmax": {"eps_low": None, "eps_high": 0.272},
        "skyrl": {"eps_low": 1.0, "eps_high": 4.0},
        "skyrl-rollout": {"eps_low": 1.0, "eps_high": 4.0, "anchor": "rollout"},  # cispo_anchor
        "nemo-rl": {"eps_low": 0.2, "eps_high": 0.2},
        "nemo-rl-guide": {"eps_low": 1.0, "eps_high": 5.0},
        "slime": {"eps_low": 0.2, "eps_high": 0.2},
        "slime-wide": {"eps_low": 1.0, "eps_high": 4.0},  # what it advises where --eps-clip is below 1
        "rllm": {"eps_low": 0.2, "eps_high": 0.2},
    },
)
def cispo(
    tokens: TokenArrays, *, eps_low: float | None = None, eps_high: float = 0.2, anchor: str = "old"
) -> tuple[Tensor, Tensor]:
    """Keep all; coef = clip(r′, 1−ε_low, 1+ε_high)·A, without a lower bound where ε_low is none; from the rollout
    policy (r) with anchor `rollout`."""
    log_ratio = tokens.log_ratio(anchor)
    weight = truncated_ratio(log_ratio, 1.0 + eps_high)
    if eps_low is not None:
        weight = weight.clamp(min=1.0 - eps_low)
    return coefficients(keep_all(log_ratio), weight, tokens.advantage)


@method(
    "sapo",
    "SAPO",
    source="arXiv:2511.20347; TRL, verl, SkyRL and AReaL (`sapo`) alike",
    status="read",
    needs=("logp_old", "logp_new"),
)
def sapo(tokens: TokenArrays, *, tau_positive: float = 1.0, tau_negative: float = 1.05) -> tuple[Tensor, Tensor]:
    """Keep all; coef = r′·4σ(x)(1−σ(x))·A with x = τ(r′−1), the slope of the gate (4/τ)σ(x); τ by the sign of A."""
    log_ratio, advantage = tokens.log_ratio("old"), tokens.advantage
    ratio = truncated_ratio(log_ratio)
    x = ((ratio - 1.0) * tau_positive).where(advantage > 0, (ratio - 1.0) * tau_negative)
    closing = (-x).sigmoid()  # 1 − σ(x); far out it is 0 while r′ may be infinite
    weight = (ratio * 4.0 * x.sigmoid() * closing).masked_fill(closing == 0.0, 0.0)
    return coefficients(keep_all(log_ratio), weight, advantage)


@method(
    "drpo",
    "DRPO",
    source="arXiv:2606.09821 Eq. 8–9; UniRL `_drpo_loss`",
    status="read",
    needs=("logp_rollout", "logp_new"),
    variants={"unirl": {"delta_low": 12.5, "delta_high": 12.5}},  # the paper's §4: no token turns
)
def drpo(tokens: TokenArrays, *, delta_low: float = 0.15, delta_high: float = 0.15) -> tuple[Tensor, Tensor]:
    """coef = r·(1 − sign(A(r−1))·|π(a)−μ(a)|/δ)·A, δ_low for A < 0: past δ away from μ its sign turns, and the token
    counts as dropped."""
    moved = tokens.divergence("tv", "binary", "rollout")
    return _turned(tokens, "rollout", moved, delta_low, delta_high)


@method(
    "spo",
    "SPO",
    source="arXiv:2401.16025; arXiv:2606.09821 Eq. 5",
    status="read",
    needs=_from_anchor,
    variants={"unirl": {"eps": 12.5}},  # penalty_mu_weighted off
)
def spo(tokens: TokenArrays, *, eps: float = 0.2, anchor: str = "rollout") -> tuple[Tensor, Tensor]:
    """coef = r·(1 − sign(A(r−1))·|r−1|/ε)·A: past ε away from 1 its sign turns, and the token counts as dropped; on r′
    with anchor `old`."""
    moved = tokens.log_ratio(anchor).expm1().abs()
    return _turned(tokens, anchor, moved, eps, eps)


def _turned(tokens: TokenArrays, anchor: str, moved: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """r·(1 − sign(A(r−1))·moved/threshold)·A, kept where that has the sign of A."""
    log_ratio, advantage = tokens.log_ratio(anchor), tokens.advantage
    share = (moved / high).where(advantage > 0, moved / low)
    slope = 1.0 - advantage.sign() * log_ratio.sign() * share
    decision = keep_unless(slope <= 0, slope)
    coef = (truncated_ratio(log_ratio) * slope * advantage).masked_fill(advantage == 0, 0.0)
    return coef.masked_fill(~decision.known, math.nan), decision.keep
