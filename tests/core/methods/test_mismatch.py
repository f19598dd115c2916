"""IcePop, token MIS and token TIS: coef and keep by hand."""

from __future__ import annotations

import math

import pytest

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Parameter, Unavailable
from dppo_core.tokens import TokenArrays
from tests.core.methods.arrays import NAN, coef_of, keep_of, tokens

LN = math.log


def test_icepop() -> None:
    # ρ = 2, 8 (> 5), .25 (< .5), 2 with r′ = 1.5 dropped by PPO, 2, A = 0 outside; r′ = 1.2, ·, ·, ·, 1.5 with A < 0
    some = tokens(
        [1, 1, 1, 1, -2, 0, 1, 1],
        mu=[0.2, 0.1, 0.8, 0.2, 0.2, 0.1, NAN, 0.2],
        old=[0.4, 0.8, 0.2, 0.4, 0.4, 0.8, 0.4, NAN],
        new=[0.48, 0.8, 0.2, 0.6, 0.6, 0.8, 0.4, 0.4],
    )
    found = METHODS["icepop"](some)
    assert keep_of(found) == [True, False, False, False, True, True, None, None]
    # ρ·r′ = r = 2.4; r = 3 times −2
    expected = [*map(pytest.approx, (2.4, 0.0, 0.0, 0.0, -6.0, 0.0)), None, None]
    assert coef_of(found) == expected
    assert coef_of(METHODS["icepop"](some, "nemo-rl")) == expected


def test_icepop_keeps_at_its_bounds() -> None:
    # r′ = 1, so coef = ρ
    rho = [0.5, 0.4999999, 5.0, 5.0000001]
    some = tokens([1] * 4, mu=[0.1] * 4, old=[0.1] * 4, new=[0.1] * 4, log_mismatch=[LN(value) for value in rho])
    assert keep_of(METHODS["icepop"](some)) == [True, False, True, False]
    assert coef_of(METHODS["icepop"](some)) == pytest.approx([0.5, 0, 5, 0])
    # open-instruct weighs by min(ρ, 2); slime keeps ρ in [0, 2]
    assert coef_of(METHODS["icepop"](some, "open-instruct")) == pytest.approx([0.5, 0, 2, 0])
    assert coef_of(METHODS["icepop"](some, "slime")) == pytest.approx([0.5, 0.4999999, 0, 0])


def test_icepop_in_bypass() -> None:
    # no PPO clip, no π_old: r = 2, 8, .25
    some = tokens([1, 1, -1], mu=[0.2, 0.1, 0.8], new=[0.4, 0.8, 0.2])
    for variant in ("verl-bypass-reinforce", "intellect-3"):
        assert coef_of(METHODS["icepop"](some, variant)) == pytest.approx([2.0, 0.0, 0.0])
        assert METHODS["icepop"].inputs(variant) == ("logp_rollout", "logp_new")
    with pytest.raises(ValueError, match="that is ppo_rollout"):
        METHODS["icepop"](some, mode="bypass-ppo-clip")
    with pytest.raises(ValueError, match="not one of: decoupled"):
        METHODS["icepop"](some, mode="bypass")
    with pytest.raises(Unavailable, match="old policy was not scored"):
        METHODS["icepop"](some, "verl")


def mismatched(*rho: float) -> TokenArrays:
    """Tokens with A = 1, r′ = 1 and the given ρ = π_old/μ."""
    n = len(rho)
    return tokens([1] * n, mu=[0.1] * n, old=[0.1] * n, new=[0.1] * n, log_mismatch=[LN(value) for value in rho])


def kept(variant: str | None, *rho: float, **parameters: Parameter) -> list[bool | None]:
    return keep_of(METHODS["token_mis"](mismatched(*rho), variant, **parameters))


