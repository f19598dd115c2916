"""Clipping the ratio of the sampled token: PPO and its relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dppo_core.masks import keep_ppo
from dppo_core.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []


@method(
    "ppo_old",
    "PPO / GRPO, from π_old",
    source="arXiv:1707.06347 Eq. 7; dual clip arXiv:1912.09729 Eq. 5",
    status="read",
    needs=("logp_old", "logp_new"),
    variants={"verl": {"eps_low": 0.2, "eps_high": 0.2, "dual_clip": 3.0}},
)
def ppo_old(
    tokens: TokenArrays, *, eps_low: float = 0.2, eps_high: float = 0.28, dual_clip: float | None = None
) -> Tensor:
    """Drop iff (A > 0 and r′ > 1+ε_high) or (A < 0 and r′ < 1−ε_low), with dual clip c also iff A < 0 and r′ > c;
    coef = keep·r′·A."""
    log_ratio = tokens.log_ratio("old")
    keep = keep_ppo(log_ratio, tokens.advantage, eps_low, eps_high, dual_clip).keep
    return keep * log_ratio.exp() * tokens.advantage
