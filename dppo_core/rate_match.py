"""The rate-matched δ: the DPPO threshold that drops as many tokens as PPO does at a given ε.

At unequal strictness two masks differ mostly because one drops more. At this δ they differ in which tokens they drop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dppo_core.masks import Decision, keep_dppo

__all__ = ["RateMatch", "rate_matched_delta"]


@dataclass(frozen=True)
class RateMatch:
    """`delta` and what it achieves on `tokens` tokens (A ≠ 0, both decisions known).

    delta: the smallest δ ≥ 0 at which DPPO drops no more tokens than PPO; NaN where there are no tokens. dropped_dppo
    is less than dropped_ppo where several tokens tie at δ (`tied` of them have D = δ exactly, and are kept), or where
    even δ = 0 drops fewer: DPPO then cannot be as strict as this PPO.
    """

    delta: float
    tokens: int
    dropped_ppo: int
    dropped_dppo: int
    tied: int

    @property
    def rate_ppo(self) -> float:
        """Share of the tokens that PPO drops."""
        return self.dropped_ppo / self.tokens if self.tokens else float("nan")

    @property
    def rate_dppo(self) -> float:
        """Share of the tokens that DPPO drops at `delta`."""
        return self.dropped_dppo / self.tokens if self.tokens else float("nan")


def rate_matched_delta(
    divergence: Tensor, log_ratio: Tensor, advantage: Tensor, ppo: Decision, sign: int | None = None
) -> RateMatch:
    """Match DPPO's drop count to PPO's decision `ppo` on the same tokens; divergence, log_ratio, advantage [N].

    sign: 1 gives δ_high, from the tokens with A > 0 alone; −1 gives δ_low; None one δ for both. `log_ratio` belongs
    to the pair of `divergence`. Masks are strict, so the answer is an order statistic: where PPO drops k of the tokens
    that DPPO can drop (those that move away from r = 1), δ is their (k+1)-th largest divergence.
    """
    advantage, divergence = advantage.double(), divergence.double()
    # every token that moves away, whatever its divergence
    away = keep_dppo(divergence, log_ratio, advantage, -1.0, -1.0)
    counted = away.known & ppo.known & (advantage != 0)
    if sign is not None:
        counted = counted & (torch.sign(advantage) == sign)
    dropped_ppo = int((counted & ~ppo.keep).sum())
    candidates = divergence[counted & ~away.keep]
    tokens = int(counted.sum())
    if tokens == 0:
        delta = float("nan")
    elif len(candidates) <= dropped_ppo:
        delta = 0.0
    else:
        delta = float(candidates.kthvalue(len(candidates) - dropped_ppo).values)
    return RateMatch(delta, tokens, dropped_ppo, int((candidates > delta).sum()), int((candidates == delta).sum()))
