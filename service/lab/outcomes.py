"""The declared outcomes of a run, and comparisons of arms paired by seed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from dppo_core.lab.settings import Run
from dppo_core.lab.statistics import Estimate, clopper_pearson, holm, mean_interval
from service.lab.store import Store, Stored

__all__ = ["OUTCOMES", "PRIMARY", "Comparison", "Results", "final_reward", "outcomes"]

RISE, LAST = 10, 30  # steps of the rising learning rate, left out of means over the run; steps that "late" means

OUTCOMES = {
    "final": "mean reward of the last 30 steps",
    "auc": "mean reward over the run",
    "drift": "mean |π − μ|, steps 10 to the end",
    "engine": "of it, what rounding does",
    "stale": "of it, what staleness does",
    "update": "of it, what the iteration's own updates do",
    "drift_change": "mean |π − μ| of the last 30 steps minus that of steps 10–39",
    "entropy": "mean entropy of μ over the last 30 steps, nats",
    "bad_update": "share of bad updates, steps 10 to the end",
    "max_dp": "mean over steps of the largest π − μ",
    "min_dp": "mean over steps of the smallest π − μ",
    "dropped": "share of the tokens with A ≠ 0 that the method drops, mean of both signs",
    "gain": "final minus the warm-up's reward",
}
PRIMARY = ("final", "auc", "drift")
"""The outcomes that the main comparisons are about; each is one Holm family over the arms."""


def final_reward(stored: Stored) -> float:
    """The mean reward of the last 30 steps, of a run of any length."""
    return fmean(stored["columns"]["reward"][-LAST:])


def outcomes(stored: Stored) -> dict[str, float]:
    """Every outcome of one run of more than 10 steps."""
    columns = {name: [0.0 if v is None else v for v in values] for name, values in stored["columns"].items()}

    def late(name: str) -> float:
        return fmean(columns[name][-LAST:])

    def after_rise(name: str) -> float:
        return fmean(columns[name][RISE:])

    drift = columns["mean_abs_dp"]
    return {
        "final": final_reward(stored),
        "auc": fmean(columns["reward"]),
        "drift": after_rise("mean_abs_dp"),
        "engine": after_rise("engine"),
        "stale": after_rise("stale"),
        "update": after_rise("update"),
        "drift_change": late("mean_abs_dp") - fmean(drift[RISE : RISE + LAST]),
        "entropy": late("entropy"),
        "bad_update": after_rise("bad_update"),
        "max_dp": after_rise("max_dp"),
        "min_dp": after_rise("min_dp"),
        "dropped": (after_rise("drop_positive") + after_rise("drop_negative")) / 2,
        "gain": final_reward(stored) - stored["warmup_reward"],
    }


@dataclass(frozen=True)
class Comparison:
    """One arm against another by one outcome: `estimate` is arm − reference over the seeds that both have."""

    arm: str
    reference: str
    outcome: str
    estimate: Estimate
    p_holm: float | None = None


class Results:
    """Outcomes of stored runs, by arm and seed."""

    def __init__(self, store: Store, names: Iterable[str]) -> None:
        self.missing: list[str] = []
        self.by_arm: dict[str, dict[int, dict[str, float]]] = {}
        self.stored: dict[str, Stored] = {}
        for name in dict.fromkeys(names):
            run = Run.parse(name)
            if run not in store:
                self.missing.append(name)
                continue
            self.stored[name] = store.load(run)
            self.by_arm.setdefault(run.arm, {})[run.seed] = outcomes(self.stored[name])

    def values(self, arm: str, outcome: str) -> dict[int, float]:
        """One number a seed."""
        return {seed: found[outcome] for seed, found in sorted(self.by_arm.get(arm, {}).items())}

    def mean(self, arm: str, outcome: str) -> Estimate | None:
        """Over the seeds, with a t-interval; None for fewer than two."""
        values = list(self.values(arm, outcome).values())
        return mean_interval(values) if len(values) > 1 else None

    def against(self, arm: str, outcome: str, value: float) -> Estimate | None:
        """The arm's mean minus a number."""
        values = self.values(arm, outcome).values()
        return mean_interval([each - value for each in values]) if len(values) > 1 else None

    def difference(
        self, arm: str, reference: str, outcome: str, seeds: Collection[int] | None = None
    ) -> Comparison | None:
        """arm − reference, paired by seed; None for fewer than two pairs."""
        one, other = self.values(arm, outcome), self.values(reference, outcome)
        both = [seed for seed in one if seed in other and (seeds is None or seed in seeds)]
        if len(both) < 2:
            return None
        return Comparison(arm, reference, outcome, mean_interval([one[seed] - other[seed] for seed in both]))

    def family(self, arms: Iterable[str], reference: str, outcome: str) -> list[Comparison]:
        """Every arm against the reference, with Holm's correction over them."""
        found = [self.difference(arm, reference, outcome) for arm in arms if arm != reference]
        return corrected([each for each in found if each is not None])

    def below_warmup(self, arm: str) -> tuple[int, int, float, float] | None:
        """Runs that end below their warm-up, runs, and the exact 95 % interval of the share; None without runs."""
        gains = self.values(arm, "gain").values()
        if not gains:
            return None
        hits = sum(gain < 0 for gain in gains)
        return hits, len(gains), *clopper_pearson(hits, len(gains))


def corrected(family: list[Comparison]) -> list[Comparison]:
    """The comparisons with Holm's p over this family."""
    p_values: Mapping[str, float] = {
        str(place): each.estimate.p for place, each in enumerate(family) if each.estimate.p is not None
    }
    adjusted = holm(p_values)
    return [
        Comparison(each.arm, each.reference, each.outcome, each.estimate, adjusted.get(str(place)))
        for place, each in enumerate(family)
    ]
