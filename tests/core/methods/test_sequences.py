"""GSPO, GMPO, VESPO, NFPO and decoupled PPO on responses of unequal length, worked by hand."""

from __future__ import annotations

import math

import pytest

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Unavailable
from tests.core.methods.arrays import coef_of, keep_of
from tests.core.methods.responses import mismatched, responses

NAN = math.nan
E = math.e


def test_gspo_decides_on_the_geometric_mean_of_the_response() -> None:
    # response 0: (2·½·1.331)^(1/3) = 1.1; response 1: (.81·1)^(1/2) = .9
    ratio = [[2, 0.5, 1.331], [0.81, 1]]
    away = METHODS["gspo"](mismatched([1, -2], [[1] * 3, [1] * 2], ratio))  # 1.1 > 1.0004 and .9 < .9997
    assert keep_of(away) == [False] * 5
    assert coef_of(away) == [0] * 5
    back = METHODS["gspo"](mismatched([-1, 2], [[1] * 3, [1] * 2], ratio))
    assert keep_of(back) == [True] * 5
    assert coef_of(back) == pytest.approx([-1.1, -1.1, -1.1, 1.8, 1.8])
    wide = METHODS["gspo"](mismatched([1, -2], [[1] * 3, [1] * 2], ratio), "skyrl")  # [.8, 1.2]
    assert coef_of(wide) == pytest.approx([1.1, 1.1, 1.1, -1.8, -1.8])


def test_gspo_keeps_on_the_bound_and_where_there_is_no_advantage() -> None:
    at, beyond = math.log(1.25), math.nextafter(math.log(1.25), 1)
    found = METHODS["gspo"](
        responses(
            [1, 1, 0],
            old=[[0.1] * 2, [0.1], [0.1]],
            new=[[0.1] * 2, [0.1], [0.1]],
            log_ratio_old=[[2 * at, 0], [beyond], [9]],
        ),
        eps_high=0.25,
    )
    assert keep_of(found) == [True, True, False, True]
    assert coef_of(found) == pytest.approx([1.25, 1.25, 0, 0])


def test_gspo_of_areal_takes_the_mean_advantage_of_the_response() -> None:
    found = METHODS["gspo"](mismatched([[3, 0, 0], [-1, 3]], [[1] * 3, [1] * 2], [[1.1] * 3, [0.9] * 2]), "areal")
    assert coef_of(found) == pytest.approx([1.1, 1.1, 1.1, 0.9, 0.9])  # both means are 1
    with pytest.raises(ValueError, match="advantage is 'prompt'"):
        METHODS["gspo"](mismatched([1], [[1]], [[1]]), advantage="prompt")


def test_gmpo_clips_each_log_ratio_and_weighs_by_their_mean() -> None:
    # A > 0: .6 → .4, −1.2 and .3 stay: mean −.5/3; A < 0: −.8 → −.4, .6 stays: mean .1
    log_ratio = [[0.6, -1.2, 0.3], [0.6, -0.8]]
    old = [[0.1] * 3, [0.1] * 2]
    found = METHODS["gmpo"](responses([1, -2], old=old, new=old, log_ratio_old=log_ratio))
    assert keep_of(found) == [False, True, True, True, False]
    first, second = math.exp(-0.5 / 3), -2 * math.exp(0.1)
    assert coef_of(found) == pytest.approx([0, first, first, second, 0])


def test_gmpo_keeps_on_the_bound_and_where_there_is_no_advantage() -> None:
    old = [[0.1] * 2, [0.1] * 2, [0.1]]
    found = METHODS["gmpo"](responses([1, -1, 0], old=old, new=old, log_ratio_old=[[0.4, 0.4], [-0.4, -0.4], [5]]))
    assert keep_of(found) == [True] * 5
    assert coef_of(found) == pytest.approx([math.exp(0.4)] * 2 + [-math.exp(-0.4)] * 2 + [0])


def test_vespo_weighs_by_a_gamma_function_of_the_product() -> None:
    # w = 2·½·2 = 2, A = ¼: exp(3 + 2·ln 2 − 3·2) = 4e⁻³; w = ½, A < 0: exp(2 + 3·ln ½ − 2·½) = e/8; w = 1: 1
    ratio = [[2, 0.5, 2], [0.25, 2], [1], [7]]
    found = METHODS["vespo"](mismatched([0.25, -2, -3, 0], [[1] * len(of) for of in ratio], ratio))
    assert keep_of(found) == [True] * 7
    assert coef_of(found) == pytest.approx([E**-3] * 3 + [-2 * E / 8] * 2 + [-3, 0])


