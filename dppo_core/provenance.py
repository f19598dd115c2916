"""Where logged log-probs come from: what explains them better than what the run says of them.

A checkpoint gives log π(a) of the logged tokens at any temperature, over the full vocabulary or within a nucleus; each
is an explanation [N] of what was logged [N]. All in float64 and nats; NaN means "not known" and is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Fit",
    "clearly_better",
    "fit",
    "fit_temperature",
    "leaning",
    "sampled_logprobs",
    "shifted",
    "telling",
    "truncated_logprobs",
]

CERTAIN = 0.1  # nats; where the log and the model are both nearer to p = 1, every explanation fits
CUT = 1.0  # nats; differences are cut there, so that no token decides alone
MATTERS = 1e-4  # nats; what batch layouts alone move a float32 log-prob by
SURE, PRECISE = 2.0, 0.25  # standard errors beyond the middle, and how large one may be: four between 0 and a doubt
_TILE = 32  # rows that are float64 at once
_COLDEST, _HOTTEST, _STEPS = 0.25, 4.0, 16


@dataclass(frozen=True)
class Fit:
    """How well an explanation fits `n` tokens: the median |logged − explained| in nats; least-squares slope of the
    logged on the explained log-probs, and their correlation. NaN without tokens, or where nothing varies."""

    n: int
    median: float
    slope: float
    correlation: float


def fit(logged: Tensor, explained: Tensor) -> Fit:
    """The fit over the tokens [N] that are known in both."""
    known = ~(logged.isnan() | explained.isnan())
    y, x = logged[known].double(), explained[known].double()
    if not len(y):
        return Fit(0, math.nan, math.nan, math.nan)
    dy, dx = y - y.mean(), x - x.mean()
    xy, xx, yy = (float((a * b).sum()) for a, b in ((dx, dy), (dx, dx), (dy, dy)))
    varies = xx > 0 and yy > 0
    return Fit(
        n=len(y),
        median=float((y - x).abs().quantile(0.5)),
        slope=xy / xx if varies else math.nan,
        correlation=xy / math.sqrt(xx * yy) if varies else math.nan,
    )


def telling(logged: Tensor, explained: Tensor) -> Tensor:
    """Bool [N]: known in both, and by one of them not nearly certain, so that explanations can differ there."""
    return torch.minimum(logged, explained) < -CERTAIN  # NaN is not below


def leaning(logged: Tensor, claimed: Tensor, other: Tensor) -> tuple[float, float]:
    """Where the log lies between two explanations [N], 0 = at `claimed` and 1 = at `other`, and its standard error.

    Least squares of logged − claimed on other − claimed through the origin, each cut at ±1 nat: Σde / Σd², with White's
    error √Σd²(e − bd)² / Σd². Noise of the log that does not depend on the explanations leaves it where it is, even
    where it is larger than what they differ by. NaN where they nowhere differ.
    """
    known = ~(logged.isnan() | claimed.isnan() | other.isnan())
    e = (logged - claimed)[known].double().clamp(-CUT, CUT)
    d = (other - claimed)[known].double().clamp(-CUT, CUT)
    dd = float((d * d).sum())
    if dd == 0:
        return math.nan, math.nan
    b = float((d * e).sum()) / dd
    return b, math.sqrt(float((d * (e - b * d)).square().sum())) / dd


def clearly_better(logged: Tensor, claimed: Tensor, other: Tensor) -> bool:
    """Whether `other` explains the log better beyond doubt: the log lies nearer to it by two standard errors of at most
    ¼ (so four away from `claimed`), and the median |Δ| over the same tokens is lower by more than arithmetic."""
    known = ~(claimed.isnan() | other.isnan())
    b, error = leaning(logged, claimed, other)
    gain = fit(logged[known], claimed[known]).median - fit(logged[known], other[known]).median
    return b - SURE * error > 0.5 and error <= PRECISE and gain > MATTERS


def shifted(values: Tensor, response: Tensor, position: Tensor, by: int) -> Tensor:
    """For each token [N] the value `by` places further on in its response; NaN where that is no token of these.

    response, position [N]: which response a token is of, and where it stands there.
    """
    at = torch.arange(len(values)) + by
    inside = (at >= 0) & (at < len(values))
    at = at.clamp(0, max(0, len(values) - 1))
    beside = inside & (response[at] == response) & (position[at] == position + by)
    return values[at].where(beside, torch.nan)


def sampled_logprobs(logits: Tensor, sampled: Tensor, temperature: float) -> Tensor:
    """log π_T(a) [N] of the `sampled` ids [N] from logits [N, V]: the log-softmax of logits / T."""
    return torch.cat([_sampled(rows, ids, temperature) for rows, ids in _tiles(logits, sampled)])


def truncated_logprobs(logits: Tensor, sampled: Tensor, temperature: float, top_p: float, top_k: int) -> Tensor:
    """log π_T(a) renormalised within the top-k, then the smallest set of those with mass `top_p`: log π_T(a) − log of
    the mass that stays. [N]; NaN where the token is outside. top_p 1 and top_k ≤ 0 truncate nothing."""
    parts = []
    for rows, ids in _tiles(logits, sampled):
        logp = _sampled(rows, ids, temperature)
        width = top_k if 0 < top_k < rows.shape[1] else rows.shape[1]
        best = torch.topk((rows.double() / temperature).log_softmax(1), width, dim=1).values
        mass = (best - best.logsumexp(1, keepdim=True)).exp()
        kept = best.masked_fill(mass.cumsum(1) - mass >= top_p, -torch.inf)  # the first always stays
        last = kept.masked_fill(kept == -torch.inf, torch.inf).amin(1)
        parts.append((logp - kept.logsumexp(1)).where(logp >= last - 1e-9, torch.nan))
    return torch.cat(parts)


def fit_temperature(logits: Tensor, sampled: Tensor, logged: Tensor) -> float:
    """The temperature in [1/4, 4] whose log π_T(a) lie nearest to `logged` [N], in the mean |Δ| cut at 1 nat.

    A grid, then golden-section search around its best point to within half a percent. logits [N, V]: a few rows.
    """

    def distance(log_temperature: float) -> float:
        found = sampled_logprobs(logits, sampled, math.exp(log_temperature))
        return float((found - logged).abs().clamp(max=CUT).nanmean())

    low, width = math.log(_COLDEST), math.log(_HOTTEST / _COLDEST) / _STEPS
    best = min(range(_STEPS + 1), key=lambda step: distance(low + step * width))
    left, right = low + max(best - 1, 0) * width, low + min(best + 1, _STEPS) * width
    golden = (math.sqrt(5) - 1) / 2
    inner = [right - golden * (right - left), left + golden * (right - left)]
    values = [distance(at) for at in inner]
    while right - left > 0.005:
        if values[0] <= values[1]:
            right, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = right - golden * (right - left)
            values[0] = distance(inner[0])
        else:
            left, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = left + golden * (right - left)
            values[1] = distance(inner[1])
    return math.exp((left + right) / 2)


def _tiles(logits: Tensor, sampled: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(logits, _TILE), torch.split(sampled, _TILE), strict=True))


def _sampled(logits: Tensor, sampled: Tensor, temperature: float) -> Tensor:
    scaled = logits.double() / temperature
    return scaled.gather(1, sampled.unsqueeze(1)).squeeze(1) - scaled.logsumexp(1)
