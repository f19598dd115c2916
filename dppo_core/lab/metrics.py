"""What is kept of an iteration: one number a column."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dppo_core.lab.train import Step

__all__ = ["COLUMNS", "measure"]

COLUMNS = {
    "reward": "mean reward of the responses",
    "length": "mean response length, tokens",
    "entropy": "mean entropy of μ, nats",
    "mean_abs_dp": "mean |π(a) − μ(a)| over the response tokens, π at the token's gradient",
    "engine": "mean |π at the weights that sampled − μ|: what rounding does",
    "stale": "mean |π at the iteration's start − π at the weights that sampled|",
    "update": "mean |π at the gradient − π at the iteration's start|",
    "max_dp": "largest π(a) − μ(a)",
    "min_dp": "smallest π(a) − μ(a)",
    "bad_update": "share of the tokens with A ≠ 0 that have A < 0 and μ(a) − π(a) ≥ .5",
    "drop_positive": "share of the tokens with A > 0 that the method drops",
    "drop_negative": "share of the tokens with A < 0 that the method drops",
    "signal": "share of the responses with A ≠ 0",
    "loss": "mean loss of the minibatches",
    "grad_norm": "mean norm of their gradients, before clipping",
}
"""Columns of a stored run. The three parts are taken where they were computed, on a part of the responses, and are
means of absolute values: they do not add up to mean_abs_dp."""


def measure(step: Step) -> dict[str, float]:
    """The columns of an iteration; NaN where there is nothing to take a mean of."""
    counted = step.counted
    advantage = step.advantage.unsqueeze(1).expand_as(counted)[counted]
    rollout, start, behind, new = (
        values[counted].double().exp()
        for values in (step.logp_rollout, step.logp_start, step.logp_behind, step.logp_new)
    )
    keep, moved = step.keep[counted], new - rollout
    bad = (advantage < 0) & (-moved >= 0.5)
    decided = int((advantage != 0).sum())
    return {
        "reward": float(step.reward.mean(dtype=torch.float64)),
        "length": float(counted.sum(1).double().mean()),
        "entropy": float(step.entropy[counted].double().mean()),
        "mean_abs_dp": float(moved.abs().mean()),
        "engine": _mean_known((behind - rollout).abs()),
        "stale": _mean_known((start - behind).abs()),
        "update": _mean_known((new - start).abs()),
        "max_dp": float(moved.max()),
        "min_dp": float(moved.min()),
        "bad_update": int(bad.sum()) / decided if decided else math.nan,
        "drop_positive": float((~keep[advantage > 0]).double().mean()),
        "drop_negative": float((~keep[advantage < 0]).double().mean()),
        "signal": float((step.advantage != 0).double().mean()),
        "loss": sum(step.loss) / len(step.loss),
        "grad_norm": sum(step.grad_norm) / len(step.grad_norm),
    }


def _mean_known(values: Tensor) -> float:
    return float(values[~values.isnan()].mean())
