"""Theorem 3.1 and Eq. 7–8: by hand, against exact enumeration of small trees, and on what a log may hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dppo_core.bounds import Bounds, improvement, lower_bounds
from dppo_core.intervals import TVInterval


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Theorem 3.1


def test_theorem_3_1_by_hand() -> None:
    """Response 0: r = 2, ½, R = 3. L′ = 3·(1 − ½) = 1.5; Δ = 3·[1·(1 − ½) + (−½)·(1 − 1)] = 1.5; ∏ = 1: gain 0.
    Response 1: r = 3, R = −1. L′ = −2; no later token: Δ = 0."""
    found = improvement(torch.log(tensor(2.0, 0.5, 3.0)), torch.tensor([0, 0, 1]), tensor(3.0, -1.0))
    assert found.first_order.tolist() == pytest.approx([1.5, -2.0])
    assert found.correction.tolist() == pytest.approx([1.5, 0.0], abs=1e-15)
    assert found.log_product.tolist() == pytest.approx([0.0, math.log(3.0)], abs=1e-15)


def slow_correction(ratios: list[float], reward: float) -> Fraction:
    """R·Σ_t(r_t−1)(1−∏_{j>t} r_j), the definition, in exact rational arithmetic."""
    total, suffix = Fraction(0), Fraction(1)
    for ratio in reversed(ratios):
        total += (Fraction(ratio) - 1) * (1 - suffix)
        suffix *= Fraction(ratio)
    return Fraction(reward) * total


@pytest.mark.parametrize(("length", "spread"), [(1, 0.5), (7, 0.7), (60, 0.3), (400, 0.05), (400, 1e-7)])
def test_the_correction_is_its_definition(length: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(length)
    log_ratio = spread * torch.randn(3, length, generator=generator, dtype=torch.float64)
    ratios = log_ratio.exp()
    log_ratio = torch.log(ratios)  # of the numbers that the slow form gets
    rewards = tensor(1.0, -2.0, 0.25)
    found = improvement(log_ratio.flatten(), torch.arange(3).repeat_interleave(length), rewards)
    for i in range(3):
        expected = slow_correction(ratios[i].tolist(), rewards[i].item())
        scale = max(1.0, abs(float(found.first_order[i])))
        assert float(found.correction[i]) == pytest.approx(float(expected), abs=1e-12 * scale)
        product = math.prod(map(Fraction, ratios[i].tolist())) - 1
        gain = float(found.first_order[i] - found.correction[i])
        assert gain == pytest.approx(rewards[i].item() * float(product), abs=1e-12 * scale)


def test_a_product_that_returns_to_one_does_not_overflow_on_the_way() -> None:
    """Suffix products reach e^1500; ∏ = 1, so Δ = L′."""
    log_ratio = torch.cat([torch.full((3000,), -0.5), torch.full((3000,), 0.5)]).double()
    found = improvement(log_ratio, torch.zeros(6000, dtype=torch.long), tensor(1.0))
    assert found.first_order.item() == pytest.approx(3000 * (math.exp(-0.5) + math.exp(0.5) - 2))
    assert found.correction.item() == pytest.approx(found.first_order.item())


def test_a_product_beyond_float64_is_infinite_unless_the_reward_is_zero() -> None:
    log_ratio, sequence = torch.full((4000,), 0.5), torch.arange(2).repeat_interleave(2000)
    found = improvement(log_ratio, sequence, tensor(1.0, 0.0))
    assert found.correction.tolist() == [-math.inf, 0.0]
    assert found.log_product.tolist() == [1000.0, 1000.0]


# the bounds, by hand

RATIOS, SEQUENCE = torch.log(tensor(1.5, 0.5, 1.2)), torch.tensor([0, 0, 1])
REWARD, TV = tensor(1.0, 0.0), TVInterval.exact(tensor(0.01, 0.03, 0.02))


def bounds(**options: object) -> Bounds:
    return lower_bounds(RATIOS, SEQUENCE, REWARD, TV, **options)  # type: ignore[arg-type]


def test_bounds_by_hand() -> None:
    """L′ = ½(1·(.5 − .5) + 0) = 0, D̄ = ½(.04 + .02) = .03, Dmax = .03, T = 2, ξ = 1."""
    found = bounds(log_mismatch=tensor(0.1, -0.2, 0.4))
    assert (found.responses, found.left_out, found.horizon) == (2, 0, 2)
    assert found.first_order == pytest.approx(0.0, abs=1e-16)
    assert found.tv_sum == pytest.approx(0.03)
    assert found.tv_max == 0.03
    assert found.eq7 == pytest.approx(-2 * 1 * 2 * 1 * 0.0009)
    assert found.eq8 == pytest.approx(-0.12)
    assert found.eq8_ceiling == pytest.approx(-0.06)
    # J(μ) − R_min = ½: −.12 says more than −.5
    assert found.eq8_vacuous is False
    assert found.mean_abs_log_mismatch == pytest.approx((0.3 + 0.4) / 2)
    assert found.tv_source == "exact"
    assert Bounds.EQ7_LABEL == "optimistic, not certified"


def test_centring_halves_xi() -> None:
    """Centre ½: rewards ±½. L′ = ½(½·0 − ½·.2) = −.05, ξ = ½."""
    found = bounds(centred=True)
    assert (found.xi, found.centre) == (0.5, 0.5)
    assert found.first_order == pytest.approx(-0.05)
    assert found.eq8 == pytest.approx(-0.05 - 4 * 0.5 * 0.03)
    assert found.mean_reward == 0.5  # as seen


def test_a_known_range_and_horizon_replace_the_seen_ones() -> None:
    found = bounds(reward_range=(-1.0, 3.0), horizon=10)
    assert (found.xi, found.reward_min, found.reward_range_given) == (3.0, -1.0, True)
    assert found.eq7 == pytest.approx(-2 * 3 * 10 * 9 * 0.0009)
    with pytest.raises(ValueError, match="reward_range"):
        bounds(reward_range=(0.0, 0.5))


def test_vacuous_once_d_reaches_one() -> None:
    sure = lower_bounds(RATIOS, SEQUENCE, REWARD, TVInterval.exact(tensor(0.5, 0.6, 0.9)))
    assert sure.tv_sum == pytest.approx(1.0)
    assert sure.eq8_vacuous is True
    # −.2·4 + 0 = −.8 ≤ −(J − R_min) = −.5: vacuous long before
    assert lower_bounds(RATIOS, SEQUENCE, REWARD, TVInterval.exact(tensor(0.1, 0.1, 0.2))).eq8_vacuous is True
    # a lucky sample: L′ far above 2ξ·D̄ cannot rescue it
    lucky = lower_bounds(torch.log(tensor(30.0)), torch.tensor([0]), tensor(1.0), TVInterval.exact(tensor(1.0)))
    assert lucky.eq8 > 0
    assert lucky.eq8_vacuous is True


def test_the_upper_end_of_an_interval_enters() -> None:
    interval = TVInterval.from_topk(tensor(0.01, 0.03, 0.02), tensor(0.1, 0.1, 0.1), tensor(0.05, 0.2, 0.1))
    found = lower_bounds(RATIOS, SEQUENCE, REWARD, interval)
    assert found.tv_sum == pytest.approx((0.06 + 0.13 + 0.12) / 2)
    assert found.tv_max == pytest.approx(0.13)
    assert found.tv_source == "topk"


def test_a_tv_without_a_certificate_is_refused() -> None:
    with pytest.raises(TypeError, match="TVInterval"):
        lower_bounds(RATIOS, SEQUENCE, REWARD, TV.upper)  # type: ignore[arg-type]


def test_a_response_with_an_unknown_token_is_left_out_whole() -> None:
    nan = math.nan
    whole = lower_bounds(RATIOS[2:], torch.tensor([0]), REWARD[1:], TVInterval.exact(TV.upper[2:]))
    for log_ratio, tv, reward in (
        (torch.log(tensor(1.5, nan, 1.2)), TV, REWARD),
        (RATIOS, TVInterval.exact(tensor(nan, 0.03, 0.02)), REWARD),
        (RATIOS, TV, tensor(nan, 0.0)),
    ):
        found = lower_bounds(log_ratio, SEQUENCE, reward, tv)
        assert (found.responses, found.left_out) == (1, 1)
        assert (found.eq7, found.eq8, found.tv_max) == (whole.eq7, whole.eq8, whole.tv_max)


def test_nothing_known_is_nan_and_not_zero() -> None:
    found = lower_bounds(RATIOS, SEQUENCE, tensor(math.nan, math.nan), TV)
    assert found.responses == 0
    for name in ("mean_reward", "xi", "first_order", "correction", "tv_sum", "tv_max", "eq7", "eq8", "eq8_ceiling"):
        assert math.isnan(getattr(found, name)), name
    assert found.eq8_vacuous is None
    assert found.mean_abs_log_mismatch is None


# the bounds, against truth


@dataclass(frozen=True)
class Response:
    log_ratio: list[float]
    tv: list[float]
    p_old: float
    p_new: float
    reward: float


def random_tree(seed: int, step: float, horizon: int, vocab: int = 3) -> list[Response]:
    """All responses of two random policies over a tree: token 0 ends a response, `horizon` ends it too."""
    generator = torch.Generator().manual_seed(seed)

    def grow(prefix: list[tuple[float, float]], p: float, q: float) -> Iterator[Response]:
        ended = bool(prefix) and p < 0  # marks a chosen end below
        if len(prefix) == horizon or ended:
            ratio, tv = [x for x, _ in prefix], [x for _, x in prefix]
            reward = float(torch.rand(1, generator=generator)) * 4 - 1
            yield Response(ratio, tv, abs(p), abs(q), reward)
            return
        logits = torch.randn(vocab, generator=generator, dtype=torch.float64)
        old = torch.softmax(logits, 0)
        new = torch.softmax(logits + step * torch.randn(vocab, generator=generator, dtype=torch.float64), 0)
        tv = float(0.5 * (old - new).abs().sum())
        for token in range(vocab):
            end = -1.0 if token == 0 else 1.0
            entry = (math.log(float(new[token] / old[token])), tv)
            yield from grow([*prefix, entry], end * p * float(old[token]), end * q * float(new[token]))

    return list(grow([], 1.0, 1.0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 0.03, 0.3, 2.0]), st.integers(1, 4), st.booleans())
def test_both_bounds_hold_on_every_tree(seed: int, step: float, horizon: int, centred: bool) -> None:
    """The tree is enumerated, so that every expectation is exact, and Dmax is the supremum over all states."""
    tree = random_tree(seed, step, horizon)
    assert sum(y.p_old for y in tree) == pytest.approx(1.0)
    assert sum(y.p_new for y in tree) == pytest.approx(1.0)
    gain = sum((y.p_new - y.p_old) * y.reward for y in tree)
    sequence = torch.tensor([i for i, y in enumerate(tree) for _ in y.log_ratio])
    found = lower_bounds(
        tensor(*(x for y in tree for x in y.log_ratio)),
        sequence,
        tensor(*(y.reward for y in tree)),
        TVInterval.exact(tensor(*(x for y in tree for x in y.tv))),
        weight=tensor(*(y.p_old for y in tree)),
        centred=centred,
        horizon=horizon,
    )
    assert found.first_order - found.correction == pytest.approx(gain, abs=1e-12)  # Theorem 3.1
    assert gain >= found.eq7 - 1e-12
    assert gain >= found.eq8 - 1e-12
    assert found.eq8 <= found.eq8_ceiling + 1e-12  # |L′| ≤ 2ξ·D̄: no certificate of a gain
    assert found.eq8_ceiling == pytest.approx(-2 * found.xi * found.tv_sum)
    if found.tv_sum >= 1.0:
        assert found.eq8 <= -(found.mean_reward - found.reward_min) + 1e-12


def test_eq_7_can_be_positive_and_eq_8_cannot() -> None:
    """One token: Eq. 7 has no penalty at T = 1."""
    tree = random_tree(3, 0.3, 1)
    found = lower_bounds(
        tensor(*(y.log_ratio[0] for y in tree)),
        torch.arange(len(tree)),
        tensor(*(math.copysign(1.0, y.log_ratio[0]) for y in tree)),  # reward what became likelier
        TVInterval.exact(tensor(*(y.tv[0] for y in tree))),
        weight=tensor(*(y.p_old for y in tree)),
    )
    assert found.eq7 > 0
    assert found.eq8 < 0