def test_vespo_bounds_its_weight() -> None:
    old = [[0.1], [0.1] * 2]
    found = METHODS["vespo"](responses([1, 1], old=old, new=old, log_ratio_old=[[-30.0], [-15.0, -15.0]]))
    # log w = max(−20 or −30, log 1e-8): exp(3 + 2·log 1e-8 − 3e-8), the same for both
    assert coef_of(found) == pytest.approx([1e-16 * math.exp(3 - 3e-8)] * 3, rel=1e-12, abs=0)


def test_vespo_multiplies_the_capped_mismatch_in() -> None:
    # min(4, 3)·½ · 2·1 = 3, A < 0: exp(2 + 3·ln 3 − 2·3) = 27e⁻⁴
    tokens = mismatched([-1], [[4, 0.5]], [[2, 1]])
    assert coef_of(METHODS["vespo"](tokens, "trl-vllm")) == pytest.approx([-27 * E**-4] * 2)
    # without a cap w = 4: exp(2 + 3·ln 4 − 8) = 64e⁻⁶
    assert coef_of(METHODS["vespo"](tokens, correction="token")) == pytest.approx([-64 * E**-6] * 2)
    with pytest.raises(ValueError, match="correction is 'ratio'"):
        METHODS["vespo"](tokens, correction="ratio")


def test_nfpo_multiplies_the_next_ratios_of_the_response() -> None:
    tokens = mismatched([1, -1, 0], [[1] * 3, [1] * 2, [1]], [[2, 3, 0.5], [4, 0.25], [9]])
    nfpo = METHODS["nfpo"]
    assert nfpo.status == "unverified"
    assert coef_of(nfpo(tokens, n=1)) == pytest.approx([2, 3, 0.5, -4, -0.25, 0])
    assert coef_of(nfpo(tokens, n=2)) == pytest.approx([6, 1.5, 0.5, -1, -0.25, 0])
    assert coef_of(nfpo(tokens, n=3)) == pytest.approx([3, 1.5, 0.5, -1, -0.25, 0])
    assert coef_of(nfpo(tokens, n=None)) == pytest.approx([3, 1.5, 0.5, -1, -0.25, 0])
    assert keep_of(nfpo(tokens)) == [True] * 6
    with pytest.raises(ValueError, match="n is 0"):
        nfpo(tokens, n=0)


def test_decoupled_ppo_with_a_proximal_policy() -> None:
    # π_prox/μ:  1.5       2.5 > 2    .4 < ½   1         1         2.5
    # π/π_prox:  1.1       1          1        1.5 > 1.2 1.5       1
    # A:         1         1          1        1         −1        0
    tokens = responses(
        [[1, 1, 1], [1, -1, 0]],
        mu=[[0.1, 0.1, 0.1], [0.1, 0.1, 0.1]],
        proximal=[[0.15, 0.25, 0.04], [0.1, 0.1, 0.25]],
        new=[[0.165, 0.25, 0.04], [0.15, 0.15, 0.25]],
    )
    method = METHODS["decoupled_ppo_proximal"]
    assert method.status == "secondary"
    found = method(tokens)
    assert keep_of(found) == [True, False, False, False, True, True]
    assert coef_of(found) == pytest.approx([1.65, 0, 0, 0, -1.5, 0])  # r = π/μ
    assert keep_of(method(tokens, "ppo-ewma")) == [True, True, True, False, True, True]


def test_decoupled_ppo_keeps_on_the_bounds_of_its_band() -> None:
    powers = responses([[1, 1]], mu=[[0.25, 0.5]], proximal=[[0.5, 0.25]], new=[[0.5, 0.25]])  # 2 and ½
    assert keep_of(METHODS["decoupled_ppo_proximal"](powers)) == [True, True]
    assert keep_of(METHODS["decoupled_ppo_proximal"](powers, band=1.999)) == [False, False]


def test_the_proximal_policy_is_asked_for_and_not_replaced() -> None:
    with pytest.raises(Unavailable, match="decoupled_ppo_proximal: a third, proximal policy"):
        METHODS["decoupled_ppo_proximal"](responses([1], mu=[[0.1]], old=[[0.1]], new=[[0.1]]))
    unknown = responses([[1, 1]], mu=[[0.1, 0.1]], proximal=[[NAN, 0.1]], new=[[0.1, 0.1]])
    assert keep_of(METHODS["decoupled_ppo_proximal"](unknown)) == [None, True]
