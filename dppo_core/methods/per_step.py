"""Two rules about a training step, not about tokens: no masks, so not in the registry; plain functions of numbers.

PIPO weights the previous step's samples by how much the mean reward has improved; FINCH sets the learning rate from
the loss. Both formulas are known from secondary notes only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

__all__ = ["finch_learning_rates", "pipo_improvement", "pipo_weight"]


def pipo_improvement(mean_rewards: Sequence[float], window: int = 8, eps: float = 1e-6) -> list[float]:
    """ξ of each step: (μ_t − mean)/(s + ε) over the K = `window` steps before it, s with K − 1. arXiv:2604.00860.

    mean_rewards: the mean reward of each step's batch, in order. NaN where fewer than K steps come before, or one of
    them or the step itself is not known (NaN). Dimensionless. ε is not published in the notes; 1e-6 is ours.
    """
    if window < 2:
        raise ValueError(f"window is {window}, not at least 2")
    found = []
    for step, value in enumerate(mean_rewards):
        earlier = mean_rewards[step - window : step] if step >= window else []
        known = bool(earlier) and not any(math.isnan(x) for x in (value, *earlier))
        found.append((value - fmean(earlier)) / (stdev(earlier) + eps) if known else math.nan)
    return found


def pipo_weight(improvement: float, negative: float = 0.1) -> float:
    """φ(ξ) = ξ where the step improved, λξ with λ = `negative` where it did not: the factor that PIPO puts on the
    previous step's local credit. arXiv:2604.00860. NaN stays NaN."""
    return improvement if improvement >= 0 else negative * improvement


def finch_learning_rates(
    losses: Sequence[float], kappa: float, smoothing: float = 0.9, maximum: float | None = 5e-5, eps: float = 1e-8
) -> list[float]:
    """The learning rate of each step: min(κ/√(L̄ + ε), maximum) with L̄ = αL̄ + (1−α)L. arXiv:2605.20005.

    losses: mean training loss of each batch, in order, nats, at least 0; kappa: learning rate × √nats; smoothing: α,
    0 for none. The average starts at the first loss (ours; so is ε). Raises ValueError for a loss below 0 or NaN.
    """
    rates: list[float] = []
    average = math.nan
    for loss in losses:
        if not loss >= 0:
            raise ValueError(f"a loss of {loss} has no learning rate")
        average = loss if math.isnan(average) else smoothing * average + (1 - smoothing) * loss
        rate = kappa / math.sqrt(average + eps)
        rates.append(rate if maximum is None else min(rate, maximum))
    return rates
