"""Losses without a mask, whose importance weight is cut instead: PG-IS, PG-TIS, CISPO. Shapes: [B, T]."""

from __future__ import annotations

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss

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
    return pg_tis_loss(logp, logp_rollout, advantage, response_mask, cap=None, aggregation=aggregation)


def pg_tis_loss(
    logp: Tensor,
    logp_rollout: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    cap: float | None = 5.0,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """… with truncated importance sampling: −sg(min(r, C))·A·log π. `cap` is C, None = ∞. arXiv:2602.04879 §5."""
    tokens = CountedTokens(logp, advantage, response_mask)
    weight = tokens.log_ratio(logp_rollout, "logp_rollout").exp().clamp(max=cap if cap is not None else torch.inf)
    return tokens.loss(weight * tokens.advantage, aggregation)


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
    ratio = tokens.log_ratio(logp_old, "logp_old").exp()
    weight = ratio.clamp(0.0 if eps_low is None else 1.0 - eps_low, 1.0 + eps_high)
    return tokens.loss(weight * tokens.advantage, aggregation)
