"""Losses that mask by a divergence: DPPO and CPPO. Shapes: [B, T] unless said otherwise."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from dppo_core.divergence import binary_kl, binary_tv
from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss
from dppo_core.masks import coefficients, keep_dppo, truncated_ratio

__all__ = ["BinaryDivergence", "cppo_loss", "dppo_loss"]

BinaryDivergence = Literal["binary_tv", "binary_kl"]
"""The divergences that the sampled token's log-probs alone give."""


def dppo_loss(
    logp: Tensor,
    logp_anchor: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    divergence: BinaryDivergence | Tensor = "binary_tv",
    delta_low: float = 0.15,
    delta_high: float = 0.15,
    weight_cap: float | None = None,
    logp_weight: Tensor | None = None,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """DPPO: −sg(keep·min(r, C))·A·log π, keep from the divergence anchor → π. arXiv:2602.04879 Eq. 11–12.

    logp_anchor: log μ(a) (the paper's DPPO) or log π_old(a). divergence: a binary one by name, or D(anchor → π) [B, T]
    of any other kind, such as `dppo_core.divergence.topk_tv` over the anchor's top-K list, or an exact one; δ applies
    to A < 0 (`delta_low`) and A > 0 (`delta_high`): .15 for TV, .05 for KL in the paper.
    logp_weight: the denominator of r where it is not the anchor. Stable-RL's `*_recompute` masks from π_old and weighs
    by π/μ (pass log μ); verl's `dppo_tv` and `dppo_kl` take π_old for both (leave it out, weight_cap=3).
    weight_cap: C, None = ∞.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    log_ratio = tokens.log_ratio(logp_anchor)
    measured = _measure(tokens, logp_anchor, divergence)
    log_weight = log_ratio if logp_weight is None else tokens.log_ratio(logp_weight, "logp_weight")
    return _masked(tokens, measured, log_ratio, log_weight, (delta_low, delta_high), weight_cap, aggregation)


def cppo_loss(
    logp: Tensor,
    logp_rollout: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    divergence: BinaryDivergence | Tensor = "binary_tv",
    delta: float = 0.15,
    w_min: float = 0.8,
    budget: float | None = None,
    budget_min: float = 0.02,
    budget_max: float = 0.04,
    horizon: int | None = None,
    weight_cap: float | None = None,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """CPPO: DPPO's loss with a threshold that falls as the prefix of the response spends its budget.
    arXiv:2606.10968 Eq. 8–11 and 22.

    Token t of the T counted tokens of a response is dropped iff A(r−1) > 0 and w_t·D_t > c_t, where
    w_t = 1 − (1−w_min)(t−1)/(T−1) and c_t = min(δ, δ + δ_b·Σ_{j<t} w_j − Σ_{j<t} w_j·D_j).
    budget: δ_b; None = the 90 % quantile of the response's own D, held to [budget_min, budget_max].
    horizon: one T for all responses. divergence: as in `dppo_loss`; the authors train with the top-K TV.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    log_ratio = tokens.log_ratio(logp_rollout, "logp_rollout")
    measured = _measure(tokens, logp_rollout, divergence)
    counted = tokens.mask.double()
    place = counted.cumsum(-1) - 1.0  # t − 1
    last = counted.sum(-1, keepdim=True) - 1.0 if horizon is None else counted.new_tensor(horizon - 1.0)
    position_weight = torch.where(tokens.mask, 1.0 - (1.0 - w_min) * place / last.clamp(min=1.0), 0.0)
    spent = position_weight * measured
    allowed = _quantile(measured, tokens.mask, 0.9).clamp(budget_min, budget_max) if budget is None else budget
    limit = torch.clamp(delta + allowed * _earlier(position_weight) - _earlier(spent), max=delta)
    # Z > c exactly where Z − c > 0
    return _masked(tokens, spent - limit, log_ratio, log_ratio, (0.0, 0.0), weight_cap, aggregation)


def _measure(tokens: CountedTokens, logp_anchor: Tensor, divergence: BinaryDivergence | Tensor) -> Tensor:
    if isinstance(divergence, Tensor):
        return tokens.fixed(divergence, "divergence")
    if divergence not in ("binary_tv", "binary_kl"):
        raise ValueError(f"{divergence!r} is not binary_tv or binary_kl; pass other divergences as a tensor")
    anchor = tokens.fixed(logp_anchor, "logp_anchor")
    return (binary_tv if divergence == "binary_tv" else binary_kl)(anchor, tokens.logp)


def _earlier(values: Tensor) -> Tensor:
    """Σ over the earlier tokens of the response."""
    return pad(values.cumsum(-1)[:, :-1], (1, 0))


def _quantile(values: Tensor, counted: Tensor, q: float) -> Tensor:
    """Quantile of each response's counted tokens, linear between order statistics: [B, T] → [B, 1].

    (torch.quantile refuses more than 16 M values.)
    """
    ordered = values.masked_fill(~counted, torch.inf).sort(-1).values
    rank = q * (counted.sum(-1, keepdim=True) - 1).clamp(min=0).double()
    low, high = ordered.gather(-1, rank.floor().long()), ordered.gather(-1, rank.ceil().long())
    return torch.where(low == high, low, low + (rank - rank.floor()) * (high - low))


def _masked(
    tokens: CountedTokens,
    divergence: Tensor,
    log_ratio: Tensor,
    log_weight: Tensor,
    delta: tuple[float, float],
    weight_cap: float | None,
    aggregation: Aggregation | AggregationMode,
) -> PolicyLoss:
    decision = keep_dppo(divergence, log_ratio, tokens.advantage, *delta)
    weight = truncated_ratio(log_weight, weight_cap)
    return tokens.loss(coefficients(decision, weight, tokens.advantage), aggregation)
