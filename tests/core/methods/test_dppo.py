"""The twelve DPPO methods: coef and keep by hand, each framework's thresholds, profiles and conventions."""

from __future__ import annotations

import math
from itertools import product

import pytest

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Unavailable
from dppo_core.tokens import INPUTS
from tests.core.methods.arrays import NAN, coef_of, keep_of, tokens

TWELVE = [
    f"dppo_{estimate}_{metric}_{anchor}"
    for estimate, metric, anchor in product(("binary", "topk", "exact"), ("tv", "kl"), ("rollout", "old"))
]


@pytest.mark.parametrize("name", TWELVE)
def test_the_rule_of_the_twelve(name: str) -> None:
    _, estimate, metric, anchor = name.split("_")
    # P(a) = .4 → .6 (r = 1.5) or .2 (r = .5), δ_high = .125, δ_low = .25, C = 1.25
    some = tokens(
        #    D = δ_high | above | toward 1 | D = δ_low | above | toward 1 | A = 0 | D not known | A > 0: not δ_low
        advantage=[1, 1, 1, -2, -2, -2, 0, 1, 1],
        mu=[0.4] * 9,
        old=[0.4] * 9,
        new=[0.6, 0.6, 0.2, 0.2, 0.2, 0.6, 0.2, 0.6, 0.6],
        **{f"{metric}_{estimate}_{anchor}": [0.125, 0.126, 0.9, 0.25, 0.26, 0.9, 0.9, NAN, 0.2]},
    )
    found = METHODS[name](some, delta_low=0.25, delta_high=0.125, weight_cap=1.25)
    assert keep_of(found) == [True, False, True, True, False, True, True, None, False]
    assert coef_of(found) == [
        pytest.approx(1.25),  # min(1.5, 1.25)
        0.0,
        pytest.approx(0.5),
        pytest.approx(-1.0),  # .5·(−2)
        0.0,
        pytest.approx(-2.5),
        0.0,
        None,
        0.0,
    ]
    assert coef_of(METHODS[name](some, delta_low=1.0, delta_high=1.0))[0] == pytest.approx(1.5)  # C = ∞ by default


@pytest.mark.parametrize("anchor", ["rollout", "old"])
def test_binary_divergences_from_probabilities(anchor: str) -> None:
    # 1e-4 → 1e-2: TV .0099, KL .00949, r = 100. .99 → .80: TV .19, KL .181. .5 → .9: TV .4, KL ½ ln(25/9) = .511
    anchors, new = [1e-4, 0.99, 0.5, 0.5], [1e-2, 0.80, 0.9, 0.9]
    given = {"mu": anchors} if anchor == "rollout" else {"old": anchors}
    some = tokens([1, -1, 1, -1], new=new, **given)
    for name, metric in (("tv", "tv"), ("kl", "kl")):
        found = METHODS[f"dppo_binary_{metric}_{anchor}"](some)  # δ = .15, .05
        assert keep_of(found) == [True, False, False, True], name
        assert coef_of(found) == [pytest.approx(100.0), 0.0, 0.0, pytest.approx(-1.8)]
    assert keep_of(METHODS[f"dppo_binary_tv_{anchor}"](some, delta_low=0.2))[1] is True
    assert keep_of(METHODS[f"dppo_binary_kl_{anchor}"](some, delta_low=0.182))[1] is True
    assert keep_of(METHODS[f"dppo_binary_kl_{anchor}"](some, delta_low=0.180))[1] is False


def test_the_anchors_decide_differently() -> None:
    # μ = .7, π_old = .5, π = .72, A > 0: .02 from μ, .22 from π_old
    some = tokens([1], mu=[0.7], old=[0.5], new=[0.72])
    assert coef_of(METHODS["dppo_binary_tv_rollout"](some)) == pytest.approx([0.72 / 0.7])
    assert coef_of(METHODS["dppo_binary_tv_old"](some)) == [0.0]


FRAMEWORKS = [
    # (framework, anchor, metric, δ, C)
    ("paper-stability", "rollout", "tv", 0.15, None),
    ("paper-stability", "rollout", "kl", 0.05, None),
    ("paper-scaling", "rollout", "tv", 0.2, 5.0),
    ("paper-scaling", "rollout", "kl", 0.05, 5.0),
    ("paper-scaling-lora", "rollout", "tv", 0.15, 5.0),
    ("sensitivity-0.1", "rollout", "tv", 0.1, None),
    ("sensitivity-0.15", "rollout", "tv", 0.15, None),
    ("sensitivity-0.2", "rollout", "tv", 0.2, None),
    ("sensitivity-0.05", "rollout", "kl", 0.05, None),
    ("sensitivity-0.1", "rollout", "kl", 0.1, None),
    ("sensitivity-0.15", "rollout", "kl", 0.15, None),
    ("stable-rl", "rollout", "tv", 0.2, 3.0),
    ("stable-rl", "rollout", "kl", 0.2, 3.0),
    ("trl", "rollout", "tv", 0.15, 20.0),
    ("trl", "rollout", "kl", 0.15, 20.0),
    ("trl-5956", "rollout", "tv", 0.2, 20.0),
    ("trl-5956", "rollout", "kl", 0.2, 20.0),
    ("verl", "rollout", "tv", 0.2, 3.0),
    ("verl", "old", "tv", 0.2, 3.0),
    ("verl", "old", "kl", 0.2, 3.0),
    ("verl-script", "old", "tv", 0.15, 10_000.0),
    ("verl-script", "old", "kl", 0.05, 10_000.0),
    ("open-instruct", "rollout", "tv", 0.1, None),
    ("open-instruct", "rollout", "kl", 0.1, None),
    ("skyrl", "rollout", "tv", 0.2, None),
    ("skyrl", "rollout", "kl", 0.2, None),
    ("skyrl", "old", "tv", 0.2, None),
    ("rllm", "rollout", "tv", 0.2, None),
    ("rllm", "rollout", "kl", 0.2, None),
    ("slime", "old", "tv", 0.2, 20.0),
    ("zaya1", "rollout", "tv", 0.1, None),
    ("tmax", "rollout", "tv", 0.1, None),
]


