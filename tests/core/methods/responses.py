"""Tokens for tests of methods that decide over a response or a prompt: one list of numbers a response."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import torch

from dppo_core.tokens import TokenArrays

__all__ = ["mismatched", "responses"]

Nested = Sequence[Sequence[float]]


def responses(
    advantage: Sequence[float] | Nested,
    mu: Nested | None = None,
    old: Nested | None = None,
    new: Nested | None = None,
    proximal: Nested | None = None,
    group: Sequence[int] | None = None,
    reward: Sequence[float] | None = None,
    **statistics: Nested,
) -> TokenArrays:
    """Probabilities of the sampled tokens under each policy (NaN = not known), and stored statistics; the advantage
    of each response or of each token."""
    shape = next(values for values in (mu, old, new) if values is not None)
    lengths = [len(of_response) for of_response in shape]

    def flat(values: Nested | None, log: bool = True) -> torch.Tensor | None:
        if values is None:
            return None
        tensor = torch.tensor(list(chain.from_iterable(values)), dtype=torch.float64)
        return tensor.log() if log else tensor

    advantages = [a if isinstance(a, Sequence) else [a] * length for a, length in zip(advantage, lengths, strict=True)]
    flat_advantage = flat(advantages, log=False)
    assert flat_advantage is not None
    return TokenArrays(
        advantage=flat_advantage,
        sequence=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        logp_rollout=flat(mu),
        logp_old=flat(old),
        logp_new=flat(new),
        logp_proximal=flat(proximal),
        group=None if group is None else torch.tensor(group),
        reward=None if reward is None else torch.tensor(reward, dtype=torch.float64),
        statistics={
            name: tensor for name, values in statistics.items() if (tensor := flat(values, log=False)) is not None
        },
    )


def mismatched(advantage: Sequence[float] | Nested, rho: Nested, ratio: Nested) -> TokenArrays:
    """Tokens with these ρ = π_old/μ and r′ = π/π_old; their logs are stored, so that a bound can be met exactly."""

    def logs(values: Nested) -> list[list[float]]:
        return [[math.log(value) for value in of_response] for of_response in values]

    log_rho, log_ratio = logs(rho), logs(ratio)
    both = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(log_rho, log_ratio, strict=True)]
    mu = [[0.001] * len(of_response) for of_response in rho]
    old = [[0.001 * value for value in of_response] for of_response in rho]
    new = [[0.001 * math.exp(value) for value in of_response] for of_response in both]
    return responses(advantage, mu, old, new, log_mismatch=log_rho, log_ratio_old=log_ratio, log_ratio_rollout=both)
