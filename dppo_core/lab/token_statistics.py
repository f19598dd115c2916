"""Token-level statistics as functions of sums over tokens: a resample of prompts is a sum of other prompts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

__all__ = ["BINS", "STATISTICS", "Statistic"]

Sums = Callable[[str], Tensor]
Statistic = Callable[[Sums], Tensor]
"""From the sums [D] of D resamples, by name (`dppo_core.lab.tokens.quantities`), to D values."""
BINS = (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)
"""Edges of the bins of μ(a)."""


def ratio(above: str, below: str) -> Statistic:
    """A share, or a mean."""
    return lambda of: of(above) / of(below)


def gap(above: str, below: str, other_above: str, other_below: str) -> Statistic:
    """One ratio minus another."""
    return lambda of: of(above) / of(below) - of(other_above) / of(other_below)


def spread(*bins: int) -> Statistic:
    """Standard deviation of log ρ over some bins of μ."""

    def value(of: Sums) -> Tensor:
        n, total, square = (sum((of(f"{name}{place}") for place in bins[1:]), of(f"{name}{bins[0]}")) for name in _RHO)
        return (square / n - (total / n) ** 2).sqrt()

    return value


_RHO = ("n", "rho", "square")


def _log_spread_ratio(of: Sums) -> Tensor:
    rare, likely = spread(0, 1), spread(4)
    return (rare(of) / likely(of)).log()


def _binned() -> dict[str, tuple[str, Statistic]]:
    found: dict[str, tuple[str, Statistic]] = {}
    for place, (low, high) in enumerate(pairwise(BINS)):
        where = f"at μ in [{low:g}, {high:g}]"
        found[f"sd_log_rho_{place}"] = (f"sd of log ρ {where}", spread(place))
        found[f"engine_{place}"] = (f"mean |π − μ|, engine only, {where}", ratio(f"engine{place}", f"n{place}"))
        for name in ("ppo", "dppo"):
            rate = ratio(f"{name}{place}", f"some{place}")
            found[f"{name}_rate_{place}"] = (f"share that {name.upper()} drops {where}", rate)
    return found


STATISTICS: dict[str, tuple[str, Statistic]] = {
    "log_sd_ratio": ("C1: log of sd(log ρ) at μ < .1 over μ ≥ .9, engine only", _log_spread_ratio),
    "tv_rare": ("C1: mean |π − μ| at μ < .01 − all, engine only", gap("engine0", "n0", "engine", "n")),
    "truncated_rare": ("C6: P(μ < .1 | r > 3) − P(μ < .1)", gap("large_rare", "large", "rare", "n")),
    "clipped_probability": ("C7: mean μ, dropped by PPO − all", gap("ppo_mu", "ppo", "mu", "some")),
    "clipped_entropy": ("C7: mean entropy, dropped by PPO − all", gap("ppo_entropy", "ppo", "entropy", "some")),
    "dppo_probability": ("mean μ, dropped by DPPO − all", gap("dppo_mu", "dppo", "mu", "some")),
    "dppo_entropy": ("mean entropy, dropped by DPPO − all", gap("dppo_entropy", "dppo", "entropy", "some")),
    "ppo_rate": ("share that PPO drops", ratio("ppo", "some")),
    "dppo_rate": ("share that DPPO (binary TV) drops", ratio("dppo", "some")),
    "topk_rate": ("share that DPPO (top-K TV) drops", ratio("drop_topk", "some")),
    "exact_rate": ("share that DPPO (exact TV) drops", ratio("drop_exact", "some")),
    "only_ppo": ("of what PPO drops, share that DPPO keeps", ratio("only_ppo", "ppo")),
    "only_ppo_moved": ("Σ|π − μ| of those, share of all", ratio("only_ppo_moved", "some_moved")),
    "bad_share": ("C5: share of bad updates", ratio("bad", "some")),
    "old_keeps": (
        "C4: of what the mask from μ drops, share that the one from π_old keeps",
        ratio("kept_by_old", "dppo"),
    ),
    "old_keeps_moved": (
        "C4: mean |π − μ| of those − all",
        gap("kept_by_old_moved", "kept_by_old", "some_moved", "some"),
    ),
    **{
        f"overlap_{one}_{other}": (
            f"(b) dropped by {one} and {other} TV, of what either drops",
            ratio(f"{one}_{other}_both", f"{one}_{other}_either"),
        )
        for one, other in (("binary", "topk"), ("binary", "exact"), ("topk", "exact"))
    },
    "binary_of_exact": ("(b) Σ binary TV / Σ exact TV", ratio("tv_binary", "tv_exact")),
    "topk_of_exact": ("(b) Σ top-K TV / Σ exact TV", ratio("tv_topk", "tv_exact")),
    **_binned(),
}
"""Statistic → what it is, and how it comes from sums."""
