"""The methods that the lab trains with: each is one call of `dppo_core.losses` on a minibatch.

Shapes: B responses, L response tokens, N counted ones (row by row), K listed tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from dppo_core.divergence import binary_tv, topk_kl, topk_tv
from dppo_core.lab.settings import Settings
from dppo_core.losses import (
    Aggregation,
    BinaryDivergence,
    PolicyLoss,
    dppo_loss,
    method_loss,
    minirl_loss,
    pg_is_loss,
    pg_tis_loss,
    ppo_loss,
)
from dppo_core.masks import keep_ppo
from dppo_core.methods.catalog import METHODS as REGISTERED
from dppo_core.rate_match import rate_matched_delta
from dppo_core.topk import logged_support

__all__ = ["METHODS", "LabMethod", "Minibatch", "exact_tv", "topk_divergence"]


@dataclass(frozen=True)
class Minibatch:
    """What a loss sees. `logp` [B, L] carries the graph; everything else is data.

    logits [N, V]: the trainer's, without a graph. logp_rollout, logp_old [B, L] (old: where the method needs it);
    advantage [B, 1]; counted [B, L]; sampled [N]. top_ids, top_logp [B, L, K] and logp_all [B, L, V]: the sampler's,
    where the method needs them. aggregation: of the minibatch.
    """

    logp: Tensor
    logits: Tensor
    sampled: Tensor
    logp_rollout: Tensor
    advantage: Tensor
    counted: Tensor
    aggregation: Aggregation
    logp_old: Tensor | None = None
    top_ids: Tensor | None = None
    top_logp: Tensor | None = None
    logp_all: Tensor | None = None

    def padded(self, values_N: Tensor) -> Tensor:
        """[N] → [B, L], 0 where not counted."""
        return values_N.new_zeros(self.counted.shape).masked_scatter(self.counted, values_N)


@dataclass(frozen=True)
class LabMethod:
    """A method by its title and its loss. `needs`: old, the top-K lists, or everything (log μ over the vocabulary)."""

    title: str
    loss: Callable[[Minibatch, Settings], PolicyLoss]
    needs: frozenset[Literal["old", "top_k", "everything"]] = frozenset()


def topk_divergence(batch: Minibatch, metric: Literal["tv", "kl"], k: int) -> Tensor:
    """Top-K divergence μ → π [B, L] over the sampler's list, the sampled token and the rest. arXiv:2602.04879
    Eq. 15–16."""
    assert batch.top_ids is not None
    assert batch.top_logp is not None
    counted = batch.counted
    sampled_logp = batch.logp_rollout[counted]
    support = logged_support(batch.top_ids[counted], batch.top_logp[counted], batch.sampled, sampled_logp, k, "paper")
    valid = support.ids >= 0
    ids = torch.where(valid, support.ids, batch.sampled.unsqueeze(1))  # a place that is not used repeats a used one
    log_total = batch.logits.logsumexp(1, keepdim=True)
    logq = (batch.logits.gather(1, ids) - log_total).double()
    rest_q = (batch.logits.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True) - log_total).squeeze(1).double()
    divergence = topk_tv if metric == "tv" else topk_kl
    return batch.padded(divergence(support.logp.nan_to_num(0.0), logq, valid, support.log_rest, rest_q))


def exact_tv(batch: Minibatch) -> Tensor:
    """TV μ → π over the whole vocabulary [B, L]; known because the sampler's distribution is kept."""
    assert batch.logp_all is not None
    distance = (batch.logp_all[batch.counted].exp() - batch.logits.softmax(1)).abs().sum(1, dtype=torch.float64)
    return batch.padded(0.5 * distance)


def _pg_is(batch: Minibatch, _: Settings) -> PolicyLoss:
    return pg_is_loss(batch.logp, batch.logp_rollout, batch.advantage, batch.counted, aggregation=batch.aggregation)


def _pg_tis(batch: Minibatch, settings: Settings) -> PolicyLoss:
    return pg_tis_loss(
        batch.logp,
        batch.logp_rollout,
        batch.advantage,
        batch.counted,
        weight_cap=settings.weight_cap,
        aggregation=batch.aggregation,
    )


def _grpo(batch: Minibatch, settings: Settings) -> PolicyLoss:
    return ppo_loss(
        batch.logp,
        batch.logp_rollout,
        batch.advantage,
        batch.counted,
        eps_low=settings.eps_low,
        eps_high=settings.eps_high,
        aggregation=batch.aggregation,
    )


def _minirl(batch: Minibatch, settings: Settings, *, truncated: bool) -> PolicyLoss:
    assert batch.logp_old is not None
    return minirl_loss(
        batch.logp,
        batch.logp_old,
        batch.logp_rollout,
        batch.advantage,
        batch.counted,
        eps_low=settings.eps_low,
        eps_high=settings.eps_high,
        weight_cap=settings.weight_cap if truncated else None,
        aggregation=batch.aggregation,
    )


