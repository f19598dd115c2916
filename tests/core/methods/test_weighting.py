"""Methods that weigh every token: coef and keep by hand."""

from __future__ import annotations

import math

import pytest

from dppo_core.methods.catalog import METHODS
from tests.core.methods.arrays import NAN, coef_of, keep_of, tokens

# r = 8, .5, 8, .5 from the rollout policy; A = 0; not known
SOME = tokens([1, 1, -2, -2, 0, 1], mu=[0.1, 0.4, 0.1, 0.4, 0.1, NAN], new=[0.8, 0.2, 0.8, 0.2, 0.8, 0.2])
ALL_KEPT = [True] * 5 + [None]


def test_pg_is() -> None:
    found = METHODS["pg_is"](SOME)
    assert keep_of(found) == ALL_KEPT
    assert coef_of(found) == [*map(pytest.approx, (8.0, 0.5, -16.0, -1.0, 0.0)), None]


@pytest.mark.parametrize(("variant", "cap"), [(None, 5.0), ("paper-scaling", 5.0), ("stable-rl", 3.0), ("verl", 2.0)])
def test_pg_tis(variant: str | None, cap: float) -> None:
    found = METHODS["pg_tis"](SOME, variant)
    assert keep_of(found) == ALL_KEPT
    assert coef_of(found) == [*map(pytest.approx, (cap, 0.5, -2 * cap, -1.0, 0.0)), None]


def test_weights_of_any_size_are_decided() -> None:
    # r = e^800 is infinite in float64: A = 0 still has no gradient, and a dropped token's coefficient is 0
    huge = tokens([0, 1], mu=[0.5] * 2, old=[0.5] * 2, new=[0.5] * 2, log_ratio_rollout=[800, 800])
    assert coef_of(METHODS["pg_is"](huge)) == [0.0, math.inf]
    assert coef_of(METHODS["ppo_rollout"](huge)) == [0.0, 0.0]
    tiny = tokens([1], mu=[0.5], new=[0.5], log_ratio_rollout=[-800])
    assert keep_of(METHODS["ppo_rollout"](tiny)) == [True]
    assert keep_of(METHODS["pg_is"](tiny)) == [True]


@pytest.mark.parametrize(
    ("variant", "floor", "cap"),
    [
        (None, 0.0, 1.2),
        ("verl", 0.8, 1.2),
        ("verl-script", 0.0, 1.2),
        ("trl", 0.0, 5.0),
        ("open-instruct", 0.0, 1.272),
        ("tmax", 0.0, 1.272),
        ("skyrl", 0.0, 5.0),
        ("nemo-rl", 0.8, 1.2),
        ("nemo-rl-guide", 0.0, 6.0),
        ("slime", 0.8, 1.2),
        ("slime-wide", 0.0, 5.0),
        ("rllm", 0.8, 1.2),
    ],
)
def test_cispo(variant: str | None, floor: float, cap: float) -> None:
    # r′ = 8, .5, 1.1
    some = tokens([1, -2, 1, 0, 1], old=[0.1, 0.4, 0.5, 0.1, NAN], new=[0.8, 0.2, 0.55, 0.8, 0.5])
    found = METHODS["cispo"](some, variant)
    assert keep_of(found) == [True, True, True, True, None]
    assert coef_of(found) == [*map(pytest.approx, (cap, -2 * max(0.5, floor), 1.1, 0.0)), None]


def test_cispo_from_the_rollout_policy_needs_no_old_policy() -> None:
    assert coef_of(METHODS["cispo"](SOME, "skyrl-rollout")) == [*map(pytest.approx, (5, 0.5, -10, -1, 0)), None]
    assert METHODS["cispo"].needs == ("logp_old", "logp_new")
    assert METHODS["cispo"].inputs("skyrl-rollout") == ("logp_rollout", "logp_new")


