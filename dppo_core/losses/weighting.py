"""Losses without a mask, whose importance weight is cut instead: PG-IS, PG-TIS, CISPO. Shapes: [B, T]."""

from __future__ import annotations

from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss
from dppo_core.masks import coefficients, keep_all, truncated_ratio

__all__ = ["cispo_loss", "pg_is_loss", "pg_tis_loss"]


def pg_is_loss(
    logp: Tensor,
    logp_rollout: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """Policy gradient with importance sampling: −sg(r)·A·log π, r = π/μ. arXiv:2602.04879 §5."""
    return pg_tis_loss(logp, logp_rollout, advantage, response_mask, weight_cap=None, aggregation=aggregation)


def pg_tis_loss(
    logp: Tensor,
    logp_rollout: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    weight_cap: float | None = 5.0,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """… with truncated importance sampling: −sg(min(r, C))·A·log π. arXiv:2602.04879 §5. weight_cap: C, None = ∞."""
    tokens = CountedTokens(logp, advantage, response_mask)
    log_ratio = tokens.log_ratio(logp_rollout, "logp_rollout")
    weight = truncated_ratio(log_ratio, weight_cap)
    return tokens.loss(coefficients(keep_all(log_ratio), weight, tokens.advantage), aggregation)


def cispo_loss(
    logp: Tensor,
    logp_old: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    eps_low: float | None = None,
    eps_high: float = 0.2,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """CISPO: −sg(clip(r′, 1−ε_low, 1+ε_high))·A·log π, r′ = π/π_old. arXiv:2506.13585 Eq. 4–5.

    `eps_low` None: no lower bound, as the paper trains (a lower bound is verl's). TRL's ε_high is the cap itself: its
    5.0 is `eps_high=4.0` here.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    log_ratio = tokens.log_ratio(logp_old, "logp_old")
    weight = truncated_ratio(log_ratio, 1.0 + eps_high).clamp(min=0.0 if eps_low is None else 1.0 - eps_low)
    return tokens.loss(coefficients(keep_all(log_ratio), weight, tokens.advantage), aggregation)
