"""Losses that weaken a gradient smoothly instead of dropping it: SAPO, DRPO. Shapes: [B, T]."""

from __future__ import annotations

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss, with_the_sign_of
from dppo_core.masks import coefficients, keep_all

__all__ = ["drpo_loss", "sapo_loss"]


def sapo_loss(
    logp: Tensor,
    logp_old: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
    aggregation: Aggregation | AggregationMode = "seq-mean-token-mean",
) -> PolicyLoss:
    """SAPO: −(4/τ)·σ(τ(r′−1))·A, r′ = π/π_old, τ by the sign of A. arXiv:2511.20347.

    Its gradient is −4σ(1−σ)·r′·A, which is PPO's at r′ = 1 and fades on both sides of it.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    ratio = tokens.log_ratio(logp_old, "logp_old").exp()
    tau = torch.full_like(ratio, tau_negative).masked_fill(tokens.advantage > 0, tau_positive)
    gate = torch.sigmoid(tau * (ratio - 1.0))
    closing = torch.sigmoid(-tau * (ratio - 1.0))  # 1 − gate without cancellation
    # far out 1 − gate is 0 in float64 while the ratio may be ∞
    slope = torch.where(closing == 0.0, 0.0, 4.0 * gate * closing * ratio)
    decided = coefficients(keep_all(ratio), slope, tokens.advantage)
    return tokens.loss(decided, aggregation, value=-4.0 / tau * gate * tokens.advantage)


def drpo_loss(
    logp: Tensor,
    logp_rollout: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    delta_low: float = 0.15,
    delta_high: float = 0.15,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """DRPO: −r·A + |A|·μ(a)·(r−1)²/(2δ), r = π/μ: a quadratic in place of DPPO's mask. arXiv:2606.09821.

    Its gradient is −r·A·(1 − sign(A(r−1))·|π(a)−μ(a)|/δ): it vanishes at |π−μ| = δ on the way out and pulls back
    beyond; δ_low is for A < 0, δ_high for A > 0. At .15–.2 it turns where DPPO drops; the authors train with 12.5,
    where nothing turns.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    logp_rollout = tokens.fixed(logp_rollout, "logp_rollout")
    advantage, mu = tokens.advantage, logp_rollout.exp()
    log_ratio = tokens.logp - logp_rollout
    ratio, shift = log_ratio.exp(), mu * torch.expm1(log_ratio)  # shift = π(a) − μ(a)
    delta = torch.full_like(ratio, delta_low).masked_fill(advantage > 0, delta_high)
    coef = ratio * (advantage - advantage.abs() * shift / delta)
    value = -ratio * advantage + advantage.abs() * shift * torch.expm1(log_ratio) / (2.0 * delta)
    return tokens.loss(with_the_sign_of(advantage, coef), aggregation, value=value)
