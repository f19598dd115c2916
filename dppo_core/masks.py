"""PPO and DPPO masks and gradient weights, decided in float64 on the values they are given.

A mask is a function of one pair (anchor → π): a divergence and the direction of its mask always belong to the same
two policies. NaN in an input means "not known", and so is the decision; it is never "kept" by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tensors' own methods only, so that the catalogue of methods is importable without torch
    from torch import Tensor

__all__ = [
    "Decision",
    "coefficients",
    "gradient_weight",
    "keep_all",
    "keep_dppo",
    "keep_ppo",
    "keep_unless",
    "truncated_ratio",
]


@dataclass(frozen=True)
class Decision:
    """`keep` [N] bool: true = the token keeps its gradient; `known` [N] bool: false where an input is not known."""

    keep: Tensor
    known: Tensor

    def __and__(self, other: Decision) -> Decision:
        """Kept by both, known by both."""
        return Decision(self.keep & other.keep, self.known & other.known)


def keep_unless(drop: Tensor, *inputs: Tensor) -> Decision:
    """Keep iff not `drop` [N] bool; not known where an input [N] of that decision is NaN."""
    known = drop.new_ones(drop.shape)
    for values in inputs:
        known = known & ~values.isnan()
    return Decision(keep=~drop & known, known=known)


def keep_all(*inputs: Tensor) -> Decision:
    """Keep every token; not known where an input [N] of its weight is NaN."""
    return keep_unless(inputs[0].isnan(), *inputs)


def keep_ppo(
    log_ratio: Tensor, advantage: Tensor, eps_low: float, eps_high: float, dual_clip: float | None = None
) -> Decision:
    """PPO/GRPO clipping as a mask: drop iff (A>0 and r > 1+eps_high) or (A<0 and r < 1−eps_low).

    With `dual_clip` c also iff A<0 and r > c. Strict comparisons of log r with log(1±ε); A = 0 keeps.
    log_ratio, advantage: [N]. arXiv:1707.06347 Eq. 7, arXiv:1912.09729 Eq. 5 (dual clip).
    """
    log_ratio, advantage = log_ratio.double(), advantage.double()
    upper = math.log(1.0 + eps_high)
    lower = math.log(1.0 - eps_low) if eps_low < 1.0 else -math.inf
    drop = ((advantage > 0) & (log_ratio > upper)) | ((advantage < 0) & (log_ratio < lower))
    if dual_clip is not None:
        drop = drop | ((advantage < 0) & (log_ratio > math.log(dual_clip)))
    return keep_unless(drop, log_ratio, advantage)


def keep_dppo(
    divergence: Tensor,
    log_ratio: Tensor,
    advantage: Tensor,
    delta_low: float,
    delta_high: float,
    zero_advantage: str = "keep",
) -> Decision:
    """DPPO: drop iff (A>0 and r>1 and D>delta_high) or (A<0 and r<1 and D>delta_low). arXiv:2602.04879 Eq. 12.

    `divergence` is any divergence of the pair whose `log_ratio` gives the direction, all [N]. Comparisons are
    strict; a token that moves toward r = 1 is never dropped. A = 0 keeps, or with `zero_advantage="negative"`
    follows the rule of A < 0, as some trainers' masks do (`dppo_core.profiles`).
    """
    divergence, log_ratio, advantage = divergence.double(), log_ratio.double(), advantage.double()
    negative = advantage <= 0 if zero_advantage == "negative" else advantage < 0
    drop = ((advantage > 0) & (log_ratio > 0) & (divergence > delta_high)) | (
        negative & (log_ratio < 0) & (divergence > delta_low)
    )
    return keep_unless(drop, divergence, log_ratio, advantage)


def truncated_ratio(log_ratio: Tensor, cap: float | None = None) -> Tensor:
    """min(r, C) [N]; C = ∞ where `cap` is None."""
    ratio = log_ratio.double().exp()
    return ratio if cap is None else ratio.clamp(max=cap)


def gradient_weight(log_ratio: Tensor, advantage: Tensor, cap: float | None = None) -> Tensor:
    """min(r, C)·|A|, the size of a kept token's coefficient on ∇log π(a); C = ∞ where `cap` is None. [N]."""
    return truncated_ratio(log_ratio, cap) * advantage.double().abs()


def coefficients(decision: Decision, weight: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """coef = keep·w·A [N] and keep [N]: coef is 0 where the token is dropped or A = 0, however large w is, and NaN
    where the decision is not known."""
    coef = (weight * advantage.double()).masked_fill(~decision.keep | (advantage == 0), 0.0)
    return coef.masked_fill(~decision.known, math.nan), decision.keep