def test_token_mis_k1_bounds_the_inverse_ratio() -> None:
    # "0.5_2.0" bounds 1/ρ to [.5, 2], which is ρ in [.5, 2]; at the bounds it keeps
    assert kept("verl", 0.5, 0.4999, 2.0, 2.0001) == [True, False, True, False]
    # "0.1_1.2" bounds ρ to [1/1.2, 10], not to [.1, 1.2]
    assert kept("verl", 0.5, 0.83, 0.84, 9.99, 10.01, lower=0.1, upper=1.2) == [False, False, True, True, False]
    # a direct bound does the reverse
    assert kept("skyrl", 0.5, 0.83, 9.99, lower=0.1, upper=1.2) == [True, True, False]


def test_token_mis_k2_and_k3() -> None:
    # k2 = ½log²ρ ≤ 2: |log ρ| ≤ 2
    assert kept("verl-k2", math.e**2, math.e**2.001, math.e**-2, math.e**-2.001) == [True, False, True, False]
    # k3 = ρ − 1 − log ρ: ρ = 2: .30685; ρ = .5: .19315; ρ = 1: 0
    for bound, expected in ((0.30, [False, True, True]), (0.31, [True, True, True]), (0.19, [False, False, True])):
        assert kept(None, 2.0, 0.5, 1.0, statistic="k3", upper=bound) == expected
        # AReaL's k3 is that of 1/ρ: .19315 at 2, .30685 at .5
        assert kept(None, 0.5, 2.0, 1.0, statistic="k3-inverse", upper=bound) == expected
    # ρ = 1.1: k3 = .0046898, ρ = 1.2: .0176784, against .01
    assert kept("verl-k3", 1.1, 1.2) == [True, False]
    # exactly at a bound: k2 of ρ = 1 is 0
    assert kept(None, 1.0, 1.001, statistic="k2", upper=0.0) == [True, False]
    assert kept(None, 1.0, 1.001, statistic="k3", upper=0.0) == [True, False]
    with pytest.raises(ValueError, match="statistic is 'k4'"):
        kept(None, 1.0, statistic="k4")
    with pytest.raises(ValueError, match="importance is 'yes'"):
        kept(None, 1.0, importance="yes")


def test_token_mis_weighs_with_or_without_the_ratio() -> None:
    # ρ = 1.6, 4, .25; r′ = 1
    some = mismatched(1.6, 4.0, 0.25)
    expected = {
        "verl": [1, 0, 0],  # rejection alone: r′
        "verl-tis": [1.6, 0, 0],
        "skyrl": [1, 0, 0],
        "skyrl-tis": [1.6, 0, 0],
        "slime": [1.6, 0, 0],
        "trl": [1.6, 0, 0.25],  # ρ ≤ 3, no lower bound
        "areal": [1.6, 4, 0.25],  # ρ ≤ 5
        "areal-k2": [1.6, 4, 0.25],  # ½log²4 = .96 ≤ 5
        "areal-k3": [1.6, 4, 0.25],
    }
    for variant, coef in expected.items():
        assert coef_of(METHODS["token_mis"](some, variant)) == pytest.approx(coef), variant


def test_token_mis_clips_by_ppo_and_keeps_zero_advantages() -> None:
    # ρ = 1; r′ = 1.5 dropped, .5 with A = −2 dropped, 1.5 with A = −2 kept; ρ = 4 and A = 0 kept; r′ > 3 dual clip
    some = tokens(
        [1, -2, -2, 0, -1, 1, 1],
        mu=[0.4, 0.4, 0.4, 0.1, 0.1, NAN, 0.4],
        old=[0.4, 0.4, 0.4, 0.4, 0.1, 0.4, NAN],
        new=[0.6, 0.2, 0.6, 0.4, 0.4, 0.4, 0.4],
    )
    found = METHODS["token_mis"](some)
    assert keep_of(found) == [False, False, True, True, True, None, None]
    assert coef_of(found) == [*map(pytest.approx, (0.0, 0.0, -3.0, 0.0, -4.0)), None, None]
    assert keep_of(METHODS["token_mis"](some, "verl"))[4] is False


