"""The rate-matched δ by hand, with ties, and against counting."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dppo_core.divergence import binary_tv
from dppo_core.masks import Decision, keep_dppo, keep_ppo
from dppo_core.rate_match import rate_matched_delta


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


UP, DOWN = math.log(1.5), math.log(0.5)
#                  away: D = .1, .4, .2   back   A < 0 away: .3   A = 0   unknown D
DIVERGENCE = tensor(0.1, 0.4, 0.2, 0.9, 0.3, 0.8, math.nan)
LOG_RATIO = tensor(UP, UP, UP, DOWN, DOWN, UP, UP)
ADVANTAGE = tensor(1, 1, 1, 1, -1, 0, 1)


def ppo(*kept: int) -> Decision:
    return Decision(torch.tensor(kept, dtype=torch.bool), torch.ones(len(kept), dtype=torch.bool))


def test_by_hand() -> None:
    """PPO drops tokens 0 and 1; away from 1 are D = .4, .3, .2, .1: two drop at every δ in [.2, .3), smallest .2."""
    found = rate_matched_delta(DIVERGENCE, LOG_RATIO, ADVANTAGE, ppo(0, 0, 1, 1, 1, 1, 0))
    assert (found.delta, found.tokens, found.dropped_ppo, found.dropped_dppo, found.tied) == (0.2, 5, 2, 2, 1)
    assert found.rate_ppo == found.rate_dppo == 0.4


def test_by_sign() -> None:
    decision = ppo(0, 1, 1, 1, 0, 1, 1)
    high = rate_matched_delta(DIVERGENCE, LOG_RATIO, ADVANTAGE, decision, sign=1)
    assert (high.delta, high.tokens, high.dropped_dppo) == (0.2, 4, 1)
    low = rate_matched_delta(DIVERGENCE, LOG_RATIO, ADVANTAGE, decision, sign=-1)
    assert (low.delta, low.tokens, low.dropped_dppo) == (0.0, 1, 1)


def test_ties_at_delta_are_kept_and_told() -> None:
    """D = .4, .2, .2, .2 and PPO drops two: any δ < .2 drops four, δ = .2 drops one."""
    found = rate_matched_delta(tensor(0.4, 0.2, 0.2, 0.2), tensor(UP, UP, UP, UP), tensor(1, 1, 1, 1), ppo(0, 0, 1, 1))
    assert (found.delta, found.dropped_ppo, found.dropped_dppo, found.tied) == (0.2, 2, 1, 3)
    assert (found.rate_ppo, found.rate_dppo) == (0.5, 0.25)


def test_ppo_that_drops_nothing_needs_the_largest_divergence() -> None:
    found = rate_matched_delta(DIVERGENCE, LOG_RATIO, ADVANTAGE, ppo(1, 1, 1, 1, 1, 1, 1))
    assert (found.delta, found.dropped_dppo) == (0.4, 0)


def test_dppo_that_cannot_be_so_strict() -> None:
    """PPO with dual clip may drop a token that moves back; DPPO never does."""
    found = rate_matched_delta(tensor(0.1, 0.2), tensor(UP, 2.0), tensor(1, -1), ppo(0, 0))
    assert (found.delta, found.dropped_ppo, found.dropped_dppo) == (0.0, 2, 1)


def test_no_tokens_no_delta() -> None:
    found = rate_matched_delta(tensor(0.1), tensor(UP), tensor(0), ppo(1))
    assert math.isnan(found.delta)
    assert math.isnan(found.rate_ppo)
    assert math.isnan(found.rate_dppo)
    unknown = Decision(torch.tensor([False]), torch.tensor([False]))
    assert rate_matched_delta(tensor(0.1), tensor(UP), tensor(1), unknown).tokens == 0


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.sampled_from([None, 1, -1]), st.sampled_from([1, 2, 12]))
def test_against_counting(seed: int, n: int, sign: int | None, decimals: int) -> None:
    """No more drops than PPO at δ, more just below it; few decimals make ties."""
    generator = torch.Generator().manual_seed(seed)
    mu, pi = (torch.log(torch.rand(n, generator=generator, dtype=torch.float64)) for _ in range(2))
    advantage = torch.randn(n, generator=generator, dtype=torch.float64).round(decimals=0)
    tv = binary_tv(mu, pi).round(decimals=decimals)
    decision = keep_ppo(pi - mu, advantage, 0.2, 0.28)
    found = rate_matched_delta(tv, pi - mu, advantage, decision, sign)

    of_sign = (advantage != 0) if sign is None else (torch.sign(advantage) == sign)

    def drops(delta: float) -> int:
        return int((of_sign & ~keep_dppo(tv, pi - mu, advantage, delta, delta).keep).sum())

    assert found.tokens == int(of_sign.sum())
    if not found.tokens:
        return
    assert found.dropped_ppo == int((of_sign & ~decision.keep).sum())
    assert found.dropped_dppo == drops(found.delta) <= found.dropped_ppo
    if found.delta > 0:
        assert drops(math.nextafter(found.delta, 0.0)) > found.dropped_ppo
    if found.tied <= 1 and found.delta > 0:
        assert found.dropped_dppo == found.dropped_ppo
    assert found.rate_ppo == pytest.approx(found.dropped_ppo / found.tokens)
