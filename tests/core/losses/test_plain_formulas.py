"""Every loss: its value and gradient against the plain formula, padding, dtypes, and what a dropped token gets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.losses.cases import CASES, Batch, Case, random_batch

SEEDS = [0, 1, 2]


def gradient(case: Case, batch: Batch, **options: Any) -> tuple[Tensor, Tensor, Any]:
    logp = batch.logp.clone().requires_grad_()
    found = case.call(batch, logp, **options)
    (gradient,) = torch.autograd.grad(found.loss, logp)
    return found.loss.detach(), gradient, found


def plain(case: Case, batch: Batch) -> tuple[Tensor, Tensor]:
    """Value and gradient of Σ over tokens and responses, under the case's own aggregation."""
    logp = batch.logp.clone().requires_grad_()
    sums = [case.plain(batch, logp[i], i) for i in range(len(logp))]
    lengths = [len(batch.counted(i)) for i in range(len(logp))]
    if case.aggregation == "token-mean":
        loss = torch.stack(sums).sum() / sum(lengths)
    else:
        means = [total / n for total, n in zip(sums, lengths, strict=True) if n]
        loss = torch.stack(means).sum() / len(means)
    (gradient,) = torch.autograd.grad(loss, logp)
    return loss.detach(), gradient


def for_case(case: Case, batch: Batch) -> Batch:
    """GSPO's objective has one advantage a response."""
    return replace(batch, advantage=batch.advantage[:, :1].expand_as(batch.advantage)) if case.name == "gspo" else batch


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_and_gradient(case: Case, seed: int) -> None:
    batch = for_case(case, random_batch(seed))
    value, found, result = gradient(case, batch)
    expected_value, expected = plain(case, batch)
    assert (found - expected).abs().max() < 1e-10
    assert abs(value - expected_value) < 1e-10
    assert torch.equal(found == 0, (expected == 0))
    counted = batch.response_mask.bool()
    assert (found[~counted] == 0).all()
    assert (result.coef[~counted] == 0).all()
    assert not result.keep[~counted].any()
    if case.name != "gbpo":  # whose advantage comes from the rewards
        assert result.decided.equal(counted & (batch.advantage != 0))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_random_batches_exercise_the_masks(case: Case) -> None:
    """Otherwise the comparison above would say little."""
    dropped = [gradient(case, for_case(case, random_batch(seed)))[2].drop_rate for seed in SEEDS]
    unmasked = case.name.startswith(("pg_", "cispo", "sapo"))
    assert (sum(dropped) == 0) if unmasked else (0 < sum(dropped) < 3), dropped


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_padding_may_hold_anything(case: Case) -> None:
    batch = for_case(case, random_batch(3))
    clean_value, clean, _ = gradient(case, batch)
    counted = batch.response_mask.bool()
    for junk in (math.nan, math.inf, -math.inf, 0.0, 1e30):
        names = ("logp", "logp_old", "logp_rollout", "advantage", "divergence")
        poisoned = replace(batch, **{name: getattr(batch, name).masked_fill(~counted, junk) for name in names})
        value, found, _ = gradient(case, poisoned)
        assert value == clean_value
        assert torch.equal(found, clean)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_unknown_inputs_of_counted_tokens_are_not_swallowed(case: Case) -> None:
    batch = for_case(case, random_batch(4))
    place = batch.response_mask.nonzero()[0]
    logp = batch.logp.clone()
    logp[tuple(place)] = math.nan
    value, _, _ = gradient(case, replace(batch, logp=logp))
    assert value.isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_low_precision_decides_as_float64_on_the_same_numbers(case: Case, dtype: torch.dtype) -> None:
    """The inputs are rounded; nothing after them is: only the gradient is rounded again, into the input's dtype."""
    batch = for_case(case, random_batch(5))
    names = ("logp", "logp_old", "logp_rollout", "advantage", "divergence")
    rounded = replace(batch, **{name: getattr(batch, name).to(dtype) for name in names})
    exact = replace(rounded, **{name: getattr(rounded, name).double() for name in names})
    value, found, low = gradient(case, rounded)
    expected_value, expected, high = gradient(case, exact)
    assert found.dtype == dtype
    assert value.dtype == torch.float32
    assert torch.equal(low.keep, high.keep)
    assert torch.equal(low.coef, high.coef)
    assert value == pytest.approx(expected_value.item(), rel=1e-5, abs=1e-6)
    relative = 2.0 * torch.finfo(dtype).eps
    assert torch.allclose(found.double(), expected, rtol=relative, atol=1e-30)
    assert torch.equal(found == 0, expected == 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_minus_the_gradient_times_n_is_coef(case: Case) -> None:
    batch = for_case(case, random_batch(6))
    _, found, result = gradient(case, batch, aggregation="token-mean")
    n = int(batch.response_mask.sum())
    assert torch.allclose(-found * n, result.coef, rtol=1e-12, atol=0.0)
    assert not result.coef.requires_grad


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_batch_without_counted_tokens_is_worth_nothing(case: Case) -> None:
    batch = replace(random_batch(7), response_mask=torch.zeros(6, 9))
    value, found, result = gradient(case, batch)
    assert value == 0
    assert (found == 0).all()
    assert result.drop_rate.isnan()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ratios_beyond_the_dtype_do_not_become_nan(case: Case) -> None:
    """log r = 115: r = 1e50 overflows float32."""
    batch = for_case(case, random_batch(8))
    far = replace(
        batch,
        logp=torch.full_like(batch.logp, -0.01).float(),
        logp_old=torch.full_like(batch.logp, -115.0).float(),
        logp_rollout=torch.full_like(batch.logp, -115.0).float(),
    )
    value, found, _ = gradient(case, far)
    assert not value.isnan()
    assert not found.isnan().any()


def test_shapes_that_do_not_fit_are_refused() -> None:
    batch = random_batch(0)
    for name, wrong in (("advantage", batch.advantage[0]), ("response_mask", batch.response_mask[:, 1:])):
        with pytest.raises(ValueError, match=name):
            CASES[0].call(replace(batch, **{name: wrong}), batch.logp)
    with pytest.raises(ValueError, match="logp must be"):
        CASES[0].call(batch, batch.logp[0])


def test_one_advantage_a_response_is_a_column() -> None:
    batch = random_batch(1)
    column = replace(batch, advantage=batch.advantage[:, :1])
    spread = replace(batch, advantage=batch.advantage[:, :1].expand_as(batch.logp))
    assert torch.equal(gradient(CASES[0], column)[1], gradient(CASES[0], spread)[1])
