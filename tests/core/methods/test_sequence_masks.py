"""TRM, VACO and off-policy sequence masking on responses of unequal length, worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Unavailable
from tests.core.methods.arrays import coef_of, keep_of
from tests.core.methods.responses import mismatched, responses

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "reference_vectors.json").read_text())["vectors"]


def test_trm_drops_a_response_by_its_largest_or_mean_divergence() -> None:
    # binary KL(.5 → .75) = ½ ln(.5/.75) + ½ ln(.5/.25) = .1438; KL(.9 → .8) = .9 ln(.9/.8) + .1 ln(.1/.2) = .0367
    tokens = responses([1, -1], mu=[[0.5] * 3, [0.9] * 2], new=[[0.75, 0.5, 0.5], [0.8, 0.9]])
    found = METHODS["trm"](tokens)  # .1438 > .05, .0367
    assert keep_of(found) == [False] * 3 + [True] * 2
    assert coef_of(found) == pytest.approx([0, 0, 0, -0.8 / 0.9, -1])
    assert keep_of(METHODS["trm"](tokens, "trm-max")) == keep_of(found)
    assert keep_of(METHODS["trm"](tokens, "trm-avg")) == [False] * 5  # .048 and .0183 > .001
    assert keep_of(METHODS["trm"](tokens, "combined")) == [False] * 5  # max .0367 ≤ .1, but mean .0183 > .002
    assert keep_of(METHODS["trm"](tokens, "combined", delta_mean=0.0184))[3:] == [True] * 2
    assert keep_of(METHODS["trm"](tokens, delta_max=None)) == [True] * 5  # no criterion


def test_trm_keeps_on_its_threshold_and_where_there_is_no_advantage() -> None:
    mu = [[0.1] * 2, [0.1], [0.1] * 2]
    stored = [[0.0625, 0.0], [math.nextafter(0.0625, 1)], [0.5, 0.5]]
    tokens = responses([1, 1, 0], mu=mu, new=mu, kl_topk_rollout=stored, kl_exact_rollout=[[0.01] * 2, [1], [0] * 2])
    assert keep_of(METHODS["trm"](tokens, estimate="topk", delta_max=0.0625)) == [True, True, False, True, True]
    of_mean = METHODS["trm"](tokens, estimate="topk", delta_max=None, delta_mean=0.03125)
    assert keep_of(of_mean) == [True, True, False, True, True]
    assert keep_of(METHODS["trm"](tokens, estimate="exact", delta_max=0.0625)) == [True, True, False, True, True]


def test_trm_needs_what_its_estimate_needs() -> None:
    tokens = responses([1], mu=[[0.1]], new=[[0.1]])
    with pytest.raises(Unavailable, match="full distribution is not logged"):
        METHODS["trm"](tokens, estimate="exact")
    with pytest.raises(Unavailable, match="no usable top-K lists"):
        METHODS["trm"](tokens, estimate="topk")
    with pytest.raises(ValueError, match="estimate is 'sampled'"):
        METHODS["trm"](tokens, estimate="sampled")


def test_trm_from_sampled_tokens_takes_k2_for_the_maximum_and_k3_for_the_mean() -> None:
    mu = [[0.1] * 3, [0.1] * 2]
    tokens = responses([1, -2], mu=mu, new=mu, log_ratio_rollout=[[0.3, 0.0, -0.2], [0.4, 0.0]])
    found = METHODS["trm_sampled"](tokens)  # ½·.3² = .045 ≤ .05 < ½·.4² = .08
    assert keep_of(found) == [True] * 3 + [False] * 2
    assert coef_of(found) == pytest.approx([math.exp(0.3), 1, math.exp(-0.2), 0, 0])
    # k3: (e^.3 − 1.3 + e^−.2 − .8)/3 = (.049859 + .018731)/3 = .02286; (e^.4 − 1.4)/2 = .0459
    for delta, kept in ((0.0229, True), (0.0228, False)):
        assert keep_of(METHODS["trm_sampled"](tokens, "trm-avg", delta_mean=delta))[:3] == [kept] * 3
    half = responses([1, 0], mu=[[0.1], [0.1]], new=[[0.1], [0.1]], log_ratio_rollout=[[0.5], [3.0]])
    assert keep_of(METHODS["trm_sampled"](half, delta_max=0.125)) == [True, True]  # on the threshold; A = 0
    assert keep_of(METHODS["trm_sampled"](half, delta_max=0.1249)) == [False, True]


def test_vaco_drops_what_moves_on_in_a_response_that_has_moved() -> None:
    # response 0: mean |ρ − 1| = (.5 + .1 + 0)/3 = .2; response 1: (.5 + 2)/2 = 1.25
    tokens = mismatched([1, -1], [[1.5, 0.9, 1], [0.5, 3]], [[1.1, 1, 1.3], [1, 1]])
    found = METHODS["vaco"](tokens, delta=0.15)
    # A·log ρ > 0 for 1.5 and for ½; PPO drops r′ = 1.3; min(3, 2)
    assert keep_of(found) == [False, True, False, False, True]
    assert coef_of(found) == pytest.approx([0, 0.9, 0, 0, -2])
    calm = METHODS["vaco"](tokens, delta=0.21)
    assert coef_of(calm) == pytest.approx([1.5 * 1.1, 0.9, 0, 0, -2])
    assert coef_of(METHODS["vaco"](tokens, cap=None))[4] == pytest.approx(-3)


def test_vaco_keeps_on_its_threshold_and_where_there_is_no_advantage() -> None:
    old = [[0.1], [0.1]]
    tokens = responses([-1, 0], mu=old, old=old, new=old, log_mismatch=[[-800.0], [800.0]])
    assert keep_of(METHODS["vaco"](tokens, delta=1.0)) == [True, True]  # |0 − 1| = 1
    assert keep_of(METHODS["vaco"](tokens, delta=0.999)) == [False, True]
    bounded = METHODS["vaco"](tokens, "open-instruct", delta=0.9999)  # |e⁻¹⁰ − 1| = .99995
    assert keep_of(bounded) == [False, True]
    assert keep_of(METHODS["vaco"](tokens, "open-instruct", delta=0.99996)) == [True, True]
    with pytest.raises(ValueError, match="divergence is 'js'"):
        METHODS["vaco"](tokens, divergence="js")


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] == "vaco_mask"], ids=lambda v: str(v["id"]))
def test_vaco_over_binary_divergences_as_open_instruct_tests_it(vector: dict[str, list[list[float]]]) -> None:
    variant = "open-instruct-1755-kl" if vector.get("variant") == "binary_kl" else "open-instruct-1755-tv"
    old = vector["old_probs"]
    tokens = responses(vector["advantages"], mu=vector["mu_probs"], old=old, new=old)
    found = METHODS["vaco"](tokens, variant, delta=vector["upper"], cap=None)  # type: ignore[arg-type]
    rows = zip(vector["expected_weights"], vector["advantages"], strict=True)
    assert coef_of(found) == pytest.approx([w * a for ws, of in rows for w, a in zip(ws, of, strict=True)])


def test_vaco_measures_the_mismatch_and_not_the_update() -> None:
    # |μ − π_old| = .25 and A·log ρ > 0; |μ − π| = .24
    tokens = responses([-1], mu=[[0.5]], old=[[0.25]], new=[[0.26]])
    assert keep_of(METHODS["vaco"](tokens, divergence="tv", delta=0.245)) == [False]
    assert coef_of(METHODS["vaco"](tokens, divergence="tv", delta=0.255)) == pytest.approx([-0.5 * 1.04])


def test_opsm_drops_unlikely_responses_with_negative_advantage() -> None:
    # mean of log μ − log π: .6, .5 = δ, .6 with A > 0, .6 with A = 0; π = π_old, so PPO keeps everything
    log_ratio = [[-1.0, -0.5, -0.3], [-1.0, 0.0], [-0.6], [-0.6]]
    mu = [[0.1] * len(of) for of in log_ratio]
    tokens = responses(
        [-1, -1, 1, 0], mu=mu, old=mu, new=mu, log_ratio_rollout=log_ratio, log_ratio_old=[[0.0] * len(of) for of in mu]
    )
    found = METHODS["opsm"](tokens)
    assert keep_of(found) == [False] * 3 + [True] * 4
    assert coef_of(found) == pytest.approx([0, 0, 0, -1, -1, 1, 0])
    assert keep_of(METHODS["opsm"](tokens, delta=0.4999))[3:5] == [False] * 2


def test_opsm_of_each_framework() -> None:
    mu = [[0.1] * 2]
    tokens = responses([-1], mu=mu, old=mu, new=mu, log_ratio_rollout=[[-0.9, 0.0]], log_ratio_old=[[0.1, 0.0]])
    assert coef_of(METHODS["opsm"](tokens, "trl")) == pytest.approx([-math.exp(0.1), -1])  # .45 ≤ ½
    # PPO on r: e^−.9 < .8
    assert coef_of(METHODS["opsm"](tokens, "deepseek-v3.2")) == pytest.approx([0, -1])
    # from π_old the mean is −.05, below 1e-4
    assert coef_of(METHODS["opsm"](tokens, "slime")) == pytest.approx([-math.exp(0.1), -1])
    assert keep_of(METHODS["opsm"](tokens, "slime-rollout")) == [False, False]  # .45 > 1e-4


def test_opsm_needs_only_the_policies_it_reads() -> None:
    assert METHODS["opsm"].inputs("deepseek-v3.2") == ("logp_rollout", "logp_new")
    assert METHODS["opsm"].inputs("slime") == ("logp_old", "logp_new")
    two = responses([-1], mu=[[0.5]], new=[[0.5]])
    assert keep_of(METHODS["opsm"](two, "deepseek-v3.2")) == [True]
    with pytest.raises(Unavailable, match="opsm: the old policy was not scored or logged"):
        METHODS["opsm"](two)
