"""What all losses share: safe inputs, and a scalar whose gradient is the coefficient that was decided.

A loss of this package is computed in two parts. Everything that decides (ratios, divergences, masks, weights) runs in
float64 without a graph and ends in two numbers per token: `value`, the published loss, and `coef`, the signed
multiplier of ∇log π(a). The graph then has one line, value − coef·(log π − sg(log π)): it is worth `value`, and its
gradient is −coef exactly, also where a clipped objective has a kink. Nothing depends on log π in a second way.

Positions with response_mask = 0 are replaced before anything is computed from them. Replacing them afterwards is the
torch.where trap: a NaN that is not selected still turns the gradient into 0·NaN = NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode, aggregate

__all__ = ["CountedTokens", "PolicyLoss", "with_the_sign_of"]


@dataclass(frozen=True)
class PolicyLoss:
    """A policy loss and what it did with each token.

    loss: scalar, float32 (float64 for float64 log-probs), differentiable in log π.
    coef [B, T] float64: the multiplier of ∇log π(a) before aggregation, 0 at response_mask = 0. Under token-mean the
    gradient of `loss` is −coef/N.
    keep [B, T] bool: counted tokens that keep their gradient; without a mask (DRPO, GBPO) those whose coef has the
    sign of A. A = 0 is kept.
    decided [B, T] bool: counted tokens with A ≠ 0, the ones that a drop rate is about.
    """

    loss: Tensor
    coef: Tensor
    keep: Tensor
    decided: Tensor

    @property
    def drop_rate(self) -> Tensor:
        """Share of the counted tokens with A ≠ 0 that are not kept, a scalar; NaN where there are none."""
        return (self.decided & ~self.keep).sum() / self.decided.sum()


class CountedTokens:
    """The tokens with response_mask ≠ 0 of a batch [B, T], and their inputs made safe.

    What a loss reads of a counted token must be known and finite: a NaN there reaches the loss, and is not dropped in
    silence. A token whose anchor has no log-prob belongs out of `response_mask`.
    """

    def __init__(self, logp: Tensor, advantage: Tensor, response_mask: Tensor) -> None:
        """logp [B, T], in any float dtype and with a graph; advantage [B, T], or [B, 1] for one a response."""
        if logp.ndim != 2:
            raise ValueError(f"logp must be [B, T], but has shape {tuple(logp.shape)}")
        self.mask = self._whole(response_mask, "response_mask", logp.shape).bool()
        self._logp = torch.where(self.mask, logp, 0.0)
        self.logp = self._logp.detach().double()
        """log π(a) [B, T], float64, without a graph, 0 where not counted; so are all inputs below."""
        self.advantage = self.fixed(advantage, "advantage")

    def fixed(self, values: Tensor, name: str) -> Tensor:
        """An input [B, T] (or [B, 1]) as float64 without a graph, 0 where not counted."""
        whole = self._whole(values.detach(), name, self.mask.shape)
        return torch.where(self.mask, whole.double(), 0.0)

    def log_ratio(self, logp_anchor: Tensor, name: str = "logp_anchor") -> Tensor:
        """log π(a)/anchor(a) [B, T]."""
        return self.logp - self.fixed(logp_anchor, name)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the counted tokens of each response, [B, T] → [B, 1]; 0 where a response has none."""
        return values.sum(-1, keepdim=True) / self.mask.sum(-1, keepdim=True).clamp(min=1)

    def loss(
        self, decided: tuple[Tensor, Tensor], aggregation: Aggregation | AggregationMode, value: Tensor | None = None
    ) -> PolicyLoss:
        """The loss with gradient −coef, from (coef, keep) as `dppo_core.masks.coefficients` returns them.

        `value` [B, T] is what the loss is worth, −coef·log π where that is left out. A mask that is not known makes
        coef NaN, which the loss shows.
        """
        coef, keep = decided  # 0 where not counted, as A is
        value = -coef * self.logp if value is None else value
        dtype = torch.promote_types(self._logp.dtype, torch.float32)  # a sum over a batch is no place for bfloat16
        slope = _finite(coef, dtype) * (self._logp - self._logp.detach()).to(dtype)
        scalar = aggregate(_finite(value, dtype) - slope, self.mask, aggregation)
        return PolicyLoss(scalar, coef, self.mask & keep, self.mask & (self.advantage != 0))

    @staticmethod
    def _whole(values: Tensor, name: str, shape: torch.Size) -> Tensor:
        if values.shape == shape:
            return values
        if values.shape == (shape[0], 1):
            return values.expand(shape)
        raise ValueError(f"{name} has shape {tuple(values.shape)}, not {tuple(shape)}")


def with_the_sign_of(advantage: Tensor, coef: Tensor) -> tuple[Tensor, Tensor]:
    """(coef, keep) of a method without a mask: kept where the gradient has not turned against A."""
    return coef, (coef * advantage > 0) | (advantage == 0)


def _finite(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to `dtype`; what overflows is its largest number, so that 0·∞ does not make a NaN. NaN stays."""
    limits = torch.finfo(dtype)
    return values.clamp(limits.min, limits.max).to(dtype)