@pytest.mark.parametrize(("framework", "anchor", "metric", "delta", "cap"), FRAMEWORKS)
def test_a_framework_s_thresholds_and_cap(
    framework: str, anchor: str, metric: str, delta: float, cap: float | None
) -> None:
    method = METHODS[f"dppo_binary_{metric}_{anchor}"]
    # r = 1e5 with A < 0 moves toward 1: kept, and shows the cap
    far = tokens([-1], mu=[1e-6], old=[1e-6], new=[0.1])
    assert coef_of(method(far, framework)) == pytest.approx([-min(1e5, cap or math.inf)], rel=1e-9)
    if metric == "tv":
        # μ = .5 → .5 ± δ: a step of 1e-6 on either side of δ
        inside, outside = delta - 1e-6, delta + 1e-6
        around = [0.5 + inside, 0.5 + outside, 0.5 - inside, 0.5 - outside]
        near = tokens([1, 1, -1, -1], mu=[0.5] * 4, old=[0.5] * 4, new=around)
        assert keep_of(method(near, framework)) == [True, False, True, False]
    else:
        # KL(.5‖q) = −½ ln(4q(1−q)) = δ at q = ½ ± ½√(1 − e^(−2δ))
        reach = 0.5 * math.sqrt(1 - math.exp(-2 * delta))
        around = [0.5 + reach - 1e-5, 0.5 + reach + 1e-5, 0.5 - reach + 1e-5, 0.5 - reach - 1e-5]
        near = tokens([1, 1, -1, -1], mu=[0.5] * 4, old=[0.5] * 4, new=around)
        assert keep_of(method(near, framework)) == [True, False, True, False]


@pytest.mark.parametrize("metric", ["tv", "kl"])
@pytest.mark.parametrize(("framework", "delta"), [("stable-rl", 0.2), ("trl", 0.15)])
def test_top_k_of_frameworks(framework: str, delta: float, metric: str) -> None:
    stored = {f"{metric}_topk_rollout": [delta, math.nextafter(delta, 1)]}
    some = tokens([1, 1], mu=[0.4] * 2, new=[0.6] * 2, **stored)
    assert keep_of(METHODS[f"dppo_topk_{metric}_rollout"](some, framework)) == [True, False]


@pytest.mark.parametrize(
    ("framework", "keeps"),
    [
        (None, True),
        ("skyrl", True),
        ("open-instruct", True),
        ("stable-rl", False),
        ("verl", False),
        ("trl", False),
        ("rllm", False),
    ],
)
def test_zero_advantage_follows_the_framework(framework: str | None, keeps: bool) -> None:
    # both far outside, down and up: the rule of A < 0 drops only what moves down
    some = tokens([0, 0], mu=[0.9, 0.1], new=[0.1, 0.9])
    for metric in ("tv", "kl"):
        found = METHODS[f"dppo_binary_{metric}_rollout"](some, framework)
        assert keep_of(found) == [keeps, True]
        assert coef_of(found) == [0.0, 0.0]


def test_frameworks_decide_differently_near_certainty() -> None:
    # μ = .99 → π = 1, A > 0: KL is ∞, .128, .103, .082 (two forms), by arithmetic
    some = tokens([1], mu=[0.99], new=[1.0])
    keeps = {
        profile: keep_of(METHODS["dppo_binary_kl_rollout"](some, delta_high=0.1, profile=profile))[0]
        for profile in ("exact", "stable-rl", "trl", "open-instruct", "rllm")
    }
    assert keeps == {"exact": False, "stable-rl": False, "trl": False, "open-instruct": True, "rllm": True}
    assert keep_of(METHODS["dppo_binary_kl_rollout"](some, delta_high=0.11, profile="trl")) == [True]
    assert keep_of(METHODS["dppo_binary_kl_rollout"](some, delta_high=0.11, profile="stable-rl")) == [False]


def test_an_exact_divergence_from_the_rollout_policy_is_not_available() -> None:
    some = tokens([1], mu=[0.4], old=[0.4], new=[0.6], tv_exact_old=[0.3])
    for metric in ("tv", "kl"):
        with pytest.raises(Unavailable, match="full distribution is not logged"):
            METHODS[f"dppo_exact_{metric}_rollout"](some)
    assert keep_of(METHODS["dppo_exact_tv_old"](some)) == [False]
    with pytest.raises(Unavailable) as raised:
        METHODS["dppo_topk_kl_rollout"](some)
    assert str(raised.value) == f"dppo_topk_kl_rollout: {INPUTS['kl_topk_rollout']}"
    with pytest.raises(Unavailable, match="no rollout log-probs"):
        METHODS["dppo_binary_tv_rollout"](tokens([1], old=[0.4], new=[0.6]))
