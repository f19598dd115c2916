"""PPO and its relatives: coef and keep by hand."""

from __future__ import annotations

import math

import pytest

from dppo_core.methods.catalog import METHODS
from tests.core.methods.arrays import NAN, coef_of, keep_of, tokens

LN = math.log

# P(a) = .4 → π(a): r = 1.5 or .5 under the anchor
ADVANTAGE = [1.0, 1.0, -2.0, -2.0, 0.0, 0.0, 1.0]
ANCHOR = [0.4] * 6 + [NAN]
NEW = [0.6, 0.2, 0.2, 0.6, 0.6, 0.2, 0.6]


@pytest.mark.parametrize(
    "variant", [None, "verl", "trl", "nemo-rl", "skyrl", "slime", "areal", "dapo", "paper-scaling"]
)
def test_ppo_old(variant: str | None) -> None:
    found = METHODS["ppo_old"](tokens(ADVANTAGE, old=ANCHOR, new=NEW), variant)
    # up with A > 0 and down with A < 0 are dropped; the others weigh r′A = .5·1 and 1.5·(−2); A = 0 keeps
    assert keep_of(found) == [False, True, False, True, True, True, None]
    assert coef_of(found) == [0.0, pytest.approx(0.5), 0.0, pytest.approx(-3.0), 0.0, 0.0, None]


def test_ppo_at_its_bounds() -> None:
    bounds = [LN(1.25), LN(1.25) + 1e-12, LN(0.75), LN(0.75) - 1e-12, LN(3), LN(3) + 1e-12]
    for name, anchor in (("ppo_old", "old"), ("ppo_rollout", "rollout")):
        at_bounds = tokens(
            [1, 1, -1, -1, -1, -1], mu=[0.1] * 6, old=[0.1] * 6, new=[0.1] * 6, **{f"log_ratio_{anchor}": bounds}
        )
        found = METHODS[name](at_bounds, eps_low=0.25, eps_high=0.25, dual_clip=3.0)
        assert keep_of(found) == [True, False, True, False, True, False]
        assert coef_of(found) == pytest.approx([1.25, 0, -0.75, 0, -3, 0])


def test_ppo_variants_differ_in_their_bounds() -> None:
    # r′ = 1.22, 1.275 with A > 0; 3.5 with A < 0
    between = tokens([1, 1, -1], old=[0.1] * 3, new=[0.122, 0.1275, 0.35])
    expected = {
        "verl": [False, False, False],
        "skyrl-dual-clip": [False, False, False],
        "trl": [False, False, True],
        "rllm": [False, False, True],
        "paper-scaling": [True, False, True],
        "paper-stability": [True, True, True],
        "dapo": [True, True, True],
    }
    for variant, keep in expected.items():
        assert keep_of(METHODS["ppo_old"](between, variant)) == keep, variant


def test_ppo_rollout_and_its_cap() -> None:
    method = METHODS["ppo_rollout"]
    found = method(tokens(ADVANTAGE, mu=ANCHOR, new=NEW))
    assert coef_of(found) == [0.0, pytest.approx(0.5), 0.0, pytest.approx(-3.0), 0.0, 0.0, None]
    # A < 0 and r = 4: verl's dual clip drops it, Stable-RL and the scaling runs truncate its weight at 3 and 5
    moved = tokens([-2], mu=[0.1], new=[0.4])
    assert coef_of(method(moved, "verl")) == [0.0]
    assert coef_of(method(moved, "stable-rl")) == pytest.approx([-6.0])
    assert coef_of(method(moved, "paper-scaling")) == pytest.approx([-8.0])
    assert coef_of(method(moved, weight_cap=2.0)) == pytest.approx([-4.0])


def test_minirl_masks_by_the_old_policy_and_weighs_by_the_rollout_policy() -> None:
    # r′ = 1.5, 1.25, .5, 1, 1, ?; r = 3, 4, 1, 8, 8, ?
    found = METHODS["minirl"](
        tokens(
            [1, 1, -1, 2, 0, 1, 1],
            mu=[0.1, 0.1, 0.2, 0.1, 0.1, NAN, 0.1],
            old=[0.2, 0.32, 0.4, 0.8, 0.8, 0.4, NAN],
            new=[0.3, 0.4, 0.2, 0.8, 0.8, 0.4, 0.4],
        )
    )
    assert keep_of(found) == [False, True, False, True, True, None, None]
    assert coef_of(found) == [0.0, pytest.approx(4.0), 0.0, pytest.approx(16.0), 0.0, None, None]


