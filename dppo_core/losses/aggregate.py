"""From one loss per token [B, T] to the scalar that a trainer differentiates, under verl's names.

    token-mean                Σ loss / N                      N counted tokens of the batch
    seq-mean-token-mean       Σ_i (Σ_t loss_it / n_i) / S     n_i counted tokens of response i, S responses
    seq-mean-token-sum        Σ_i  Σ_t loss_it / S
    seq-mean-token-sum-norm   Σ_i (Σ_t loss_it / L) / S       L one length for all, so that long responses weigh more

A response without a counted token is no response: S leaves it out. Older verl, Stable-RL's copy among them, has no 1/S
in seq-mean-token-sum-norm: `Aggregation(…, sequences=1)` here. A batch without any counted token has the loss 0 and no
gradient, as a micro-batch may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["Aggregation", "AggregationMode", "aggregate"]

AggregationMode = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


@dataclass(frozen=True)
class Aggregation:
    """How token losses become a scalar, where a batch is a part of a larger one.

    tokens, sequences: N and S of the global batch, divided by the number of ranks where the trainer averages gradients
    over ranks; None = this batch's own. horizon: L (tokens) of `seq-mean-token-sum-norm`; None = the width T.
    """

    mode: AggregationMode = "token-mean"
    tokens: float | None = None
    sequences: float | None = None
    horizon: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(AggregationMode):
            raise ValueError(f"{self.mode!r} is not an aggregation; one of: {', '.join(get_args(AggregationMode))}")


def aggregate(
    token_loss: Tensor, response_mask: Tensor, aggregation: Aggregation | AggregationMode = "token-mean"
) -> Tensor:
    """The scalar loss of `token_loss` [B, T] over the tokens with `response_mask` [B, T] ≠ 0.

    What stands at other positions does not matter, NaN included; the gradient there is exactly 0. Raises ValueError
    for an unknown mode or for shapes that differ.
    """
    if isinstance(aggregation, str):
        aggregation = Aggregation(aggregation)
    if token_loss.shape != response_mask.shape:
        raise ValueError(f"response_mask has shape {tuple(response_mask.shape)}, not {tuple(token_loss.shape)}")
    counted = response_mask.bool()
    token_loss = torch.where(counted, token_loss, 0.0)
    lengths = counted.sum(-1)
    if aggregation.mode == "token-mean":
        return token_loss.sum() / _at_least_one(aggregation.tokens, lengths.sum())
    per_sequence = token_loss.sum(-1)
    if aggregation.mode == "seq-mean-token-mean":
        per_sequence = per_sequence / lengths.clamp(min=1)
    elif aggregation.mode == "seq-mean-token-sum-norm":
        per_sequence = per_sequence / (token_loss.shape[-1] if aggregation.horizon is None else aggregation.horizon)
    return per_sequence.sum() / _at_least_one(aggregation.sequences, (lengths > 0).sum())


def _at_least_one(given: float | None, own: Tensor) -> Tensor | float:
    return own.clamp(min=1) if given is None else given
