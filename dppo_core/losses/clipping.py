"""Losses that clip a ratio: PPO and GRPO, MiniRL, GSPO. Shapes: [B, T] unless said otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss
from dppo_core.masks import coefficients, keep_ppo, truncated_ratio

__all__ = ["gspo_loss", "minirl_loss", "ppo_loss"]


def ppo_loss(
    logp: Tensor,
    logp_anchor: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float | None = None,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """PPO, and GRPO with its advantages: −min(r·A, clip(r, 1−ε_low, 1+ε_high)·A). arXiv:1707.06347 Eq. 7.

    With `dual_clip` c the loss of a token with A < 0 is at most −c·A (arXiv:1912.09729 Eq. 5). ε_high > ε_low is
    DAPO's clip-higher. `logp_anchor`: μ where r is measured from the rollout policy, π_old where from the old one.
    The gradient is −keep·r·A with the strict mask `keep_ppo`: a token at a boundary keeps its gradient.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    log_ratio = tokens.log_ratio(logp_anchor)
    return _clipped(tokens, log_ratio, eps_low, eps_high, dual_clip, aggregation)


def minirl_loss(
    logp: Tensor,
    logp_old: Tensor,
    logp_rollout: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    weight_cap: float | None = None,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """MiniRL (decoupled PPO): −sg(keep·min(r, C))·A·log π, the mask from r′ = π/π_old, the weight from r = π/μ.

    `weight_cap` is C: None without, 5 with truncated importance sampling (MiniRL + TIS). arXiv:2512.01374; Stable-RL's
    `ppo_recompute`.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    decision = keep_ppo(tokens.log_ratio(logp_old, "logp_old"), tokens.advantage, eps_low, eps_high)
    weight = truncated_ratio(tokens.log_ratio(logp_rollout, "logp_rollout"), weight_cap)
    return tokens.loss(coefficients(decision, weight, tokens.advantage), aggregation)


def gspo_loss(
    logp: Tensor,
    logp_old: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
    aggregation: Aggregation | AggregationMode = "seq-mean-token-mean",
) -> PolicyLoss:
    """GSPO: PPO's clip on s = exp(mean_t log r′), one ratio for a whole response. arXiv:2507.18071 Eq. 5, 7.

    Each token's gradient is −keep·s·A, which under seq-mean-token-mean is the gradient of −min(s·A, clip(s)·A) per
    response. Advantages that differ inside a response give GSPO-token (Eq. 13–14).
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    log_ratio = tokens.mean(tokens.log_ratio(logp_old, "logp_old")).expand(logp.shape)
    return _clipped(tokens, log_ratio, eps_low, eps_high, None, aggregation)


def _clipped(
    tokens: CountedTokens,
    log_ratio: Tensor,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None,
    aggregation: Aggregation | AggregationMode,
) -> PolicyLoss:
    advantage, ratio = tokens.advantage, truncated_ratio(log_ratio)
    decision = keep_ppo(log_ratio, advantage, eps_low, eps_high, dual_clip)
    gain = torch.minimum(ratio * advantage, ratio.clamp(1.0 - eps_low, 1.0 + eps_high) * advantage)
    if dual_clip is not None:
        gain = torch.where(advantage < 0, torch.maximum(gain, dual_clip * advantage), gain)
    return tokens.loss(coefficients(decision, ratio, advantage), aggregation, value=-gain)
