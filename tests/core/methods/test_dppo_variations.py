"""Variations of DPPO: coef and keep by hand; the predictive mask against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dppo_core.methods.catalog import METHODS
from dppo_core.tokens import TokenArrays, TopKLists
from tests.core.methods.arrays import NAN, coef_of, keep_of, tokens

LN = math.log


def test_dppo_recompute_masks_from_old_and_weighs_from_rollout() -> None:
    # TV from π_old: .2, .1, .2, .2 (toward 1), .2; r = 2, 5, .5, 3, ·; KL: .0823, .0201, .0863, .0872 nats
    some = tokens(
        [1, 1, -1, -1, 0, 1],
        mu=[0.3, 0.1, 0.4, 0.2, 0.3, NAN],
        old=[0.4, 0.4, 0.4, 0.4, 0.4, 0.4],
        new=[0.6, 0.5, 0.2, 0.6, 0.2, 0.6],
    )
    for metric, name in (("tv", "dppo_recompute_binary_tv"), ("kl", "dppo_recompute_binary_kl")):
        method = METHODS[name]
        found = method(some)
        assert keep_of(found) == [False, True, False, True, True, None]
        assert coef_of(found) == [0.0, pytest.approx(5.0), 0.0, pytest.approx(-3.0), 0.0, None]
        # Stable-RL: δ = .2, C = 3, and A = 0 follows the negative rule (a hair above .2 below)
        down = tokens([0, 1], mu=[0.1, 0.1], old=[0.9, 0.5], new=[0.1, 0.5])
        assert keep_of(method(down, "stable-rl")) == [False, True]
        assert coef_of(method(down, "stable-rl")) == pytest.approx([0.0, 3.0])
        edge = tokens([1, 1], mu=[0.4] * 2, old=[0.4] * 2, new=[0.6] * 2, **{f"{metric}_binary_old": [0.125, 0.126]})
        assert keep_of(method(edge, delta_high=0.125)) == [True, False]


def test_dppo_with_the_clamped_mismatch_ratio() -> None:
    # TV from μ: .02, .02, .5, .5; r = 1.2, 1.2; ρ = 2, .5 (kept below the clamp), 4, 4; r′ = .6, 2.4, ·, 1.5
    some = tokens(
        [1, 1, 1, -1, 0, 1],
        mu=[0.1, 0.1, 0.1, 0.1, 0.6, NAN],
        old=[0.2, 0.05, 0.4, 0.4, 0.6, 0.4],
        new=[0.12, 0.12, 0.6, 0.6, 0.1, 0.4],
    )
    for name in ("dppo_rho_binary_tv", "dppo_rho_binary_kl"):
        found = METHODS[name](some)
        assert keep_of(found) == [True, True, False, True, True, None]
        # 2·.6, .5·2.4, dropped, min(4, 2)·1.5·(−1)
        assert coef_of(found) == [*map(pytest.approx, (1.2, 1.2, 0.0, -3.0)), 0.0, None]
        unclamped = METHODS[name](some, rho_cap=None)
        assert coef_of(unclamped)[3] == pytest.approx(-6.0)
    edge = tokens([1, 1], mu=[0.4] * 2, old=[0.4] * 2, new=[0.6] * 2, tv_binary_rollout=[0.125, 0.126])
    assert keep_of(METHODS["dppo_rho_binary_tv"](edge, delta_high=0.125)) == [True, False]
    # its launch scripts: .2 and .05
    near = tokens([1, 1], mu=[0.5] * 2, old=[0.5] * 2, new=[0.69, 0.71])
    assert keep_of(METHODS["dppo_rho_binary_tv"](near, "open-instruct")) == [True, False]
    # KL(.5‖.65) = −½ ln(4·.65·.35) = .0472; .66: .0540
    near = tokens([1, 1], mu=[0.5] * 2, old=[0.5] * 2, new=[0.65, 0.66])
    assert keep_of(METHODS["dppo_rho_binary_kl"](near, "open-instruct")) == [True, False]


def test_prime_rl_pulls_every_token() -> None:
    # μ = .5; |Δ| = .1 | .3 drop | .3 toward 1 | .3 drop | A = 0, .3 | unknown
    some = tokens([1, 1, 1, -2, 0, 1], mu=[0.5] * 5 + [NAN], new=[0.6, 0.8, 0.2, 0.2, 0.2, 0.6])
    found = METHODS["prime_rl"](some)
    pull = [0.002 * LN(ratio) for ratio in (1.2, 1.6, 0.4, 0.4, 0.4)]  # 2·τ·log r, τ = 1e-3
    assert keep_of(found) == [True, False, True, False, True, None]
    expected = [1.2 - pull[0], -pull[1], 0.4 - pull[2], -pull[3], -pull[4]]
    assert coef_of(found) == [*map(pytest.approx, expected), None]
    # r·A without the pull; there keep is the sign of coef·A again
    assert coef_of(METHODS["prime_rl"](some, "mask-only")) == [*map(pytest.approx, (1.2, 0.0, 0.4, 0.0, 0.0)), None]
    # `is_masked`: A = 0 follows the rule of A < 0, the pull stays
    reported = METHODS["prime_rl"](some, "prime-rl")
    assert keep_of(reported) == [True, False, True, False, False, None]
    assert coef_of(reported)[4] == pytest.approx(-pull[4])


def test_prime_rl_and_ipo_at_their_threshold() -> None:
    edge = tokens([1, 1, -1, -1], mu=[0.5] * 4, new=[0.6, 0.6, 0.4, 0.4], tv_binary_rollout=[0.125, 0.126] * 2)
    assert keep_of(METHODS["prime_rl"](edge, delta_low=0.125, delta_high=0.125)) == [True, False] * 2
    assert keep_of(METHODS["ipo"](edge, delta=0.125)) == [True, False] * 2


def test_ipo_drops_in_both_directions() -> None:
    # δ = .1: .05 | .2 up | .2 down with A > 0, toward 1 | A < 0 up | A = 0 | unknown
    some = tokens([1, 1, 1, -1, 0, NAN], mu=[0.5] * 6, new=[0.55, 0.7, 0.3, 0.7, 0.3, 0.5])
    found = METHODS["ipo"](some)
    pull = [0.002 * LN(ratio) for ratio in (1.1, 1.4, 0.6, 1.4, 0.6)]
    assert keep_of(found) == [True, False, False, False, True, None]
    expected = [1.1 - pull[0], -pull[1], -pull[2], -pull[3], -pull[4]]
    assert coef_of(found) == [*map(pytest.approx, expected), None]
    assert keep_of(METHODS["ipo"](some, "prime-rl"))[4] is False


def with_lists(mu: list[list[float]], new: list[list[float]], advantage: list[float], kl: list[float]) -> TokenArrays:
    """Tokens whose sampled token is the first of their lists."""
    some = tokens(
        advantage, mu=[row[0] for row in mu], new=[row[0] for row in new], kl_topk_rollout=kl, tv_topk_rollout=kl
    )
    lists = (torch.tensor(rows, dtype=torch.float64).log() for rows in (mu, new))
    return replace(some, topk_lists=TopKLists(*lists))


def test_pdm_by_hand() -> None:
    mu, new = [0.5, 0.3, 0.2], [0.55, 0.44, 0.01]
    # Ḋ = .05 + .55·(−.05) + .44·(−.14) + .01·(.19) = −.0372: a rises, yet D falls. KL = .437
    kl = 0.5 * LN(0.5 / 0.55) + 0.3 * LN(0.3 / 0.44) + 0.2 * LN(0.2 / 0.01)
    some = with_lists([mu] * 4, [new] * 4, [1, -2, 0, 1], [kl, kl, kl, NAN])
    found = METHODS["pdm"](some)
    assert keep_of(found) == [True, False, True, None]
    assert coef_of(found) == [pytest.approx(1.1), 0.0, 0.0, None]
    # DPPO asks the ratio, 1.1, and decides the other way round
    assert keep_of(METHODS["dppo_topk_kl_rollout"](some)) == [False, True, True, None]


def test_pdm_at_its_threshold() -> None:
    rows = [[0.5, 0.3, 0.2]] * 2, [[0.55, 0.44, 0.01]] * 2
    edge = with_lists(*rows, [-1, -1], [0.125, math.nextafter(0.125, 1)])
    assert keep_of(METHODS["pdm"](edge, delta_low=0.125)) == [True, False]


def test_pdm_s_tail() -> None:
    # μ = (.3, .3 | .4), π = (.32, .41 | .27): .02 − .0064 − .0451 = −.0315; the tail adds .27·.13 = .0351: +.0036
    some = with_lists([[0.3, 0.3]], [[0.32, 0.41]], [1], [1.0])
    assert keep_of(METHODS["pdm"](some)) == [False]
    assert keep_of(METHODS["pdm"](some, tail="none")) == [True]
    # π = (.32, .43 | .25): .02 − .0064 − .0559 = −.0423, and .25·.15 = .0375 does not turn it
    assert keep_of(METHODS["pdm"](with_lists([[0.3, 0.3]], [[0.32, 0.43]], [1], [1.0]))) == [True]
    # places that are not used count nothing
    padded = with_lists([[0.3, 0.3, NAN]], [[0.32, 0.41, 0.2]], [1], [1.0])
    assert keep_of(METHODS["pdm"](padded)) == [False]
    # r = 8 weighs min(8, 5) in slime's forks
    capped = with_lists([[0.1, 0.9]], [[0.8, 0.2]], [-1], [1.0])
    assert coef_of(METHODS["pdm"](capped)) == pytest.approx([-8.0])
    assert coef_of(METHODS["pdm"](capped, "slime")) == pytest.approx([-5.0])
    with pytest.raises(ValueError, match="tail is 'uniform'"):
        METHODS["pdm"](some, tail="uniform")


def test_pdm_s_direction_is_that_of_the_divergence() -> None:
    # over whole vocabularies of 6: the sign of d KL(μ‖π) along the gradient of log π(a), by central differences
    generator = torch.Generator().manual_seed(3)
    rows = 64
    mu, new = (torch.softmax(torch.randn(rows, 6, generator=generator, dtype=torch.float64), 1) for _ in range(2))

    def kl(step: float) -> torch.Tensor:
        toward = -new.clone()
        toward[:, 0] += 1.0
        moved = torch.log_softmax(new.log() + step * toward, 1)
        return (mu * (mu.log() - moved)).sum(1)

    rises = kl(1e-5) > kl(-1e-5)
    some = with_lists(mu.tolist(), new.tolist(), [1.0] * rows, kl(0.0).tolist())
    found = METHODS["pdm"](some, delta_low=0.0, delta_high=0.0)
    assert found.keep.tolist() == (~rises).tolist()
    assert 10 < int(rises.sum()) < 54
