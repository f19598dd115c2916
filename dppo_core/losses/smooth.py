"""Losses that weaken a gradient smoothly instead of dropping it: SAPO, DRPO. Shapes: [B, T]."""

from __future__ import annotations

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss

__all__ = ["drpo_loss", "sapo_loss"]


def sapo_loss(
    logp: Tensor,
    logp_old: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
    aggregation: Aggregation | AggregationMode = "seq-mean-token-mean",
) -> PolicyLoss:
    """SAPO: −(4/τ)·σ(τ(r′−1))·A, r′ = π/π_old, τ by the sign of A. arXiv:2511.20347.

    Its gradient is −4σ(1−σ)·r′·A, which is PPO's at r′ = 1 and fades on both sides of it.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    ratio = tokens.log_ratio(logp_old, "logp_old").exp()
    tau = torch.full_like(ratio, tau_neg).masked_fill(tokens.advantage > 0, tau_pos)
    gate = torch.sigmoid(tau * (ratio - 1.0))
    closing = torch.sigmoid(-tau * (ratio - 1.0))  # 1 − gate without cancellation
    # far out 1 − gate is 0 in float64 while the ratio may be ∞
    slope = torch.where(closing == 0.0, 0.0, 4.0 * gate * closing * ratio)
    return tokens.loss(slope * tokens.advantage, aggregation, value=-4.0 / tau * gate * tokens.advantage)


def drpo_loss(
    logp: Tensor,
    logp_rollout: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    delta: float = 0.15,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """DRPO: −r·A + |A|·μ(a)·(r−1)²/(2δ), r = π/μ: a quadratic in place of DPPO's mask. arXiv:2606.09821.

    Its gradient is −r·A·(1 − sign(A(r−1))·|π(a)−μ(a)|/δ): it vanishes at |π−μ| = δ on the way out and pulls back
    beyond. The authors train with δ = 12.5; at .15–.2 its turning point is DPPO's threshold.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    logp_rollout = tokens.fixed(logp_rollout, "logp_rollout")
    advantage, mu = tokens.advantage, logp_rollout.exp()
    log_ratio = tokens.logp - logp_rollout
    ratio, shift = log_ratio.exp(), mu * torch.expm1(log_ratio)  # shift = π(a) − μ(a)
    coef = ratio * (advantage - advantage.abs() * shift / delta)
    value = -ratio * advantage + advantage.abs() * shift * torch.expm1(log_ratio) / (2.0 * delta)
    return tokens.loss(coef, aggregation, value=value)
