"""Intervals and corrections, against tables and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.lab.statistics import bootstrap, clopper_pearson, holm, mean_interval, student_quantile, student_tail


@pytest.mark.parametrize(
    ("df", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (7, 2.3646), (10, 2.2281), (29, 2.0452)]
)
def test_student_against_the_table(df: int, quantile: float) -> None:
    assert student_quantile(0.95, df) == pytest.approx(quantile, abs=1e-4)
    assert student_tail(quantile, df) == pytest.approx(0.05, abs=1e-5)
    assert student_tail(-quantile, df) == student_tail(quantile, df)


def test_student_closed_forms() -> None:
    # one degree of freedom: 1 − 2/π·atan t; two: 1 − t/√(t² + 2)
    assert student_tail(1.0, 1) == pytest.approx(0.5)
    assert student_tail(2.0, 2) == pytest.approx(1 - 2 / math.sqrt(6))
    with pytest.raises(ValueError, match="at least 1"):
        student_tail(1.0, 0)


def test_mean_interval_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    # mean 2, sd 1, se 1/√3, t(2) = 4.3027
    assert found.value == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert found.p == pytest.approx(student_tail(2 * math.sqrt(3), 2))
    assert mean_interval([0.0, 0.0]).p == 1.0
    assert mean_interval([2.0, 2.0]).p == 0.0
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([1.0])


def test_holm_by_hand() -> None:
    # sorted .01·4, .02·3, .03·2 → not below .06, .5·1
    assert holm({"a": 0.02, "b": 0.5, "c": 0.01, "d": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.5, "c": 0.04, "d": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_clopper_pearson_by_hand() -> None:
    # none of n: 1 − (α/2)^(1/n)
    assert clopper_pearson(0, 8) == pytest.approx((0.0, 1 - 0.025 ** (1 / 8)))
    assert clopper_pearson(8, 8) == pytest.approx((0.025 ** (1 / 8), 1.0))
    assert clopper_pearson(4, 8) == pytest.approx((0.1570, 0.8430), abs=1e-4)
    with pytest.raises(ValueError, match="3 of 2"):
        clopper_pearson(3, 2)


def test_bootstrap_resamples_prompts() -> None:
    # two kinds of prompts, whose tokens are all 0 or all 1: the mean of n prompts has sd ½/√n however many tokens
    hits = torch.tensor([0.0, 50.0] * 50, dtype=torch.float64)
    sums = torch.stack([hits, torch.full((100,), 50.0, dtype=torch.float64)], 1)
    found = bootstrap(sums, lambda drawn: drawn[:, 0] / drawn[:, 1])
    assert found.value == 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
    assert (found.n, found.p) == (100, None)
    assert bootstrap(sums, lambda drawn: drawn[:, 0] / drawn[:, 1]) == found
