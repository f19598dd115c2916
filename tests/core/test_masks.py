"""PPO and DPPO masks: boundary cases by hand, and the four cells."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.cells import four_cells
from dppo_core.divergence import binary_tv
from dppo_core.masks import (
    Decision,
    coefficients,
    gradient_weight,
    keep_all,
    keep_dppo,
    keep_ppo,
    keep_unless,
    truncated_ratio,
)

NAN = math.nan


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def decided(decision: Decision) -> list[bool | None]:
    return [bool(keep) if known else None for keep, known in zip(decision.keep, decision.known, strict=True)]


def test_ppo_is_strict_and_one_sided() -> None:
    up, down = math.log(1.28), math.log(0.8)
    ratios = tensor(up, up + 1e-12, down, down - 1e-12, up + 1, down - 1)
    assert decided(keep_ppo(ratios, tensor(1, 1, -1, -1, -1, 1), 0.2, 0.28)) == [True, False, True, False, True, True]


def test_ppo_dual_clip_drops_large_ratios_of_bad_tokens() -> None:
    ratios = tensor(math.log(3.0), math.log(3.0) + 1e-9, math.log(3.0) + 1e-9)
    assert decided(keep_ppo(ratios, tensor(-1, -1, 1), 0.2, 10.0, dual_clip=3.0)) == [True, False, True]


def test_ppo_with_eps_low_one_never_drops_a_falling_ratio() -> None:
    assert decided(keep_ppo(tensor(-50.0), tensor(-1), 1.0, 0.28)) == [True]


def test_dppo_is_strict_and_never_drops_a_move_toward_one() -> None:
    divergence = tensor(0.125, 0.125 + 1e-15, 0.9, 0.9, 0.2, 0.2)
    log_ratio = tensor(0.3, 0.3, -0.3, 0.3, 0.3, -0.3)
    advantage = tensor(1, 1, 1, -1, 1, -1)
    kept = decided(keep_dppo(divergence, log_ratio, advantage, delta_low=0.25, delta_high=0.125))
    # equal to δ keeps; above drops; moving toward 1 keeps, whatever D; δ_low for A < 0
    assert kept == [True, False, True, True, False, True]


def test_no_gradient_no_drop() -> None:
    assert decided(keep_ppo(tensor(5, -5), tensor(0, 0), 0.2, 0.28)) == [True, True]
    assert decided(keep_dppo(tensor(1, 1), tensor(5, -5), tensor(0, 0), 0.1, 0.1)) == [True, True]


def test_zero_advantage_may_follow_the_negative_rule() -> None:
    # D > δ and down: dropped as A < 0 would be; up: kept
    moved = keep_dppo(tensor(1, 1, 1), tensor(5, -5, -5), tensor(0, 0, 1), 0.1, 0.1, zero_advantage="negative")
    assert decided(moved) == [True, False, True]


def test_decisions_of_several_masks() -> None:
    flags = torch.tensor([True, True, False, False])
    first = keep_unless(flags, tensor(0, 0, 0, NAN))
    second = keep_unless(torch.tensor([False, True, False, False]), tensor(0, 0, 0, 0))
    assert decided(first) == [False, False, True, None]
    assert decided(first & second) == decided(second & first) == [False, False, True, None]
    assert decided(keep_all(tensor(1, NAN, 3), tensor(1, 2, NAN))) == [True, None, None]


def test_coefficients_of_dropped_and_zero_tokens_are_zero_whatever_their_weight() -> None:
    decision = Decision(torch.tensor([True, False, True, False]), torch.tensor([True, True, True, False]))
    coef, keep = coefficients(decision, tensor(math.inf, math.inf, math.inf, 1), tensor(-2, 1, 0, 1))
    assert coef.tolist()[:3] == [-math.inf, 0.0, 0.0]
    assert math.isnan(coef[3].item())
    assert keep.tolist() == [True, False, True, False]
    assert truncated_ratio(torch.log(tensor(0.5, 4.0)), 3.0).tolist() == pytest.approx([0.5, 3.0])
    assert truncated_ratio(torch.log(tensor(0.5, 4.0))).tolist() == pytest.approx([0.5, 4.0])


def test_unknown_inputs_give_no_decision() -> None:
    assert decided(keep_ppo(tensor(NAN, 5), tensor(1, NAN), 0.2, 0.28)) == [None, None]
    assert decided(keep_dppo(tensor(NAN, 1, 1), tensor(5, NAN, 5), tensor(1, 1, NAN), 0.1, 0.1)) == [None] * 3


def test_the_paper_s_two_worked_examples() -> None:
    mu, pi = tensor(math.log(1e-4), math.log(0.99)), tensor(math.log(1e-2), math.log(0.80))
    advantage = tensor(1, -1)
    tv = binary_tv(mu, pi)
    assert decided(keep_ppo(pi - mu, advantage, 0.2, 0.28)) == [False, True]
    assert decided(keep_dppo(tv, pi - mu, advantage, 0.15, 0.15)) == [True, False]
    assert decided(keep_dppo(tv, pi - mu, advantage, 0.2, 0.2)) == [True, True]


def test_four_cells_by_hand() -> None:
    #            both keep, only first, only second, both, A = 0, unknown
    first = Decision(torch.tensor([True, False, True, False, True, False]), torch.tensor([True] * 5 + [False]))
    second = Decision(torch.tensor([True, True, False, False, True, True]), torch.tensor([True] * 6))
    cells = four_cells(
        first, second, tensor(1, 1, 1, -1, 0, 1), tensor(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), tensor(1, 2, 3, 4, 0, 9)
    )
    assert [cells[1][name].tokens for name in cells[1]] == [1, 1, 1, 0]
    assert [cells[-1][name].tokens for name in cells[-1]] == [0, 0, 0, 1]
    assert cells[0]["both_keep"].tokens == 1
    assert cells[1]["only_first_drops"].mass_moved == pytest.approx(0.2)
    assert cells[1]["only_second_drops"].gradient_weight == pytest.approx(3.0)


def test_gradient_weight_is_truncated_at_the_cap() -> None:
    weights = gradient_weight(torch.log(tensor(0.5, 4.0, 4.0)), tensor(2, -2, 2), cap=3.0)
    assert weights.tolist() == pytest.approx([1.0, 6.0, 6.0])
