"""Tokens for tests of methods, from probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from dppo_core.methods.registry import Coefficients
from dppo_core.tokens import TokenArrays

__all__ = ["coef_of", "keep_of", "tokens"]

NAN = math.nan


def tokens(
    advantage: Sequence[float],
    mu: Sequence[float] | None = None,
    old: Sequence[float] | None = None,
    new: Sequence[float] | None = None,
    **statistics: Sequence[float],
) -> TokenArrays:
    """One response: probabilities of the sampled tokens under μ, π_old and π (NaN = not known), stored statistics."""

    def logs(values: Sequence[float] | None) -> torch.Tensor | None:
        return None if values is None else torch.tensor(values, dtype=torch.float64).log()

    return TokenArrays(
        advantage=torch.tensor(advantage, dtype=torch.float64),
        sequence=torch.zeros(len(advantage), dtype=torch.long),
        logp_rollout=logs(mu),
        logp_old=logs(old),
        logp_new=logs(new),
        statistics={name: torch.tensor(values, dtype=torch.float64) for name, values in statistics.items()},
    )


def keep_of(found: Coefficients) -> list[bool | None]:
    """The decisions; None where not known."""
    return [bool(keep) if known else None for keep, known in zip(found.keep, found.known, strict=True)]


def coef_of(found: Coefficients) -> list[float | None]:
    """The coefficients; None where not known."""
    return [None if math.isnan(value) else value for value in found.coef.tolist()]
