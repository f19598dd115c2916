"""CPPO's prefix budget and GBPO's target, on responses and prompts of unequal size, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.methods.bounded import _quantile
from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Unavailable
from tests.core.methods.arrays import coef_of, keep_of
from tests.core.methods.responses import responses

NAN = math.nan


def test_cppo_spends_a_budget_over_the_prefix() -> None:
    # response 0, T = 3: w = 1, .9, .8; D = .1; Z = .1, .09, .08; S = 0, .1, .19; W = 0, 1, 1.9
    #   c = .15, .15 + .02 − .1 = .07, .15 + .038 − .19 = −.002: keeps the first only
    # response 1, T = 2: w = 1, .8; D = .01, .16; Z = .01, .128; S = .01 < δ_b·W = .02, so c = δ = .15: keeps both
    # response 2, T = 1: w = 1; D = .16 > .15
    tokens = responses([1, -1, 1], mu=[[0.4] * 3, [0.5, 0.5], [0.4]], new=[[0.5] * 3, [0.49, 0.34], [0.56]])
    found = METHODS["cppo"](tokens, budget=0.02)
    assert keep_of(found) == [True, False, False, True, True, False]
    assert coef_of(found) == pytest.approx([1.25, 0, 0, -0.98, -0.68, 0])  # r = .5/.4, .49/.5, .34/.5


def test_cppo_never_drops_a_move_back_nor_a_token_without_advantage() -> None:
    mu, new = [[0.4] * 3, [0.4] * 2], [[0.8] * 3, [0.8] * 2]
    found = METHODS["cppo"](responses([-1, 0], mu=mu, new=new))
    assert keep_of(found) == [True] * 5
    assert coef_of(found) == pytest.approx([-2, -2, -2, 0, 0])


def test_cppo_keeps_on_its_threshold() -> None:
    mu = [[0.1], [0.1]]
    tokens = responses([1, 1], mu=mu, new=[[0.2], [0.2]], tv_topk_rollout=[[0.25], [math.nextafter(0.25, 1)]])
    assert keep_of(METHODS["cppo"](tokens, delta=0.25, estimate="topk")) == [True, False]
    with pytest.raises(Unavailable, match="no usable top-K lists"):
        METHODS["cppo"](responses([1], mu=[[0.1]], new=[[0.2]]), estimate="topk")
    with pytest.raises(ValueError, match="estimate is 'k3'"):
        METHODS["cppo"](tokens, estimate="k3")


def test_cppo_s_budget_follows_the_response() -> None:
    # w = 1 throughout, δ = .04, D = .04, .0385: P90 = .0385 + .9·.0015 = .03985, so c₂ = .04 + .03985 − .04 = .03985
    mu, new = [[0.1] * 2], [[0.2] * 2]
    tokens = responses([1], mu=mu, new=new, tv_topk_rollout=[[0.04, 0.0385]])
    parameters = {"delta": 0.04, "w_min": 1.0, "estimate": "topk"}
    assert keep_of(METHODS["cppo"](tokens, **parameters)) == [True, True]
    assert keep_of(METHODS["cppo"](tokens, budget=0.038, **parameters)) == [True, False]  # c₂ = .038
    assert keep_of(METHODS["cppo"](tokens, budget_max=0.038, **parameters)) == [True, False]
    calm = responses([1], mu=mu, new=new, tv_topk_rollout=[[0.01, 0.019]])  # P90 = .0181 → .02
    # δ = .01: c₂ = min(.01, .01 + .02 − .01) = .01 < .019; with w_min = .5 Z₂ = .0095
    assert keep_of(METHODS["cppo"](calm, delta=0.01, w_min=1.0, estimate="topk")) == [True, False]
    assert keep_of(METHODS["cppo"](calm, delta=0.01, w_min=0.5, estimate="topk")) == [True, True]


def test_cppo_s_budget_grows_with_the_weights_of_the_prefix() -> None:
    # w = 1, .9, .8; Z = .1, 0, .096; c₃ = .1 + .05·1.9 − .1 = .095
    tokens = responses([1], mu=[[0.1] * 3], new=[[0.2] * 3], tv_topk_rollout=[[0.1, 0.0, 0.12]])
    found = METHODS["cppo"](tokens, delta=0.1, budget=0.05, estimate="topk")
    assert keep_of(found) == [True, True, False]
    assert keep_of(METHODS["cppo"](tokens, delta=0.1, budget=0.0506, estimate="topk")) == [True] * 3  # .09614


def test_cppo_with_a_fixed_horizon_and_a_capped_weight() -> None:
    # w₂ = 1 − .2·1/(5 − 1) = .95: Z₂ = .95·.16 = .152 > .15; over the response's own two tokens w₂ = .8
    tokens = responses([1], mu=[[0.5, 0.2]], new=[[0.5, 0.36]])
    assert keep_of(METHODS["cppo"](tokens)) == [True, True]
    assert keep_of(METHODS["cppo"](tokens, horizon=5)) == [True, False]
    rare = responses([1], mu=[[0.001]], new=[[0.05]])  # r = 50
    assert coef_of(METHODS["cppo"](rare, "verl")) == pytest.approx([20])
    assert coef_of(METHODS["cppo"](rare, "unirl")) == pytest.approx([50])


# One prompt with rewards 1, 0, 0 (mean 1/3, median 0, s = √(1/3)) and one with 0, 1, 1, 0 (median ½).
def test_gbpo_pulls_the_ratio_to_its_target() -> None:
    # without scaling: r* = .8 + .4σ(1) = 1.0924, 1, 1; |A| = 2/3, 1/3, 1/3
    old = [[0.1] * 2, [0.1] * 2, [0.1]]
    tokens = responses([1, -1, -1], old=old, new=[[0.1, 0.12], [0.11, 0.1], [0.09]], group=[3, 3, 3], reward=[1, 0, 0])
    tokens = tokens.with_statistics(
        log_ratio_old=torch.tensor([0.0, math.log(1.2), math.log(1.1), 0.0, math.log(0.9)], dtype=torch.float64)
    )
    found = METHODS["gbpo"](tokens, scale="none")
    # past its target (1.2 > 1.0924; .9 < 1) the pull is against A; on the target (1 = 1) there is none
    assert coef_of(found) == pytest.approx([2 / 3, -1.2 * 2 / 3, -1.1 / 3, 0, 0.9 / 3])
    assert keep_of(found) == [True, False, True, False, False]
    s = math.sqrt(1 / 3) + 1e-6
    scaled = METHODS["gbpo"](tokens)  # r* = .8 + .4σ(1/s) = 1.1399, so 1.2 is still past it
    assert coef_of(scaled) == pytest.approx([2 / 3 / s, -1.2 * 2 / 3 / s, -1.1 / 3 / s, 0, 0.9 / 3 / s])
    wide = METHODS["gbpo"](tokens, "readme")  # r* = .7 + .6·1 = 1.3
    assert coef_of(wide)[:2] == pytest.approx([2 / 3 / s, 1.2 * 2 / 3 / s])
    with pytest.raises(ValueError, match="scale is 'max'"):
        METHODS["gbpo"](tokens, scale="max")


def test_gbpo_takes_the_middle_of_an_even_group_and_a_lone_response_as_it_is() -> None:
    # prompt 1: median ½, mean ½; r* = .8 + .4σ(±½) = 1.0490, .9510; prompt 0 has one response: mean 0, median 0, s = 1
    old = [[0.1], [0.1], [0.1], [0.1], [0.1]]
    tokens = responses([-1, 1, 1, -1, 0], old=old, new=old, group=[1, 1, 1, 1, 0], reward=[0, 1, 1, 0, 2])
    found = METHODS["gbpo"](tokens, scale="none")
    assert coef_of(found) == pytest.approx([-0.5, 0.5, 0.5, -0.5, 2])  # r* of the last: .8 + .4σ(2) = 1.152
    assert keep_of(found) == [True] * 5
    alone = METHODS["gbpo"](tokens)
    assert coef_of(alone)[4] == pytest.approx(2 / (1 + 1e-6))


@pytest.mark.parametrize(
    ("old", "reward"), [([[0.1, NAN], [0.1], [0.1]], [1, 0, 1]), ([[0.1, 0.1], [0.1], [0.1]], [NAN, 0, 1])]
)
def test_an_unknown_token_or_reward_makes_its_prompt_unknown_and_no_other(
    old: list[list[float]], reward: list[float]
) -> None:
    new = [[0.1, 0.1], [0.1], [0.1]]
    found = METHODS["gbpo"](responses([1, -1, 1], old=old, new=new, group=[2, 2, 8], reward=reward))
    assert keep_of(found) == [None, None, None, True]


def test_gbpo_asks_for_rewards_and_prompts() -> None:
    tokens = responses([1], old=[[0.1]], new=[[0.1]], group=[0])
    with pytest.raises(Unavailable, match="gbpo: the log has no rewards"):
        METHODS["gbpo"](tokens)


def test_quantiles_of_parts() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, NAN, 1.0, 2.0], dtype=torch.float64)
    index = torch.tensor([0, 0, 0, 2, 2, 3, 3, 3])
    size = torch.tensor([3, 0, 2, 3])
    # 1, 2, 3: place 1.8 → 2 + .8; no values; 4, 5: place .9; 1, 2 and one that is not known
    assert _quantile(values, index, size, 0.9).tolist() == pytest.approx([2.8, NAN, 4.9, NAN], nan_ok=True)
    assert _quantile(values, index, size, 0.5).tolist() == pytest.approx([2, NAN, 4.5, NAN], nan_ok=True)
    nothing = _quantile(values[:0], index[:0], torch.tensor([0]), 0.5)
    assert nothing.isnan().tolist() == [True]
