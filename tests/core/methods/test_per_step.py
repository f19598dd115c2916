"""PIPO's improvement and FINCH's learning rate, worked by hand."""

from __future__ import annotations

import math

import pytest

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.per_step import finch_learning_rates, pipo_improvement, pipo_weight

NAN = math.nan


def test_they_are_quantities_of_a_step_and_no_methods() -> None:
    assert not [name for name in METHODS if "pipo" in name or "finch" in name]


def test_improvement_is_measured_against_the_steps_before() -> None:
    # window 2: (4 − 2)/√2 and (2 − 3.5)/√.5, s with n − 1
    found = pipo_improvement([1, 3, 4, 2], window=2, eps=0)
    assert found == pytest.approx([NAN, NAN, math.sqrt(2), -1.5 / math.sqrt(0.5)], nan_ok=True)
    # window 8: 0 and 1 four times each, s² = 8·.25/7
    eight = pipo_improvement([0, 1, 0, 1, 0, 1, 0, 1, 1])
    assert eight[:8] == pytest.approx([NAN] * 8, nan_ok=True)
    assert eight[8] == pytest.approx(0.5 / (math.sqrt(2 / 7) + 1e-6))


def test_improvement_over_steps_that_are_all_alike_and_over_unknown_ones() -> None:
    assert pipo_improvement([1, 1, 2], window=2, eps=0.5)[2] == pytest.approx(2)
    found = pipo_improvement([NAN, 1, 3, 4, NAN], window=2, eps=0)
    assert found == pytest.approx([NAN, NAN, NAN, math.sqrt(2), NAN], nan_ok=True)
    assert pipo_improvement([]) == []
    with pytest.raises(ValueError, match="window is 1"):
        pipo_improvement([1, 2], window=1)


def test_a_step_that_got_worse_weighs_a_tenth() -> None:
    assert [pipo_weight(x) for x in (2.0, 0.0, -2.0)] == pytest.approx([2, 0, -0.2])
    assert math.isnan(pipo_weight(NAN))


def test_the_learning_rate_falls_with_the_root_of_the_averaged_loss() -> None:
    # L̄ = 4, then ½·4 + ½·1 = 2.5
    rates = finch_learning_rates([4, 1], kappa=1e-5, smoothing=0.5, eps=0)
    assert rates == pytest.approx([5e-6, 1e-5 / math.sqrt(2.5)])
    assert finch_learning_rates([4, 1], kappa=1e-5, smoothing=0, eps=0) == pytest.approx([5e-6, 1e-5])
    assert finch_learning_rates([4, 0], kappa=1e-5, smoothing=0) == pytest.approx([5e-6, 5e-5])  # the maximum
    assert finch_learning_rates([0], kappa=1e-5, maximum=None) == pytest.approx([0.1])  # 1e-5/√1e-8
    for loss in (-1.0, NAN):
        with pytest.raises(ValueError, match="has no learning rate"):
            finch_learning_rates([loss], kappa=1e-5)
