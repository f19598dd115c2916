"""What explains logged log-probs: by hand, and against plain softmaxes."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.provenance import (
    clearly_better,
    fit,
    fit_temperature,
    leaning,
    sampled_logprobs,
    shifted,
    telling,
    truncated_logprobs,
)

NAN = math.nan


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_fit_by_hand() -> None:
    # |Δ| = .5, 0, 1; logged − mean = (4, 1, −5)/3 is twice explained − mean = (4, 1, −5)/6
    found = fit(row(-1.0, -2.0, -4.0, NAN, -9.0), row(-1.5, -2.0, -3.0, -1.0, NAN))
    assert (found.n, found.median) == (3, 0.5)
    assert found.slope == pytest.approx(2.0)
    assert found.correlation == pytest.approx(1.0)
    nothing = fit(row(NAN), row(-1.0))
    assert nothing.n == 0
    assert math.isnan(nothing.median)
    assert math.isnan(fit(row(-1.0, -1.0), row(-2.0, -3.0)).slope), "one of them does not vary"


def test_certain_tokens_tell_nothing() -> None:
    logged, explained = row(-0.05, -0.05, -2.0, NAN, -2.0), row(-0.02, -0.2, -0.01, -3.0, NAN)
    assert telling(logged, explained).tolist() == [False, True, True, False, False]


def test_leaning_by_hand() -> None:
    claimed = row(-1.0, -2.0, NAN, -1.0)
    other = row(-0.9, -1.9, -1.0, -1.0)  # nowhere apart in the last token, which then says nothing
    assert leaning(row(-1.0, -2.0, -5.0, -1.0), claimed, other)[0] == pytest.approx(0.0)
    assert leaning(row(-0.975, -1.975, -5.0, -1.0), claimed, other)[0] == pytest.approx(0.25)
    # d = .1, .1; e = .15, .05: b = (.015 + .005) / .02 = 1, residuals ±.05, error √(2·(.1·.05)²) / .02
    b, error = leaning(row(-0.85, -1.95, -5.0, -1.0), claimed, other)
    assert b == pytest.approx(1.0)
    assert error == pytest.approx(math.sqrt(2 * 0.005**2) / 0.02)
    # a difference of 30 nats counts as one of 1: e = 1, 0 and d = 1, 1
    assert leaning(row(-31.0, -1.0), row(-1.0, -1.0), row(-40.0, -2.0))[0] == pytest.approx(0.5)
    assert math.isnan(leaning(claimed, claimed, claimed)[0])


def test_what_is_clearly_better_shows_through_larger_noise() -> None:
    """Two checkpoints .02 nats apart, a log with noise of .03: its medians hardly differ, what it leans to does."""
    random = torch.Generator().manual_seed(0)
    n = 400
    claimed = -3 * torch.rand(n, generator=random).double() - 0.1
    other = claimed + 0.02 * torch.randn(n, generator=random).double()
    noise = 0.03 * torch.randn(n, generator=random).double()
    assert clearly_better(other + noise, claimed, other)
    assert not clearly_better(claimed + noise, claimed, other)
    assert not clearly_better((claimed + other) / 2 + noise, claimed, other)
    assert not clearly_better(-3 * torch.rand(n, generator=random).double(), claimed, other)
    assert not clearly_better(claimed + 1e-6, claimed, claimed + 1e-6), "arithmetic"
    assert not clearly_better(other[:4] + noise[:4], claimed[:4], other[:4]), "too few to be sure"


def test_a_lower_median_alone_is_not_clear() -> None:
    # e = .11 or .01, d = .1: medians of |e| and |e − d| are .06 and .05, but b = .6 with an error of .05/(.1·√8) = .18
    claimed = row(*[-1.0] * 8)
    logged = claimed + row(*[0.11, 0.01] * 4)
    b, error = leaning(logged, claimed, claimed + 0.1)
    assert b == pytest.approx(0.6)
    assert error == pytest.approx(0.05 / (0.1 * math.sqrt(8)))
    assert fit(logged, claimed + 0.1).median < fit(logged, claimed).median
    assert not clearly_better(logged, claimed, claimed + 0.1)
    assert clearly_better(claimed + row(*[0.11, 0.09] * 4), claimed, claimed + 0.1)


def test_shifted_by_hand() -> None:
    values, response, position = row(1, 2, 3, 4, 5), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 3, 0, 1])
    after, before = (shifted(values, response, position, by).nan_to_num(nan=0).tolist() for by in (1, -1))
    assert after == [2, 0, 0, 5, 0]  # the third token is two places further on: a masked one stands between
    assert before == [0, 1, 0, 0, 4]
    assert shifted(row(), torch.tensor([]), torch.tensor([]), 1).tolist() == []


def test_log_probs_at_a_temperature_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]] * 40)
    ids = torch.tensor([0, 1] * 20)
    for temperature, expected in {1.0: (0.25, 0.75), 0.5: (0.1, 0.9)}.items():
        found = sampled_logprobs(logits, ids, temperature).exp()
        torch.testing.assert_close(found, row(*expected * 20), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("top_p", "top_k", "expected"),
    [
        (1.0, 0, (0.5, 0.3, 0.15, 0.05)),
        (0.75, -1, (0.625, 0.375, NAN, NAN)),  # .5 is short of .75, .5 + .3 is not
        (0.45, 0, (1.0, NAN, NAN, NAN)),  # the first always stays
        (1.0, 3, (0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, NAN)),
        (0.82, 3, (0.625, 0.375, NAN, NAN)),  # of the three, .5 + .3 is .842
        (0.82, 0, (0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, NAN)),  # of all, .8
        (1.0, 9, (0.5, 0.3, 0.15, 0.05)),
    ],
)
def test_a_nucleus_by_hand(top_p: float, top_k: int, expected: tuple[float, ...]) -> None:
    order = [2, 0, 3, 1]
    logits = torch.log(row(0.5, 0.3, 0.15, 0.05)[order]).float().repeat(4, 1) * 0.7 + 3
    found = truncated_logprobs(logits, torch.tensor(order).argsort(), 0.7, top_p, top_k).exp()
    torch.testing.assert_close(found, row(*expected), atol=1e-6, rtol=0, equal_nan=True)


@pytest.mark.parametrize("truth", [0.3, 0.7, 1.0, 1.3, 3.0])
def test_a_temperature_is_found_through_noise(truth: float) -> None:
    random = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(64, 500, generator=random)
    ids = torch.multinomial((logits / truth).softmax(1), 1, generator=random).squeeze(1)
    logged = (logits.double() / truth).log_softmax(1).gather(1, ids.unsqueeze(1)).squeeze(1)
    assert fit_temperature(logits, ids, logged) == pytest.approx(truth, rel=0.005)
    logged[::9] = NAN
    noisy = logged + 0.02 * torch.randn(64, generator=random)
    assert fit_temperature(logits, ids, noisy) == pytest.approx(truth, rel=0.02)