def test_token_mis_in_bypass() -> None:
    # the statistic is that of r: 1.25, 4 outside, .4 outside; ppo-clip: r = 1.25 > 1.2 dropped with A > 0
    some = tokens([-1, -1, -1, 1], mu=[0.4, 0.1, 0.5, 0.4], new=[0.5, 0.4, 0.2, 0.5])
    assert coef_of(METHODS["token_mis"](some, "verl-bypass")) == pytest.approx([-1.25, 0, 0, 0])
    # REINFORCE without an IS weight: coef = A; with one: r·A
    assert coef_of(METHODS["token_mis"](some, "verl-bypass-reinforce")) == pytest.approx([-1, 0, 0, 1])
    weighed = METHODS["token_mis"](some, "verl-bypass-reinforce", importance="ratio", rho_cap=1.1)
    assert coef_of(weighed) == pytest.approx([-1.1, 0, 0, 1.1])
    assert METHODS["token_mis"].inputs("verl-bypass") == ("logp_rollout", "logp_new")


def test_token_tis() -> None:
    # ρ = 4 → 2, ρ = .5, ρ = 1 with r′ = 1.5 dropped and, A < 0, kept; A = 0; not known
    some = tokens(
        [1, -2, 1, -2, 0, 1, 1],
        mu=[0.1, 0.4, 0.4, 0.4, 0.1, NAN, 0.4],
        old=[0.4, 0.2, 0.4, 0.4, 0.4, 0.4, NAN],
        new=[0.44, 0.2, 0.6, 0.6, 0.4, 0.4, 0.4],
    )
    found = METHODS["token_tis"](some)
    assert keep_of(found) == [True, True, False, True, True, None, None]
    assert coef_of(found) == [*map(pytest.approx, (2.2, -1.0, 0.0, -3.0, 0.0)), None, None]  # 2·1.1, .5·(−2), 1.5·(−2)


@pytest.mark.parametrize(
    ("variant", "cap", "eps_high"),
    [
        ("verl", 2.0, 0.2),
        ("trl", 3.0, 0.2),
        ("open-instruct", 2.0, 0.272),
        ("slime", 2.0, 0.2),
        ("skyrl", 2.0, 0.2),
        ("nemo-rl", 2.0, 0.2),
        ("areal", 5.0, 0.2),
    ],
)
def test_token_tis_of_frameworks(variant: str, cap: float, eps_high: float) -> None:
    # ρ = 8 and r′ = 1; r′ = 1.25 with A > 0
    some = tokens([1, 1], mu=[0.1, 0.4], old=[0.8, 0.4], new=[0.8, 0.5])
    assert coef_of(METHODS["token_tis"](some, variant)) == pytest.approx([cap, 1.25 if eps_high > 0.25 else 0.0])


def test_token_tis_at_the_clip_of_ppo() -> None:
    edge = tokens([1, 1], mu=[0.1] * 2, old=[0.1] * 2, new=[0.1] * 2, log_ratio_old=[LN(1.25), LN(1.25) + 1e-12])
    for name in ("token_tis", "token_mis", "icepop"):
        assert keep_of(METHODS[name](edge, eps_high=0.25)) == [True, False]


def test_token_tis_in_bypass_applies_no_weight() -> None:
    some = tokens([1, -1, 1], mu=[0.1, 0.1, 0.4], new=[0.4, 0.25, 0.44])  # r = 4, 2.5, 1.1
    ppo = METHODS["ppo_rollout"](some, "verl")
    assert coef_of(METHODS["token_tis"](some, "verl-bypass")) == coef_of(ppo) == pytest.approx([0, -2.5, 1.1])
    # REINFORCE: min(r, 2), nothing dropped
    assert coef_of(METHODS["token_tis"](some, "verl-bypass-reinforce")) == pytest.approx([2, -2, 1.1])
    # slime's --tis-clip-low
    assert coef_of(METHODS["token_tis"](mismatched(0.25), floor=0.5)) == pytest.approx([0.5])
