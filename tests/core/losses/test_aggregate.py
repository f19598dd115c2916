"""Aggregations by hand, under verl's names."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.losses import Aggregation, aggregate

LOSS = torch.tensor([[1.0, 2.0, 3.0, 9.0], [5.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])

BY_HAND = {
    "token-mean": (1 + 2 + 3 + 5) / 4,
    "seq-mean-token-mean": ((1 + 2 + 3) / 3 + 5) / 2,  # the third response has no tokens: two responses
    "seq-mean-token-sum": ((1 + 2 + 3) + 5) / 2,
    "seq-mean-token-sum-norm": ((1 + 2 + 3) / 4 + 5 / 4) / 2,  # L = the width 4
}


@pytest.mark.parametrize("mode", BY_HAND)
def test_by_hand(mode: str) -> None:
    assert aggregate(LOSS, MASK, mode).item() == pytest.approx(BY_HAND[mode], rel=1e-15)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", BY_HAND)
def test_masked_positions_may_hold_nan(mode: str) -> None:
    loss = LOSS.masked_fill(MASK == 0, math.nan).requires_grad_()
    scalar = aggregate(loss, MASK, mode)  # type: ignore[arg-type]
    scalar.backward()
    assert scalar.item() == pytest.approx(BY_HAND[mode])
    assert loss.grad is not None
    assert (loss.grad[MASK == 0] == 0).all()


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Gradient accumulation: each part divides by the whole batch's numbers."""
    for mode in BY_HAND:
        whole = aggregate(LOSS, MASK, mode)  # type: ignore[arg-type]
        how = Aggregation(mode, tokens=4, sequences=2)  # type: ignore[arg-type]
        parts = [aggregate(LOSS[i : i + 1], MASK[i : i + 1], how) for i in range(3)]
        assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-15)  # type: ignore[union-attr]


def test_the_horizon_is_one_length_for_all() -> None:
    how = Aggregation("seq-mean-token-sum-norm", horizon=10)
    assert aggregate(LOSS, MASK, how).item() == pytest.approx((6 / 10 + 5 / 10) / 2)


def test_older_verl_has_no_mean_over_responses() -> None:
    how = Aggregation("seq-mean-token-sum-norm", sequences=1)
    assert aggregate(LOSS, MASK, how).item() == pytest.approx((6 + 5) / 4)


def test_nothing_counted_is_worth_zero() -> None:
    for mode in BY_HAND:
        assert aggregate(LOSS, torch.zeros_like(MASK), mode).item() == 0  # type: ignore[arg-type]


def test_unknown_modes_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="not an aggregation"):
        aggregate(LOSS, MASK, "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="response_mask"):
        aggregate(LOSS, MASK[:, 0])
