"""GBPO: a loss that draws the ratio to a bounded target. arXiv:2604.18578 (bounded ratio reinforcement learning)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss, with_the_sign_of

__all__ = ["gbpo_loss", "gbpo_target"]


def gbpo_target(
    reward: Tensor,
    group: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    temperature: float = 1.0,
    scale: Literal["std", "none"] = "std",
) -> tuple[Tensor, Tensor]:
    """Target ratio r* and advantage A of each response: reward [B], group [B] (its prompt) → [B, 1], [B, 1], float64.

    r* = 1 − ε_low + (ε_low+ε_high)·σ((R − median)/(λs)) and A = (R − mean)/s over the responses of one prompt, where
    s is their standard deviation (n − 1) plus 1e-6, or 1 with scale `none`. `temperature` is λ. A prompt with one
    response has mean and median 0 and s = 1 + 1e-6, as in the authors' code.
    """
    reward = reward.detach().double()
    target, advantage = torch.empty_like(reward), torch.empty_like(reward)
    for prompt in set(group.tolist()):
        members = group == prompt
        rewards = reward[members]
        alone = rewards.numel() == 1
        spread = (1.0 if alone else float(rewards.std())) + 1e-6 if scale == "std" else 1.0
        middle = 0.0 if alone else rewards.quantile(0.5)
        gate = torch.sigmoid((rewards - middle) / (spread * temperature))
        target[members] = 1.0 - eps_low + (eps_low + eps_high) * gate
        advantage[members] = (rewards - (0.0 if alone else rewards.mean())) / spread
    return target.unsqueeze(1), advantage.unsqueeze(1)


def gbpo_loss(
    logp: Tensor,
    logp_old: Tensor,
    target: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """GBPO: |r′ − r*|·|A|, r′ = π/π_old [B, T]; its gradient is sign(r′−r*)·r′·|A|. No mask: past r* it turns round.

    target and advantage, [B, T] or [B, 1], come from `gbpo_target`.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    ratio = tokens.log_ratio(logp_old, "logp_old").exp()
    distance = ratio - tokens.fixed(target, "target")
    size = tokens.advantage.abs()
    coef = -torch.sign(distance) * ratio * size
    return tokens.loss(with_the_sign_of(tokens.advantage, coef), aggregation, value=distance.abs() * size)
