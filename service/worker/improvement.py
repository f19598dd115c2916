"""PIPO's policy improvement of each step of an analysis, from the rewards that its segments repeat."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dppo_core.methods.per_step import pipo_improvement, pipo_weight

__all__ = ["mean_reward", "pipo_rows"]

WINDOW = 8  # K, the steps that a step is compared with


def mean_reward(segment: pa.Table) -> float:
    """Mean reward of a segment's responses that have one; NaN without any."""
    of_response = segment.group_by("sample_id").aggregate([("reward", "max")])  # its tokens repeat it
    mean = pc.mean(of_response["reward_max"]).as_py()
    return math.nan if mean is None else float(mean)


def pipo_rows(rewards: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    """Rows of the table `pipo` from each step's mean reward (NaN: not known).

    The steps before a step must be of this analysis and follow each other without a gap: over other steps the
    improvement is another quantity.
    """
    improvements: dict[int, float] = {}
    for _, chain in groupby(enumerate(sorted(rewards)), lambda entry: entry[1] - entry[0]):
        steps = [step for _, step in chain]
        improvements |= dict(zip(steps, pipo_improvement([rewards[step] for step in steps], WINDOW), strict=True))
    for step, improvement in improvements.items():
        known = not math.isnan(improvement)
        yield {
            "step": step,
            "mean_reward": None if math.isnan(rewards[step]) else rewards[step],
            "improvement": improvement if known else None,
            "weight": pipo_weight(improvement) if known else None,
            "reason": None if known else _why_not(step, rewards),
        }


def _why_not(step: int, rewards: Mapping[int, float]) -> str:
    if math.isnan(rewards[step]):
        return "the log has no reward of this step"
    if any(step - back not in rewards for back in range(1, WINDOW + 1)):
        return f"this analysis does not hold all of the {WINDOW} steps before"
    return f"one of the {WINDOW} steps before has no reward"
