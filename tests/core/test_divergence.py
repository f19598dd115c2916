"""Divergences from log-probabilities: worked by hand, from the paper's equations and with mpmath-free identities."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.divergence import binary_kl, binary_tv, log1mexp, topk_kl, topk_tv


def logs(*values: float) -> torch.Tensor:
    return torch.tensor([math.log(value) for value in values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("p", "q", "tv", "kl"),
    [
        (1e-4, 1e-2, 0.0099, 0.00949),  # r = 100: a rare token; PPO drops it, DPPO keeps it
        (0.99, 0.80, 0.19, 0.181),  # r = .808: a likely token; PPO(.2) keeps it, DPPO drops it at .15
        (1e-5, 1e-3, 0.00099, None),
        (0.5, 0.9, 0.4, 0.5108256237659907),  # ½ ln(.5/.9) + ½ ln(.5/.1) = ½ ln(25/9)
        (0.1, 0.9, 0.8, 1.7577796618689758),  # .1 ln(1/9) + .9 ln 9 = .8 ln 9
        (0.3, 0.3, 0.0, 0.0),
    ],
)
def test_worked_examples(p: float, q: float, tv: float, kl: float | None) -> None:
    assert binary_tv(logs(p), logs(q)).item() == pytest.approx(tv, abs=1e-12)
    if kl is not None:
        digits = 5e-6 if kl in (0.00949, 0.181) else 1e-12
        assert binary_kl(logs(p), logs(q)).item() == pytest.approx(kl, abs=500 * digits if kl == 0.181 else digits)


@pytest.mark.parametrize(("p", "low", "high"), [(0.5, 0.346, 0.654), (0.9, 0.780, 0.969), (0.99, 0.922, 0.99998)])
def test_binary_kl_of_five_hundredths_allows_what_the_table_says(p: float, low: float, high: float) -> None:
    inside = binary_kl(logs(p, p), logs(low + 6e-4, high - 6e-4 if high < 0.99 else high - 6e-6))
    outside = binary_kl(logs(p, p), logs(low - 6e-4, high + 6e-4 if high < 0.99 else high + 6e-6))
    assert (inside < 0.05).all()
    assert (outside > 0.05).all()


def test_binary_kl_of_five_hundredths_lets_a_rare_token_grow_fiftyfold() -> None:
    below, above = binary_kl(logs(0.001, 0.001), logs(0.0535, 0.0537))
    assert below < 0.05 < above


def test_kl_near_certainty_keeps_the_mass_that_the_common_form_loses() -> None:
    # log p from −.7 to −1e-12: .4966 ln(.4966/1) + .5034 ln(.5034/1e-12); 1 − p + 1e-8 would give 8.58
    kl = binary_kl(torch.tensor([-0.7]), torch.tensor([-1e-12], dtype=torch.float64)).item()
    p = math.exp(-0.7)
    assert kl == pytest.approx(p * -0.7 + (1 - p) * (math.log(1 - p) - math.log(1e-12)), rel=1e-6)
    assert kl == pytest.approx(13.2, abs=0.05)


def test_kl_is_infinite_where_q_leaves_no_room() -> None:
    assert binary_kl(logs(0.99), torch.zeros(1)).item() == math.inf
    assert binary_kl(torch.zeros(1), logs(0.5)).item() == pytest.approx(math.log(2))  # 1·ln(1/.5) + 0
    assert binary_tv(logs(0.99), torch.zeros(1)).item() == pytest.approx(0.01)


def test_unknown_stays_unknown() -> None:
    unknown = torch.tensor([math.nan])
    for function in (binary_tv, binary_kl):
        assert math.isnan(function(unknown, logs(0.5)).item())
        assert math.isnan(function(logs(0.5), unknown).item())


def test_tv_resolves_tiny_differences_of_likely_tokens() -> None:
    # p = 1 − 1e-10, q = 1 − 3e-10: |p − q| = 2e-10, far below what exp() of float32 log-probs resolves
    p, q = math.log1p(-1e-10), math.log1p(-3e-10)
    tv = binary_tv(torch.tensor([p], dtype=torch.float64), torch.tensor([q], dtype=torch.float64)).item()
    assert tv == pytest.approx(2e-10, rel=1e-6)


def test_log1mexp() -> None:
    # log(1 − e^−1e-12) = log 1e-12 to 13 digits; log(1 − e^−50) = −e^−50
    result = log1mexp(torch.tensor([-1e-12, -50.0, 0.0], dtype=torch.float64))
    assert result[0].item() == pytest.approx(math.log(1e-12), abs=1e-11)
    assert result[1].item() == pytest.approx(-math.exp(-50), rel=1e-12)
    assert result[2].item() == -math.inf


def test_topk_divergence_by_hand() -> None:
    # P = (.5, .3 | .2), Q = (.4, .5 | .1): TV = ½(.1 + .2 + .1) = .2
    logp, logq = logs(0.5, 0.3).unsqueeze(0), logs(0.4, 0.5).unsqueeze(0)
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert topk_tv(logp, logq, valid, logs(0.2), logs(0.1)).item() == pytest.approx(0.2)
    expected = 0.5 * math.log(0.5 / 0.4) + 0.3 * math.log(0.3 / 0.5) + 0.2 * math.log(0.2 / 0.1)
    assert topk_kl(logp, logq, valid, logs(0.2), logs(0.1)).item() == pytest.approx(expected)


def test_a_list_without_a_rest_adds_nothing_for_p() -> None:
    # P = (.6, .4 | 0), Q = (.5, .3 | .2): 0·log 0 = 0, TV = ½(.1 + .1 + .2)
    logp, logq = logs(0.6, 0.4).unsqueeze(0), logs(0.5, 0.3).unsqueeze(0)
    valid, none = torch.ones(1, 2, dtype=torch.bool), torch.tensor([-math.inf], dtype=torch.float64)
    assert topk_tv(logp, logq, valid, none, logs(0.2)).item() == pytest.approx(0.2)
    expected = 0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.4 / 0.3)
    assert topk_kl(logp, logq, valid, none, logs(0.2)).item() == pytest.approx(expected)
