"""GBPO: a loss that draws the ratio to a bounded target. arXiv:2604.18578 (bounded ratio reinforcement learning)."""

from __future__ import annotations

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss

__all__ = ["gbpo_loss", "gbpo_target"]


def gbpo_target(
    reward: Tensor,
    group: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    temperature: float = 1.0,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Target ratio r* and advantage A of each response: reward [B], group [B] (its prompt) → [B, 1], [B, 1], float64.

    r* = 1 − ε_low + (ε_low+ε_high)·σ((R − median)/λ) and A = R − mean, over the responses of one prompt; with
    `normalize` both differences are divided by s + 1e-6, s the group's standard deviation (n − 1). `temperature` is
    λ. A prompt with one response has mean and median 0 and s = 1, as in the authors' code.
    """
    reward = reward.detach().double()
    target, advantage = torch.empty_like(reward), torch.empty_like(reward)
    for prompt in set(group.tolist()):
        members = group == prompt
        rewards = reward[members]
        alone = rewards.numel() == 1
        scale = 1.0 + 1e-6 if alone else float(rewards.std()) + 1e-6
        if not normalize:
            scale = 1.0
        middle = 0.0 if alone else rewards.quantile(0.5)
        gate = torch.sigmoid((rewards - middle) / scale / temperature)
        target[members] = 1.0 - eps_low + (eps_low + eps_high) * gate
        advantage[members] = (rewards - (0.0 if alone else rewards.mean())) / scale
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
    return tokens.loss(-torch.sign(distance) * ratio * size, aggregation, value=distance.abs() * size)
