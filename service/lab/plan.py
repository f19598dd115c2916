"""The declared experiment (benchmarks/lab/DECLARATION.md): its runs, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dppo_core.lab.settings import Run, Settings

__all__ = ["CONTROLS", "EXPERIMENTS", "FEW_SEEDS", "MAIN", "SEEDS", "STALENESS", "THREE", "arm", "runs_of"]

SEEDS = tuple(range(10, 18))
FEW_SEEDS = tuple(range(10, 14))
THREE = ("dppo_binary_tv", "grpo", "pg_is")


def arm(method: str, **changed: Any) -> str:
    """The name of an arm: a method, and the settings in which it departs from the defaults."""
    return Run(method, 0, replace(Settings(), **changed)).arm


MAIN = (
    "pg_is",
    "pg_tis",
    "grpo",
    "minirl",
    arm("minirl", old_policy="rollout"),
    "minirl_tis",
    "dppo_binary_tv",
    "dppo_binary_kl",
    "dppo_binary_tv_old",
    arm("dppo_binary_tv_old", old_policy="rollout"),
    "dppo_binary_kl_old",
    "dppo_topk_tv",
    "dppo_topk_kl",
    "dppo_exact_tv",
    "dppo_matched",
    "bad_update",
)
"""Arms of the main experiment; `dppo_matched` and the pairs of binary, top-K and exact answer questions (a) and (b)."""

CONTROLS: dict[str, dict[str, Any]] = {
    "no staleness": {"staleness": 0},
    "exact engine": {"mantissa": 23, "logit_mantissa": 23},
    "half the learning rate": {"lr": 7.5e-5},
    "twice the learning rate": {"lr": 3e-4},
}
STALENESS = (0, 2, 4, 8)

MATCHED = ("dppo_matched", "grpo")
EXACTNESS = ("dppo_binary_tv", "dppo_topk_tv", "dppo_exact_tv", "dppo_binary_kl", "dppo_topk_kl")


def _seed_by_seed(arms: Iterable[str], seeds: Iterable[int]) -> tuple[str, ...]:
    arms = tuple(arms)
    return tuple(f"{name}-s{seed}" for seed in seeds for name in arms)


EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "main": _seed_by_seed(MAIN, SEEDS),
    "controls": tuple(
        name
        for changed in CONTROLS.values()
        for name in _seed_by_seed((arm(method, **changed) for method in THREE), FEW_SEEDS)
    ),
    "staleness": tuple(
        name
        for staleness in STALENESS
        for name in _seed_by_seed((arm(method, staleness=staleness) for method in THREE), FEW_SEEDS)
    ),
    "matched": _seed_by_seed(MATCHED, SEEDS),
    "exactness": _seed_by_seed(EXACTNESS, SEEDS),
}
"""Names of the runs; those that experiments share are made once. Question (a) is `matched`, (b) `exactness`, (c)
`staleness`."""


def runs_of(experiment: str) -> list[Run]:
    """The runs of an experiment, or of `all`. Raises ValueError for a name that there is not."""
    if experiment == "all":
        return [run for name in EXPERIMENTS for run in runs_of(name)]
    if experiment not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {experiment!r}; one of: {', '.join(EXPERIMENTS)}, all")
    return [Run.parse(name) for name in EXPERIMENTS[experiment]]
