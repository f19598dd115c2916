"""Paired comparisons over seeds, Holm's correction, exact binomial intervals and a bootstrap over prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

__all__ = ["Estimate", "bootstrap", "clopper_pearson", "holm", "mean_interval", "student_quantile", "student_tail"]


@dataclass(frozen=True)
class Estimate:
    """A mean or difference, its 95 % interval, its two-sided p against 0 (None: not tested) and its sample size."""

    value: float
    low: float
    high: float
    p: float | None
    n: int


def student_tail(t: float, df: int) -> float:
    """P(|T| > |t|) of Student's t with a whole number `df` ≥ 1 of degrees of freedom.

    The finite series in θ = atan(t/√df): Abramowitz & Stegun 26.7.3 (odd df) and 26.7.4 (even df).
    """
    if df < 1:
        raise ValueError(f"df is at least 1, not {df}")
    angle = math.atan(abs(t) / math.sqrt(df))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    term, total = 1.0, 0.0
    if df % 2:
        for k in range(1, (df - 1) // 2 + 1):
            total += term
            term *= square * 2 * k / (2 * k + 1)
        inside = 2 / math.pi * (angle + sine * math.cos(angle) * total)
    else:
        for k in range(1, df // 2 + 1):
            total += term
            term *= square * (2 * k - 1) / (2 * k)
        inside = sine * total
    return max(0.0, 1.0 - inside)


def student_quantile(level: float, df: int) -> float:
    """The t > 0 with P(|T| ≤ t) = level, 0 < level < 1, by bisection."""
    low, high = 0.0, 1.0
    while student_tail(high, df) > 1 - level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, df) > 1 - level else (low, middle)
    return high


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean of at least two independent values with its t-interval, and the p of a mean of 0.

    Of paired runs, `values` are the differences by seed. Raises ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, not {len(values)}")
    mean, error = fmean(values), stdev(values) / math.sqrt(len(values))
    df = len(values) - 1
    half = student_quantile(level, df) * error
    p = student_tail(mean / error, df) if error else float(mean == 0)
    return Estimate(mean, mean - half, mean + half, p, len(values))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p of each of a family: the i-th smallest times (m − i + 1), never decreasing, ≤ 1."""
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, p_values[name] * (len(p_values) - place)))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of a share, hits of n."""
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} of {n} is no share")
    tail = (1 - level) / 2

    def above(p: float) -> float:  # P(X ≥ hits)
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))

    def below(p: float) -> float:  # P(X ≤ hits)
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits + 1))

    low = 0.0 if hits == 0 else _root(lambda p: above(p) - tail)
    high = 1.0 if hits == n else _root(lambda p: tail - below(p))
    return low, high


def _root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def bootstrap(sums_GK: Tensor, statistic: Callable[[Tensor], Tensor], *, draws: int = 2000, seed: int = 0) -> Estimate:
    """A function of sums over tokens, with a 95 % percentile interval from resampling the G prompts.

    sums_GK: each prompt's sums of K quantities, float64. statistic: [D, K] sums of D resamples → [D]. Tokens of one
    prompt are dependent, prompts are not.
    """
    groups = len(sums_GK)
    drawn = torch.randint(groups, (draws, groups), generator=torch.Generator().manual_seed(seed))
    resampled = torch.stack([sums_GK[row].sum(0) for row in drawn])
    values = statistic(resampled)
    values = values[~values.isnan()]
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return Estimate(float(statistic(sums_GK.sum(0, keepdim=True))), low, high, None, groups)