def test_sapo() -> None:
    # r′ = 1: 4·½·½ = 1. r′ = 3, τ = 1: σ(2)(1 − σ(2)) = .8807970779778823·.1192029220221177 = .10499358540350662,
    # times 4·3 = 1.2599230248420794. r′ = .5, τ = 1.05: σ(−.525) = .37168, .37168·.62832 = .23353, times 4·.5 = .46707
    some = tokens([2, 1, -1, 0, 1], old=[0.3, 0.2, 0.4, 0.2, NAN], new=[0.3, 0.6, 0.2, 0.6, 0.2])
    found = METHODS["sapo"](some)
    assert keep_of(found) == [True, True, True, True, None]
    gate = 1 / (1 + math.exp(0.525))
    expected = (2.0, 1.2599230248420794, -0.5 * 4 * gate * (1 - gate), 0.0)
    assert coef_of(found) == [*map(pytest.approx, expected), None]
    assert 0.5 * 4 * gate * (1 - gate) == pytest.approx(0.46707, abs=5e-5)
    # far out the gate is shut, also where r′ is infinite
    far = tokens([1], old=[0.5], new=[0.5], log_ratio_old=[800])
    assert coef_of(METHODS["sapo"](far)) == [0.0]
    # with one τ for both signs, A = ±1 are opposite
    both = tokens([1, -1], old=[0.4, 0.4], new=[0.2, 0.2])
    positive, negative = coef_of(METHODS["sapo"](both, tau_negative=1.0))
    assert positive == pytest.approx(-negative)


def test_drpo() -> None:
    # δ = .15, A > 0: .2 → .26, 1.3·(1 − .4) = .78; .2 → .5, 2.5·(1 − 2) = −2.5; .5 → .2, toward 1, .4·(1 + 2) = 1.2.
    # A = −2: .5 → .2, .4·(1 − 2)·(−2) = .8; .2 → .5, toward 1, 2.5·(1 + 2)·(−2) = −15
    some = tokens(
        [1, 1, 1, -2, -2, 0, 1], mu=[0.2, 0.2, 0.5, 0.5, 0.2, 0.2, NAN], new=[0.26, 0.5, 0.2, 0.2, 0.5, 0.5, 0.5]
    )
    found = METHODS["drpo"](some)
    assert keep_of(found) == [True, False, True, False, True, True, None]
    assert coef_of(found) == [*map(pytest.approx, (0.78, -2.5, 1.2, 0.8, -15.0, 0.0)), None]
    edge = tokens([1, 1, 1], mu=[0.2] * 3, new=[0.35] * 3, tv_binary_rollout=[0.125, 0.124, 0.126])
    at = METHODS["drpo"](edge, delta_high=0.125)
    # on δ the weight is 0 and nothing is left of the gradient: not kept
    assert keep_of(at) == [False, True, False]
    assert coef_of(at)[0] == 0.0
    # the paper's own δ turns no token: |π − μ| ≤ 1 < 12.5
    assert keep_of(METHODS["drpo"](some, "unirl")) == [True] * 6 + [None]
    assert coef_of(METHODS["drpo"](some, "unirl"))[1] == pytest.approx(2.5 * (1 - 0.3 / 12.5))


def test_drpo_has_a_threshold_for_each_sign() -> None:
    some = tokens([1, -1], mu=[0.2, 0.5], new=[0.35, 0.35])
    assert keep_of(METHODS["drpo"](some, delta_low=0.1, delta_high=0.2)) == [True, False]
    assert keep_of(METHODS["drpo"](some, delta_low=0.2, delta_high=0.1)) == [False, True]


def test_spo() -> None:
    # ε = .2: r = 1.1: 1.1·(1 − .5) = .55; r = 1.5: 1.5·(1 − 2.5) = −2.25; r = .5, A > 0: .5·(1 + 2.5) = 1.75;
    # r = .5, A = −2: .5·(1 − 2.5)·(−2) = 1.5
    some = tokens([1, 1, 1, -2, 0, 1], mu=[0.5, 0.4, 0.4, 0.4, 0.4, NAN], new=[0.55, 0.6, 0.2, 0.2, 0.6, 0.6])
    found = METHODS["spo"](some)
    assert keep_of(found) == [True, False, True, False, True, None]
    assert coef_of(found) == [*map(pytest.approx, (0.55, -2.25, 1.75, 1.5, 0.0)), None]
    edge = [math.log(1.25), math.log(1.25) - 1e-9, math.log(1.25) + 1e-9]
    at = tokens([1] * 3, mu=[0.4] * 3, new=[0.5] * 3, log_ratio_rollout=edge)
    assert keep_of(METHODS["spo"](at, eps=0.25)) == [False, True, False]
    # from π_old, where r′ = 1.1 and r = 3
    old = tokens([1], mu=[0.2], old=[0.6 / 1.1], new=[0.6])
    assert coef_of(METHODS["spo"](old, anchor="old")) == pytest.approx([0.55])
    assert METHODS["spo"].inputs(anchor="old") == ("logp_old", "logp_new")
    # r = 9, ε = 12.5: 9·(1 − 8/12.5)
    assert coef_of(METHODS["spo"](tokens([1], mu=[0.1], new=[0.9]), "unirl")) == pytest.approx([3.24])
