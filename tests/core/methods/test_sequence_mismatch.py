"""Truncated weights and rejected responses on two responses of unequal length, worked by hand.

Response 0 has A = 1, ρ = 2, ½, 4 (product 4, geometric mean 4^⅓ = 1.5874) and r′ = 1.1, 1.3, .9; response 1 has
A = −2, ρ = ½, 1 (product ½, geometric mean .7071) and r′ = 1, .7. PPO at .2/.28 drops 1.3 and .7 by itself.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dppo_core.methods.catalog import METHODS
from tests.core.methods.arrays import coef_of, keep_of
from tests.core.methods.responses import mismatched, responses

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "reference_vectors.json").read_text())["vectors"]

RHO, RATIO = [[2, 0.5, 4], [0.5, 1]], [[1.1, 1.3, 0.9], [1, 0.7]]
TOKENS = mismatched([1, -2], RHO, RATIO)
ZERO = mismatched([0, 0], RHO, RATIO)
PPO = [True, False, True, True, False]
GEO = 4 ** (1 / 3)


def only_second(*coef: float) -> list[object]:
    """Response 0 dropped, response 1 as PPO decides."""
    return pytest.approx([0, 0, 0, *coef])  # type: ignore[no-any-return]


def test_seq_tis_caps_the_product() -> None:
    found = METHODS["seq_tis"](TOKENS)  # min(4, 2) = 2 and ½
    assert keep_of(found) == PPO
    assert coef_of(found) == pytest.approx([2 * 1.1, 0, 2 * 0.9, 0.5 * 1 * -2, 0])
    assert coef_of(METHODS["seq_tis"](TOKENS, "skyrl")) == pytest.approx([4 * 1.1, 0, 4 * 0.9, -1, 0])
    assert coef_of(METHODS["seq_tis"](TOKENS, "trl")) == pytest.approx([3 * 1.1, 0, 3 * 0.9, -1, 0])
    areal = [GEO * 1.1, 0, GEO * 0.9, math.sqrt(0.5) * -2, 0]
    assert coef_of(METHODS["seq_tis"](TOKENS, "areal")) == pytest.approx(areal)


def test_seq_tis_with_pi_old_passed_by() -> None:
    # ∏r = 4·1.1·1.3·.9 = 5.148 → 2 and ½·.7 = .35; REINFORCE drops nothing
    found = METHODS["seq_tis"](TOKENS, "verl-bypass-reinforce")
    assert keep_of(found) == [True] * 5
    assert coef_of(found) == pytest.approx([2, 2, 2, 0.35 * -2, 0.35 * -2])
    without_old = responses([1], mu=[[0.1, 0.2]], new=[[0.2, 0.15]])  # ∏r = 2·.75 = 1.5
    assert coef_of(METHODS["seq_tis"](without_old, "verl-bypass-reinforce")) == pytest.approx([1.5, 1.5])


def test_dual_clip_is_part_of_verl_s_ppo() -> None:
    tokens = mismatched([-1], [[1, 1]], [[4, 2]])
    assert keep_of(METHODS["seq_tis"](tokens)) == [True, True]
    assert keep_of(METHODS["seq_tis"](tokens, "verl")) == [False, True]  # 4 > 3


def test_seq_mis_rejects_by_the_product_and_keeps_on_its_bound() -> None:
    found = METHODS["seq_mis"](TOKENS)  # 4 > 2; ½ is the lower bound
    assert keep_of(found) == [False, False, False, True, False]
    assert coef_of(found) == only_second(1 * -2, 0)
    assert keep_of(METHODS["seq_mis"](TOKENS, lower=0.500001))[3:] == [False, False]
    assert keep_of(METHODS["seq_mis"](TOKENS, upper=4.0)) == PPO
    assert keep_of(METHODS["seq_mis"](ZERO)) == [True] * 5


def test_verl_s_k1_bounds_the_inverse() -> None:
    # "0.2_2.0" keeps ½ ≤ ∏ρ ≤ 5; bounds of ρ itself would drop 4
    assert keep_of(METHODS["seq_mis"](TOKENS, "verl", lower=0.2)) == PPO
    assert keep_of(METHODS["seq_mis"](TOKENS, "verl", lower=0.2, statistic="ratio"))[:3] == [False] * 3
    assert keep_of(METHODS["seq_mis"](TOKENS, "verl", upper=1.9))[3:] == [False, False]  # ½ < 1/1.9
    with pytest.raises(ValueError, match="statistic is 'k2'"):
        METHODS["seq_mis"](TOKENS, statistic="k2")


def test_verl_bounds_each_token_in_the_statistic() -> None:
    tokens = responses(
        [1], mu=[[0.1, 0.1]], old=[[0.1, 0.1]], new=[[0.1, 0.1]], log_mismatch=[[25.0, -24.0]], log_ratio_old=[[0, 0]]
    )
    assert keep_of(METHODS["seq_mis"](tokens)) == [False, False]  # e^1 > 2
    assert keep_of(METHODS["seq_mis"](tokens, "verl")) == [True, True]  # e^(20 − 20) = 1


def test_seq_mis_weighs_as_each_framework_does() -> None:
    mis = METHODS["seq_mis"]
    assert coef_of(mis(TOKENS, "skyrl")) == only_second(-2, 0)
    assert coef_of(mis(TOKENS, "trl")) == only_second(0.5 * -2, 0)  # ∏ρ ≤ 3, ×∏ρ
    assert coef_of(mis(TOKENS, "trl", importance="ratio")) == only_second(0.5 * -2, 0)  # ×ρ of the token, ½ too
    areal = [GEO * 1.1, 0, GEO * 0.9, math.sqrt(0.5) * -2, 0]  # ∏ρ ≤ 5
    assert coef_of(mis(TOKENS, "areal")) == pytest.approx(areal)
    icepop = [4 * 1.1, 0, 4 * 0.9, 0.5 * -2, 0]  # ½ ≤ ∏ρ ≤ 5
    assert coef_of(mis(TOKENS, "verl-icepop")) == pytest.approx(icepop)
    assert coef_of(mis(TOKENS, "verl-seq-tis", lower=0.2)) == pytest.approx([2 * 1.1, 0, 2 * 0.9, -1, 0])
    assert coef_of(mis(TOKENS, upper=4.0, importance="ratio")) == pytest.approx([2 * 1.1, 0, 4 * 0.9, -1, 0])
    with pytest.raises(ValueError, match="importance is 'product'"):
        mis(TOKENS, importance="product")


def test_rejection_with_pi_old_passed_by() -> None:
    # ∏r = 5.148 and .35; PPO on r = 2.2, .65, 3.6 with A > 0 and ½, .7 with A < 0
    found = METHODS["seq_mis"](TOKENS, "verl-bypass", lower=0.1)  # keeps ½ ≤ ∏r ≤ 10
    assert keep_of(found) == [False, True, False, False, False]
    assert coef_of(found) == pytest.approx([0, 0.65, 0, 0, 0])
    bare = METHODS["seq_mis"](TOKENS, "verl-bypass-reinforce", lower=0.1)
    assert coef_of(bare) == pytest.approx([1, 1, 1, 0, 0])


def test_geo_rs_rejects_by_the_geometric_mean() -> None:
    found = METHODS["geo_rs"](TOKENS, lower=0.6, upper=1.5)  # 1.5874 > 1.5, .7071
    assert keep_of(found) == [False, False, False, True, False]
    assert coef_of(found) == only_second(-2, 0)
    assert keep_of(METHODS["geo_rs"](TOKENS)) == [False] * 5
    assert keep_of(METHODS["geo_rs"](ZERO)) == [True] * 5
    inverse = METHODS["geo_rs"](TOKENS, lower=0.6, upper=1.5, statistic="k1")  # 1/1.5 ≤ both ≤ 1/.6 = 1.667
    assert keep_of(inverse) == PPO


def test_geo_rs_keeps_on_its_bound() -> None:
    edge = mismatched([1], [[1.001, 1]], [[1, 1]]).with_statistics()
    log_rho = [[2 * math.log(1.001), 0.0]]
    old = [[0.1, 0.1]]
    at = responses([1], mu=old, old=old, new=old, log_mismatch=log_rho)
    assert keep_of(METHODS["geo_rs"](at)) == [True, True]
    assert keep_of(METHODS["geo_rs"](at, upper=1.0009999)) == [False, False]
    assert keep_of(METHODS["geo_rs"](edge)) == [True, True]


def test_geo_rs_of_each_framework() -> None:
    # log ρ = ±.01 and .02: geometric means 1.01 (the response of two) and 1; NeMo-RL: × ρ of the token
    rho = [[math.exp(0.0005), math.exp(0.0015)], [math.exp(0.005), math.exp(-0.005), 1]]
    tokens = mismatched([1, 1], rho, [[1, 1], [1, 1, 1]])  # means e^.001 = 1.0010005 and 1
    rest = [math.exp(0.005), math.exp(-0.005), 1]
    geo_rs = METHODS["geo_rs"]
    assert coef_of(geo_rs(tokens)) == pytest.approx([0, 0, 1, 1, 1])
    assert coef_of(geo_rs(tokens, "skyrl")) == pytest.approx([1] * 5)  # [.99, 1.01]
    assert coef_of(geo_rs(tokens, "nemo-rl")) == pytest.approx([math.exp(0.0005), math.exp(0.0015), *rest])
    assert coef_of(geo_rs(tokens, "slime")) == pytest.approx([0, 0, 1, 1, 1])  # min(1, 1.0001)
    assert coef_of(geo_rs(tokens, "areal")) == pytest.approx([math.exp(0.001)] * 2 + [1] * 3)
    assert coef_of(geo_rs(tokens, "verl")) == pytest.approx([1] * 5)  # 1/.999 = 1.001001 > 1.0010005
    assert coef_of(geo_rs(tokens, "verl-token-tis"))[2:] == pytest.approx(rest)
    assert coef_of(geo_rs(tokens, "verl-seq-tis"))[:2] == pytest.approx([math.exp(0.002)] * 2)


# k3 = ρ − 1 − ln ρ: 1 − ln 2, ln 2 − ½, 3 − ln 4 (mean (3.5 − 2 ln 2)/3 = .7046) and ln 2 − ½, 0 (mean .0966)
def test_k3_rs_rejects_by_the_mean_of_k3() -> None:
    found = METHODS["k3_rs"](TOKENS, upper=0.1)
    assert keep_of(found) == [False, False, False, True, False]
    assert coef_of(found) == only_second(-2, 0)
    assert keep_of(METHODS["k3_rs"](TOKENS, upper=0.7046)) == PPO
    assert keep_of(METHODS["k3_rs"](TOKENS, upper=0.7045))[:3] == [False] * 3
    assert keep_of(METHODS["k3_rs"](TOKENS)) == [False] * 5
    assert keep_of(METHODS["k3_rs"](ZERO)) == [True] * 5
    on_policy = mismatched([1], [[1, 1]], [[1, 1]])
    assert keep_of(METHODS["k3_rs"](on_policy, upper=0.0)) == [True, True]  # on the bound


def test_k3_rs_with_other_statistics() -> None:
    old = [[0.1, 0.1]]
    one = responses([1], mu=old, old=old, new=old, log_mismatch=[[1.0, 0.0]])  # k2: ½ and 0
    for aggregate, value in (("max", 0.5), ("sum", 0.5), ("mean", 0.25)):
        for upper, kept in ((value, True), (math.nextafter(value, 0), False)):
            found = METHODS["k3_rs"](one, statistic="k2", aggregate=aggregate, upper=upper)
            assert keep_of(found) == [kept, kept], (aggregate, upper)
    # AReaL's k3 is of 1/ρ: for ρ = 4 it is ¼ − 1 + ln 4 = .636, not 3 − ln 4 = 1.614
    four = mismatched([1], [[4]], [[1]])
    assert keep_of(METHODS["k3_rs"](four, "areal", upper=0.637)) == [True]
    assert coef_of(METHODS["k3_rs"](four, "areal", upper=0.637)) == pytest.approx([4])  # × ρ
    assert keep_of(METHODS["k3_rs"](four, "areal", upper=0.636)) == [False]
    assert keep_of(METHODS["k3_rs"](four, upper=1.613)) == [False]
    for name, value in (("statistic", "k1"), ("aggregate", "median")):
        with pytest.raises(ValueError, match=f"{name} is '{value}'"):
            METHODS["k3_rs"](four, **{name: value})


def test_one_outlier_rejects_its_response() -> None:
    rho = [[1, 101, 1], [1, 100], [1e-4], [0.9e-4, 1]]
    tokens = mismatched([1, 1, 1, 1], rho, [[1] * len(of) for of in rho])
    found = METHODS["outlier_rs"](tokens)
    assert keep_of(found) == [False] * 3 + [True] * 3 + [False] * 2
    assert coef_of(found) == pytest.approx([0, 0, 0, 1, 1, 1, 0, 0])  # no weight
    assert keep_of(METHODS["outlier_rs"](tokens, "slime")) == [True] * 6 + [False] * 2  # a veto from below only
    assert keep_of(METHODS["outlier_rs"](mismatched([0], [[1, 101]], [[1, 1]]))) == [True, True]


def test_icepop_over_the_response() -> None:
    found = METHODS["icepop_sequence"](TOKENS)  # 1.5874 and .7071 are in [.5, 5]
    assert keep_of(found) == PPO
    assert coef_of(found) == pytest.approx([GEO * 1.1, 0, GEO * 0.9, math.sqrt(0.5) * -2, 0])
    assert coef_of(METHODS["icepop_sequence"](TOKENS, upper=1.58)) == only_second(math.sqrt(0.5) * -2, 0)
    assert coef_of(METHODS["icepop_sequence"](TOKENS, rho_cap=1.5))[:3] == pytest.approx([1.65, 0, 1.35])
    assert keep_of(METHODS["icepop_sequence"](ZERO, upper=1.0)) == [True] * 5
    bound = mismatched([1], [[0.25, 1]], [[1, 1]])  # ½, the lower bound
    assert keep_of(METHODS["icepop_sequence"](bound)) == [True, True]
    assert keep_of(METHODS["icepop_sequence"](bound, lower=0.501)) == [False, False]


def test_icepop_over_the_response_as_open_instruct_tests_it() -> None:
    (vector,) = [v for v in VECTORS if v["kind"] == "icepop_mask_sequence"]
    rho = vector["rho"]
    tokens = mismatched([1.0] * len(rho), rho, [[1.0] * len(row) for row in rho])
    found = METHODS["icepop_sequence"](tokens, "open-instruct", lower=vector["lower"], upper=vector["upper"])
    assert coef_of(found) == pytest.approx([weight for row in vector["expected_weights"] for weight in row])
