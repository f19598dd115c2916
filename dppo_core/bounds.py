"""How much better the new policy can be, from a log: Theorem 3.1 and the lower bounds of Eq. 7 and 8.

R is a response's reward, r_t = π(a_t)/π_old(a_t) its ratios, ξ = max|R|. All expectations are over responses of π_old;
a log has responses of μ, so every number here is exact only where ρ ≡ 1 (see `Bounds.mean_abs_log_mismatch`).

Neither bound guarantees an improvement. Eq. 8 never exceeds −2ξ·D̄: it limits a loss. Eq. 7 can be positive, but wants
the supremum of the TV over all states, of which a log sees some.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dppo_core.intervals import TVInterval

__all__ = ["Bounds", "Improvement", "improvement", "lower_bounds"]


@dataclass(frozen=True)
class Improvement:
    """J(π) − J(μ) = E[first_order − correction], one entry a response, [S] float64. arXiv:2602.04879 Theorem 3.1.

    first_order: R·Σ_t(r_t−1), whose mean is L′. correction: R·Σ_t(r_t−1)(1−∏_{j>t} r_j), whose mean is Δ.
    log_product: log ∏_t r_t, nats. first_order − correction = R·(∏ r_t − 1).
    """

    first_order: Tensor
    correction: Tensor
    log_product: Tensor


def improvement(log_ratio: Tensor, sequence: Tensor, reward: Tensor) -> Improvement:
    """Theorem 3.1's terms of S responses: log_ratio [N] nats, sequence [N] int64 (the response of each token, 0 … S−1),
    reward [S].

    The sum in Δ telescopes to Σ(r_t−1) − (∏r_t − 1), which is used here: no suffix product is formed, so long
    responses overflow only where ∏ r itself does (Δ = ∓∞ then; 0 where R = 0).
    """
    log_ratio, reward = log_ratio.double(), reward.double()
    log_product = _per_response(log_ratio, sequence, len(reward))
    linear = _per_response(torch.expm1(log_ratio), sequence, len(reward))
    correction = torch.where(reward == 0, 0.0, reward * (linear - torch.expm1(log_product)))
    return Improvement(reward * linear, correction, log_product)


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on J(π) − J(μ) from S logged responses. NaN where nothing is known, None where it was not asked.

    responses, left_out: used, and left out because a token, its TV or the reward is not known.
    mean_reward: J(μ) as seen. reward_min, xi: R_min and ξ = max|R − centre|; of the rewards seen, unless
    `reward_range_given`. centre: subtracted from every reward; 0 unless centred.
    first_order, correction: L′ and Δ, means over responses.
    tv_sum: D̄, the mean over responses of Σ_t TV_t. tv_max: Dmax, the largest TV_t seen. Both of the upper ends of
    certified intervals, `tv_source`. horizon: T, tokens.
    eq7 = L′ − 2ξT(T−1)·Dmax²: `EQ7_LABEL`, because Dmax is the largest TV seen, not the supremum over all states.
    eq8 = L′ − 4ξ·D̄. eq8_ceiling = −2ξ·D̄, which it does not exceed but for the sampling error of L′.
    eq8_vacuous: it says no more than J(π) ≥ R_min does. mean_abs_log_mismatch: mean over responses of Σ_t|log ρ_t|,
    nats: 0 where the data came from π_old itself.
    """

    EQ7_LABEL: ClassVar[str] = "optimistic, not certified"

    responses: int
    left_out: int
    mean_reward: float
    reward_min: float
    reward_range_given: bool
    xi: float
    centre: float
    first_order: float
    correction: float
    tv_sum: float
    tv_max: float
    tv_source: str
    horizon: int
    eq7: float
    eq8: float
    eq8_ceiling: float
    eq8_vacuous: bool | None
    mean_abs_log_mismatch: float | None


