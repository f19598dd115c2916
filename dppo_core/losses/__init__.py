"""Differentiable policy losses: pure functions on tensors [B, T], for any trainer.

    aggregate      token-mean, seq-mean-token-mean, seq-mean-token-sum, seq-mean-token-sum-norm
    clipping       PPO and GRPO (clip-higher, dual clip), MiniRL with and without TIS, GSPO
    weighting      PG-IS, PG-TIS, CISPO
    divergence     DPPO {binary, top-K, exact} × {TV, KL} × {rollout, old anchor}, CPPO
    smooth         SAPO, DRPO
    bounded_ratio  GBPO
    registered     any method of `dppo_core.methods.catalog`

Log-probs, advantages and response_mask are [B, T], in any float dtype; the first argument carries the graph. Masks and
weights are decided in float64 and detached; positions with response_mask = 0 may hold anything and get no gradient.
"""

from dppo_core.losses.aggregate import Aggregation, AggregationMode, aggregate
from dppo_core.losses.bounded_ratio import gbpo_loss, gbpo_target
from dppo_core.losses.clipping import gspo_loss, minirl_loss, ppo_loss
from dppo_core.losses.divergence import BinaryDivergence, cppo_loss, dppo_loss
from dppo_core.losses.registered import method_loss
from dppo_core.losses.smooth import drpo_loss, sapo_loss
from dppo_core.losses.surrogate import PolicyLoss
from dppo_core.losses.weighting import cispo_loss, pg_is_loss, pg_tis_loss

__all__ = [
    "Aggregation",
    "AggregationMode",
    "BinaryDivergence",
    "PolicyLoss",
    "aggregate",
    "cispo_loss",
    "cppo_loss",
    "dppo_loss",
    "drpo_loss",
    "gbpo_loss",
    "gbpo_target",
    "gspo_loss",
    "method_loss",
    "minirl_loss",
    "pg_is_loss",
    "pg_tis_loss",
    "ppo_loss",
    "sapo_loss",
]
