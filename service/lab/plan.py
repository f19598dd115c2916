"""The declared experiment (benchmarks/lab/DECLARATION.md): its runs, in the order in which they are made."""

from __future__ import annotations

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

EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "main": tuple(f"{name}-s{seed}" for seed in SEEDS for name in MAIN),
    "controls": tuple(
        f"{arm(method, **changed)}-s{seed}" for changed in CONTROLS.values() for seed in FEW_SEEDS for method in THREE
    ),
    "staleness": tuple(
        f"{arm(method, staleness=staleness)}-s{seed}"
        for staleness in STALENESS
        for seed in FEW_SEEDS
        for method in THREE
    ),
}
"""Names of the runs; those that two experiments share are made once."""


def runs_of(experiment: str) -> list[Run]:
    """The runs of an experiment, or of `all`. Raises ValueError for a name that there is not."""
    if experiment == "all":
        return [run for name in EXPERIMENTS for run in runs_of(name)]
    if experiment not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {experiment!r}; one of: {', '.join(EXPERIMENTS)}, all")
    return [Run.parse(name) for name in EXPERIMENTS[experiment]]
