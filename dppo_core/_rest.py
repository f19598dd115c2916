"""Sums over the part of the vocabulary that is not held, a tile of rows at a time: where the statistics' time goes.

Every pass over [R, V] is in place or into scratch memory that exists, and a tile is small enough to stay in cache
from one pass to the next. What is needed once a row, not once a logit, is left to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["FILL", "FLOOR", "RestSums", "Scratch", "row_sums"]

FILL = -1e30  # stands for a held entry in the float32 buffers: exp() of it is 0
FLOOR = -1e29  # stands for a logit of −inf, so that no 0·inf appears
_BLOCK, _WIDE = 64, 1 << 14


@dataclass(frozen=True)
class RestSums:
    """Per row, over v outside the held ids; [N] float64. x, y: the two policies' logits minus their largest one.

    peak_*: that largest logit; log_scale_*: log Z − peak, so that log π(v) = x(v) − log_scale; total_*: Σ exp x;
    weighted_*: Σ x·exp x; squares_new: Σ exp 2y; moved: Σ exp(x)·(y − x); distance: Σ |π_old − π_new|.
    """

    peak_old: Tensor
    peak_new: Tensor
    log_scale_old: Tensor
    log_scale_new: Tensor
    total_old: Tensor
    total_new: Tensor
    weighted_old: Tensor
    weighted_new: Tensor
    squares_new: Tensor
    moved: Tensor
    distance: Tensor

    @staticmethod
    def concatenate(parts: list[RestSums]) -> RestSums:
        """One record out of consecutive ones."""
        return RestSums(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(RestSums)))


def row_sums(values_RV: Tensor) -> Tensor:
    """Σ of each row, [R] float64: float32 in short blocks, whose rounding averages out, float64 over them.

    A sum in float64 throughout first writes every value as float64; small vocabularies can afford it.
    """
    rows, vocab = values_RV.shape
    if vocab < _WIDE:
        return values_RV.sum(1, dtype=torch.float64)
    whole = vocab // _BLOCK * _BLOCK
    tail = values_RV[:, whole:].sum(1, dtype=torch.float64)
    return values_RV[:, :whole].view(rows, -1, _BLOCK).sum(2).sum(1, dtype=torch.float64) + tail


class Scratch:
    """Three [tile_rows, V] float32 buffers, reused for every tile."""

    def __init__(self, tile_rows: int, vocab_size: int, temperature: float, device: torch.device | str) -> None:
        self.tile_rows, self.temperature = tile_rows, temperature
        self._exp_old = torch.empty(tile_rows, vocab_size, device=device)
        self._exp_new = torch.empty(tile_rows, vocab_size, device=device)
        self._product = torch.empty(tile_rows, vocab_size, device=device)

    def sums(self, x_NV: Tensor, y_NV: Tensor, log_held_old: Tensor, log_held_new: Tensor) -> RestSums:
        """The sums of two policies' logits, which are overwritten; held entries are FILL already.

        log_held_*: [N] float64, logsumexp of the held logits divided by the temperature.
        """
        rows = range(0, x_NV.shape[0], self.tile_rows)
        at = [slice(row, row + self.tile_rows) for row in rows]
        return RestSums.concatenate([self._tile(x_NV[i], y_NV[i], log_held_old[i], log_held_new[i]) for i in at])

    def _tile(self, x_RV: Tensor, y_RV: Tensor, log_held_old: Tensor, log_held_new: Tensor) -> RestSums:
        rows = x_RV.shape[0]
        p_RV, q_RV, t_RV = self._exp_old[:rows], self._exp_new[:rows], self._product[:rows]
        peak_old, total_old, weighted_old = self._exponentials(x_RV, p_RV, t_RV)
        peak_new, total_new, weighted_new = self._exponentials(y_RV, q_RV, t_RV)
        log_scale_old = torch.logaddexp(log_held_old, peak_old + torch.log(total_old)) - peak_old
        log_scale_new = torch.logaddexp(log_held_new, peak_new + torch.log(total_new)) - peak_new

        squares_new = torch.linalg.vector_norm(q_RV, dim=1).double().square()
        y_RV.sub_(x_RV)  # before any product: what the two have in common is gone exactly
        moved = row_sums(torch.mul(p_RV, y_RV, out=t_RV))
        # The larger of the two scales is taken out, so that neither underflows where the other does not.
        log_scale = torch.minimum(log_scale_old, log_scale_new)
        p_RV.mul_(torch.exp(log_scale - log_scale_old).float().unsqueeze(1))
        p_RV.addcmul_(q_RV, torch.exp(log_scale - log_scale_new).float().unsqueeze(1), value=-1)
        distance = row_sums(p_RV.abs_()) * torch.exp(-log_scale)
        return RestSums(
            peak_old=peak_old,
            peak_new=peak_new,
            log_scale_old=log_scale_old,
            log_scale_new=log_scale_new,
            total_old=total_old,
            total_new=total_new,
            weighted_old=weighted_old,
            weighted_new=weighted_new,
            squares_new=squares_new,
            moved=moved,
            distance=distance,
        )

    def _exponentials(self, x_RV: Tensor, e_RV: Tensor, t_RV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Leaves x/T relative to the row's largest logit and exp of it in e; that logit, Σe and Σe·x."""
        peak = x_RV.amax(1, keepdim=True)
        peak = torch.where(peak <= FLOOR, 0.0, peak)  # nothing left outside the held ids
        x_RV.sub_(peak)
        if self.temperature != 1.0:
            x_RV.div_(self.temperature)  # after the subtraction: rounding is relative to the distance from the peak
        total = row_sums(torch.exp(x_RV, out=e_RV))
        weighted = row_sums(torch.mul(e_RV, x_RV, out=t_RV))
        if bool(weighted.isnan().any()):  # 0·(−inf): such logits are rare, a pass over all of them is not free
            x_RV.clamp_(min=FLOOR)
            weighted = row_sums(torch.mul(e_RV, x_RV, out=t_RV))
        return peak.squeeze(1).double() / self.temperature, total, weighted
