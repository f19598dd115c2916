"""PIPO's improvement of an analysis's steps: whole responses, and windows without gaps."""

from __future__ import annotations

import math

import pytest

from service.worker.improvement import mean_reward, pipo_rows
from tests.worker.test_measure import segment


def test_a_response_counts_once_whatever_its_length() -> None:
    assert mean_reward(segment()) == 0.5  # rewards 1 over three tokens, 0 over two
    assert mean_reward(segment(reward=[1.0, 1.0, 1.0, None, None])) == 1.0
    assert math.isnan(mean_reward(segment(reward=[None] * 5)))


def test_a_window_of_eight_steps_before() -> None:
    rows = {row["step"]: row for row in pipo_rows({step: float(step % 2) for step in range(10)})}
    # step 8: 0 against four 0 and four 1; step 9: 1 against the same
    deviation = math.sqrt(2 / 7) + 1e-6
    assert rows[8]["improvement"] == pytest.approx(-0.5 / deviation)
    assert rows[8]["weight"] == pytest.approx(-0.05 / deviation)
    assert rows[9]["improvement"] == rows[9]["weight"] == pytest.approx(0.5 / deviation)
    assert rows[7]["improvement"] is None
    assert rows[7]["reason"] == "this analysis does not hold all of the 8 steps before"


def test_a_gap_begins_a_new_window() -> None:
    steps = [*range(9), *range(20, 29)]
    rows = {row["step"]: row for row in pipo_rows({step: 1.0 + step for step in steps})}
    assert [step for step, row in rows.items() if row["improvement"] is not None] == [8, 28]
    # 29 against 21 … 28: (29 − 24.5) / √6
    assert rows[28]["improvement"] == pytest.approx(4.5 / (math.sqrt(6) + 1e-6))


def test_rewards_that_are_not_known_are_said() -> None:
    rewards = {step: float(step) for step in range(10)}
    rewards[0] = math.nan
    rows = {row["step"]: row for row in pipo_rows({**rewards, 9: math.nan})}
    assert rows[8]["reason"] == "one of the 8 steps before has no reward"
    assert rows[9]["reason"] == "the log has no reward of this step"
    assert (rows[9]["mean_reward"], rows[9]["improvement"], rows[9]["weight"]) == (None, None, None)