def _delta(divergence: str, settings: Settings) -> float:
    return settings.delta_tv if divergence.endswith("tv") else settings.delta_kl


def _dppo(batch: Minibatch, settings: Settings, *, divergence: str) -> PolicyLoss:
    """From μ. The binary divergence is the loss's own; the others are measured here, over what the sampler kept."""
    measured: Any = divergence
    if divergence == "topk_tv":
        measured = topk_divergence(batch, "tv", settings.top_k)
    elif divergence == "topk_kl":
        measured = topk_divergence(batch, "kl", settings.top_k)
    elif divergence == "exact_tv":
        measured = exact_tv(batch)
    return dppo_loss(
        batch.logp,
        batch.logp_rollout,
        batch.advantage,
        batch.counted,
        divergence=measured,
        delta_low=_delta(divergence, settings),
        delta_high=_delta(divergence, settings),
        aggregation=batch.aggregation,
    )


def _dppo_old(batch: Minibatch, settings: Settings, *, divergence: BinaryDivergence) -> PolicyLoss:
    """Stable-RL's recompute: the mask from π_old, the weight π/μ."""
    assert batch.logp_old is not None
    return dppo_loss(
        batch.logp,
        batch.logp_old,
        batch.advantage,
        batch.counted,
        divergence=divergence,
        delta_low=_delta(divergence, settings),
        delta_high=_delta(divergence, settings),
        logp_weight=batch.logp_rollout,
        aggregation=batch.aggregation,
    )


def _dppo_matched(batch: Minibatch, settings: Settings) -> PolicyLoss:
    """Binary TV at the δ that drops as many tokens of each sign as PPO's ε would, in this minibatch."""
    advantage = batch.advantage.expand_as(batch.counted)[batch.counted].double()
    logp, anchor = batch.logp.detach()[batch.counted].double(), batch.logp_rollout[batch.counted].double()
    log_ratio = logp - anchor
    ppo = keep_ppo(log_ratio, advantage, settings.eps_low, settings.eps_high)
    low, high = (rate_matched_delta(binary_tv(anchor, logp), log_ratio, advantage, ppo, sign).delta for sign in (-1, 1))
    return dppo_loss(
        batch.logp,
        batch.logp_rollout,
        batch.advantage,
        batch.counted,
        delta_low=low,
        delta_high=high,
        aggregation=batch.aggregation,
    )


def _bad_update(batch: Minibatch, settings: Settings) -> PolicyLoss:
    return method_loss(
        REGISTERED["bad_update"],
        batch.logp,
        batch.advantage,
        batch.counted,
        logp_rollout=batch.logp_rollout,
        parameters={"delta": settings.bad_update},
        aggregation=batch.aggregation,
    )


METHODS: dict[str, LabMethod] = {
    "pg_is": LabMethod("PG-IS", _pg_is),
    "pg_tis": LabMethod("PG-TIS (CISPO)", _pg_tis),
    "grpo": LabMethod("GRPO, clip-higher", _grpo),
    "minirl": LabMethod("MiniRL", partial(_minirl, truncated=False), frozenset({"old"})),
    "minirl_tis": LabMethod("MiniRL-TIS", partial(_minirl, truncated=True), frozenset({"old"})),
    "dppo_binary_tv": LabMethod("DPPO binary TV", partial(_dppo, divergence="binary_tv")),
    "dppo_binary_kl": LabMethod("DPPO binary KL", partial(_dppo, divergence="binary_kl")),
    "dppo_binary_tv_old": LabMethod(
        "DPPO binary TV from π_old", partial(_dppo_old, divergence="binary_tv"), frozenset({"old"})
    ),
    "dppo_binary_kl_old": LabMethod(
        "DPPO binary KL from π_old", partial(_dppo_old, divergence="binary_kl"), frozenset({"old"})
    ),
    "dppo_topk_tv": LabMethod("DPPO top-K TV", partial(_dppo, divergence="topk_tv"), frozenset({"top_k"})),
    "dppo_topk_kl": LabMethod("DPPO top-K KL", partial(_dppo, divergence="topk_kl"), frozenset({"top_k"})),
    "dppo_exact_tv": LabMethod("DPPO exact TV", partial(_dppo, divergence="exact_tv"), frozenset({"everything"})),
    "dppo_matched": LabMethod("DPPO binary TV, δ matched to ε", _dppo_matched),
    "bad_update": LabMethod("mask of bad updates only", _bad_update),
}
"""Every method of the lab by name, all with the same hyper-parameters. The anchor is μ unless the title says π_old."""
