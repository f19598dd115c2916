"""Numeric profiles of binary KL: the published figures near certainty, by hand from each trainer's formula."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.profiles import PROFILES

LN = math.log


def logs(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


def kl(profile: str, mu: float, pi: float) -> float:
    return PROFILES[profile].binary_kl(logs(mu), logs(pi)).item()


SPACING = 2.0**-24  # of float32 just below 1

# What stands for 1 − π at π = 1, in float32: 1e-8 added or as the floor; 1 − 1e-7 and 1 − 1e-6 rounded to the grid,
# two and seventeen spacings below 1
COMPLEMENT = {
    "stable-rl": 1e-8,
    "slime": 1e-8,
    "trl": 2 * SPACING,
    "open-instruct": 17 * SPACING,
    "rllm": 17 * SPACING,
    "open-instruct-1790": 2.0**-52,
}


@pytest.mark.parametrize(("profile", "rest"), COMPLEMENT.items())
@pytest.mark.parametrize("mu", [0.99, 0.999])
def test_near_certainty(profile: str, rest: float, mu: float) -> None:
    # μ log μ + (1 − μ) log((1 − μ)/rest)
    assert kl(profile, mu, 1.0) == pytest.approx(mu * LN(mu) + (1 - mu) * LN((1 - mu) / rest), rel=2e-4)


@pytest.mark.parametrize(
    ("profile", "first", "second"),
    [
        ("stable-rl", 0.128, 0.0105),
        ("verl", 0.128, 0.0105),
        ("skyrl", 0.128, 0.0105),
        ("slime", 0.128, 0.0105),
        ("trl", 0.103, 0.0080),
        ("open-instruct", 0.082, 0.0059),
        ("rllm", 0.082, 0.0059),
        ("open-instruct-1790", 0.304, 0.0281),
    ],
)
def test_the_published_figures(profile: str, first: float, second: float) -> None:
    assert kl(profile, 0.99, 1.0) == pytest.approx(first, abs=5e-4)
    assert kl(profile, 0.999, 1.0) == pytest.approx(second, abs=5e-5)


def test_exact_is_infinite_at_certainty() -> None:
    assert kl("exact", 0.99, 1.0) == math.inf
    assert kl("prime-rl", 0.99, 1.0) == math.inf


@pytest.mark.parametrize("profile", PROFILES)
def test_all_agree_away_from_certainty(profile: str) -> None:
    # ½ ln(.5/.9) + ½ ln(.5/.1) = ½ ln(25/9); .3 → .3; .9 → .6: .9 ln 1.5 + .1 ln .25
    found = PROFILES[profile].binary_kl(logs(0.5, 0.3, 0.9), logs(0.9, 0.3, 0.6))
    expected = [0.5 * LN(25 / 9), 0.0, 0.9 * LN(1.5) + 0.1 * LN(0.25)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.dtype == torch.float64
    assert PROFILES[profile].binary_kl(logs(0.5), torch.tensor([math.nan])).isnan().all()
    assert PROFILES[profile].binary_kl(torch.tensor([math.nan]), logs(0.5)).isnan().all()


def test_float32_loses_what_lies_within_a_spacing_of_one() -> None:
    # log π = −1e-8: exactly 1 − π = 1e-8, and 1e-8 + 1e-8 doubles it; in float32 π is 1 and 1 − π + 1e-8 = 1e-8
    mu, pi = logs(0.99), torch.tensor([-1e-8], dtype=torch.float64)
    assert PROFILES["stable-rl"].binary_kl(mu, pi).item() == pytest.approx(kl("stable-rl", 0.99, 1.0), abs=1e-6)
    assert PROFILES["exact"].binary_kl(mu, pi).item() == pytest.approx(0.99 * LN(0.99) + 0.01 * LN(0.01 / 1e-8))


def test_added_and_floored_differ_one_spacing_below_one() -> None:
    # 1 − π = 2⁻²⁴ = 5.96e-8: with 1e-8 added 6.96e-8, floored at 1e-8 what it is
    for profile, rest in (("stable-rl", SPACING + 1e-8), ("slime", SPACING)):
        expected = 0.99 * LN(0.99) + 0.01 * LN(0.01 / rest)
        assert kl(profile, 0.99, 1 - SPACING) == pytest.approx(expected, abs=1e-5)


def test_the_convention_for_zero_advantages() -> None:
    negative = {name for name, profile in PROFILES.items() if profile.zero_advantage == "negative"}
    assert negative == {"stable-rl", "verl", "prime-rl", "trl", "rllm", "slime"}
