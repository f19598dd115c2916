"""A loss from any registered method: what can be analysed can be trained with."""

from __future__ import annotations

import torch
from torch import Tensor

from dppo_core.losses.aggregate import Aggregation, AggregationMode
from dppo_core.losses.surrogate import CountedTokens, PolicyLoss
from dppo_core.methods.registry import Method, Parameter
from dppo_core.tokens import TokenArrays

__all__ = ["method_loss"]


def method_loss(
    method: Method,
    logp: Tensor,
    advantage: Tensor,
    response_mask: Tensor,
    *,
    logp_rollout: Tensor | None = None,
    logp_old: Tensor | None = None,
    reward: Tensor | None = None,
    group: Tensor | None = None,
    statistics: dict[str, Tensor] | None = None,
    variant: str | None = None,
    parameters: dict[str, Parameter] | None = None,
    aggregation: Aggregation | AggregationMode = "token-mean",
) -> PolicyLoss:
    """−sg(coef)·A·log π with the coefficient of a method of `dppo_core.methods.catalog.METHODS`.

    logp, logp_*, advantage, response_mask: [B, T]; reward, group: [B]; statistics: [B, T] each, under the names of
    `TokenArrays.statistics` (`tv_topk_rollout`, …). Raises `Unavailable` where the method needs an input that is not
    given. Written for whichever method has no loss of its own; its value is −coef·log π, not a published objective.
    """
    tokens = CountedTokens(logp, advantage, response_mask)
    counted = tokens.mask

    def flat(values: Tensor | None, name: str) -> Tensor | None:
        return None if values is None else tokens.fixed(values, name)[counted]

    arrays = TokenArrays(
        advantage=tokens.advantage[counted],
        sequence=torch.nonzero(counted)[:, 0],
        logp_rollout=flat(logp_rollout, "logp_rollout"),
        logp_old=flat(logp_old, "logp_old"),
        logp_new=tokens.logp[counted],
        reward=reward,
        group=group,
        statistics={name: tokens.fixed(values, name)[counted] for name, values in (statistics or {}).items()},
    )
    found = method(arrays, variant, **(parameters or {}))
    coef, keep = torch.zeros_like(tokens.logp), torch.zeros_like(counted)
    coef[counted], keep[counted] = found.coef, found.keep
    return tokens.loss((coef, keep), aggregation)