def lower_bounds(
    log_ratio: Tensor,
    sequence: Tensor,
    reward: Tensor,
    tv: TVInterval,
    *,
    log_mismatch: Tensor | None = None,
    weight: Tensor | None = None,
    centred: bool = False,
    reward_range: tuple[float, float] | None = None,
    horizon: int | None = None,
) -> Bounds:
    """Eq. 7 and Eq. 8 of arXiv:2602.04879 for the pair old → new.

    log_ratio, log_mismatch [N] nats; sequence [N] int64, the response 0 … S−1 of each token; reward [S]; tv [N] of the
    same pair. A plain tensor is refused as `tv`: a binary or top-K TV understates the penalty and proves nothing.
    weight [S]: of each response in the expectation, equal where None. centred: subtract the middle of the rewards'
    range first, which halves ξ at best and leaves L′ unchanged in expectation. reward_range: the least and greatest
    reward there can be, where that is known. horizon: the longest response there can be; None = the longest here.
    Raises TypeError for a `tv` without a certificate, ValueError for rewards outside `reward_range`.
    """
    if not isinstance(tv, TVInterval):
        raise TypeError("tv must be a TVInterval, made by TVInterval.exact, .from_topk or .from_sampled")
    log_ratio, reward, upper = log_ratio.double(), reward.double(), tv.upper.double()
    n = len(reward)
    unknown = _per_response((log_ratio.isnan() | upper.isnan()).double(), sequence, n) > 0
    used = ~(unknown | reward.isnan())
    share = (used.double() if weight is None else torch.where(used, weight.double(), 0.0))[used]
    share = share / share.sum()

    def mean(per_response: Tensor) -> float:
        return float((share * per_response[used]).sum()) if len(share) else math.nan

    seen = reward[used]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (math.nan, math.nan)
    if reward_range is not None:
        if low < reward_range[0] or high > reward_range[1]:
            raise ValueError(f"rewards from {low} to {high} lie outside reward_range {reward_range}")
        low, high = reward_range
    centre = (low + high) / 2.0 if centred else 0.0
    xi = max(abs(low - centre), abs(high - centre))

    terms = improvement(log_ratio, sequence, reward - centre)
    first_order, correction = mean(terms.first_order), mean(terms.correction)
    tv_sum = mean(_per_response(upper, sequence, n))
    of_used = upper[used[sequence]]
    tv_max = float(of_used.max()) if len(of_used) else (0.0 if len(seen) else math.nan)
    lengths = torch.bincount(sequence, minlength=n)[used]
    steps = horizon if horizon is not None else (int(lengths.max()) if len(lengths) else 0)
    mean_reward = mean(reward)
    eq8 = first_order - 4.0 * xi * tv_sum
    # the second clause follows from the first where L′ is exact: then eq8 ≤ −2ξ·D̄ ≤ −2ξ ≤ −(J(μ) − R_min)
    vacuous = (eq8 <= -(mean_reward - low) or tv_sum >= 1.0) if len(seen) else None
    return Bounds(
        responses=len(seen),
        left_out=n - len(seen),
        mean_reward=mean_reward,
        reward_min=low,
        reward_range_given=reward_range is not None,
        xi=xi,
        centre=centre,
        first_order=first_order,
        correction=correction,
        tv_sum=tv_sum,
        tv_max=tv_max,
        tv_source=tv.source,
        horizon=steps,
        eq7=first_order - 2.0 * xi * steps * (steps - 1) * tv_max**2,
        eq8=eq8,
        eq8_ceiling=-2.0 * xi * tv_sum,
        eq8_vacuous=vacuous,
        mean_abs_log_mismatch=(
            None if log_mismatch is None else mean(_per_response(log_mismatch.double().abs(), sequence, n))
        ),
    )


def _per_response(values: Tensor, sequence: Tensor, n: int) -> Tensor:
    """Σ over each response's tokens: [N] → [S]."""
    return values.new_zeros(n).index_add(0, sequence, values)