def test_minirl_with_truncated_weights() -> None:
    kept = tokens([1, 2], mu=[0.1, 0.1], old=[0.4, 0.8], new=[0.4, 0.8])  # r′ = 1, r = 4 and 8
    assert coef_of(METHODS["minirl"](kept, "paper-scaling")) == pytest.approx([4.0, 16.0])
    assert coef_of(METHODS["minirl"](kept, "paper-scaling-tis")) == pytest.approx([4.0, 10.0])
    assert coef_of(METHODS["minirl"](kept, "stable-rl")) == pytest.approx([3.0, 6.0])
    edge = tokens([1, 1], mu=[0.1] * 2, old=[0.1] * 2, new=[0.1] * 2, log_ratio_old=[LN(1.25), LN(1.25) + 1e-12])
    assert keep_of(METHODS["minirl"](edge, eps_high=0.25)) == [True, False]


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        # μ = .4 is clipped on both sides; μ = .05 < α only on the side that is not relaxed
        ("both", [False, False, True, True, True]),
        ("high", [False, False, True, False, True]),
        ("low", [False, False, False, True, True]),
    ],
)
def test_relaxed_clip(sides: str, expected: list[bool]) -> None:
    some = tokens([1, -2, 1, -2, 0], mu=[0.4, 0.4, 0.05, 0.05, 0.4], new=[0.6, 0.2, 0.075, 0.025, 0.2])
    found = METHODS["relaxed_clip"](some, sides=sides)
    assert keep_of(found) == expected
    # r = 1.5 up and .5 down
    weights = [1.5, -1.0, 1.5, -1.0, 0.0]
    assert coef_of(found) == pytest.approx(
        [weight if keep else 0.0 for weight, keep in zip(weights, expected, strict=True)]
    )


def test_relaxed_clip_at_alpha_and_at_epsilon() -> None:
    # μ = α is clipped, the smallest step below is not; r = 1 + ε is kept; r = 4 weighs min(4, 3) in Stable-RL
    at_alpha = tokens([1, 1], mu=[0.1, math.nextafter(0.1, 0)], new=[0.4, 0.4])
    assert keep_of(METHODS["relaxed_clip"](at_alpha)) == [False, True]
    assert coef_of(METHODS["relaxed_clip"](at_alpha, "stable-rl-both")) == pytest.approx([0.0, 3.0])
    assert keep_of(METHODS["relaxed_clip"](at_alpha, "stable-rl-low")) == [False, False]
    assert keep_of(METHODS["relaxed_clip"](at_alpha, "stable-rl-high")) == [False, True]
    edge = tokens([1, 1], mu=[0.4] * 2, new=[0.5] * 2, log_ratio_rollout=[LN(1.25), LN(1.25) + 1e-12])
    assert keep_of(METHODS["relaxed_clip"](edge, eps_high=0.25)) == [True, False]
    with pytest.raises(ValueError, match="sides is 'up'"):
        METHODS["relaxed_clip"](edge, sides="up")


def test_bad_updates() -> None:
    # μ − π = .6 drops with A < 0 only; .4 and π above μ by .6 keep; weights r = .25, .2, 4, .25, .25
    found = METHODS["bad_update"](
        tokens([-1, -1, -1, 1, 0, -1], mu=[0.8, 0.5, 0.2, 0.8, 0.8, NAN], new=[0.2, 0.1, 0.8, 0.2, 0.2, 0.2])
    )
    assert keep_of(found) == [False, True, True, True, True, None]
    assert coef_of(found) == [0.0, pytest.approx(-0.2), pytest.approx(-4.0), pytest.approx(0.25), 0.0, None]


def test_a_bad_update_drops_at_its_threshold() -> None:
    at = tokens([-1, -1], mu=[0.75] * 2, new=[0.25] * 2, tv_binary_rollout=[0.5, math.nextafter(0.5, 0)])
    assert keep_of(METHODS["bad_update"](at)) == [False, True]
    assert coef_of(METHODS["bad_update"](at, delta=0.6)) == pytest.approx([-1 / 3, -1 / 3])
    assert keep_of(METHODS["bad_update"](at, delta=0.5)) == [False, True]
