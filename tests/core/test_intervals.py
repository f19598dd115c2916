"""Certified TV intervals hold the exact TV, by hand and for random distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dppo_core.intervals import TVInterval


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_top_k_by_hand() -> None:
    """P = (.5, .2, .2, .1), Q = (.4, .3, .1, .2), support {0, 1}: TV_topK = ½(.1 + .1 + 0) = .1, TV = ½·.4 = .2,
    rests .3 and .3: the upper end .1 + .3 = .4."""
    interval = TVInterval.from_topk(tensor(0.1), tensor(0.3), tensor(0.3))
    assert (interval.lower.item(), interval.upper.item()) == pytest.approx((0.1, 0.4))
    assert interval.source == "topk"


def test_both_ends_of_top_k_are_reached() -> None:
    # P = (.7, .3, 0), Q = (.7, 0, .3), support {0}: TV_topK = 0 and rests .3: the TV is .3, the upper end
    interval = TVInterval.from_topk(tensor(0.0), tensor(0.3), tensor(0.3))
    assert interval.upper.item() == pytest.approx(0.3)
    # one policy leaves nothing outside: the interval is a point
    point = TVInterval.from_topk(tensor(0.25), tensor(0.0), tensor(0.25))
    assert point.lower.equal(point.upper)


def test_sampled_by_hand() -> None:
    """P(a) = .9, Q(a) = .6: .3 ≤ TV ≤ 1 − .6. P(a) = 1e-6: nothing is known."""
    interval = TVInterval.from_sampled(torch.log(tensor(0.9, 1e-6)), torch.log(tensor(0.6, 0.5)))
    assert interval.lower.tolist() == pytest.approx([0.3, 0.5 - 1e-6])
    assert interval.upper.tolist() == pytest.approx([0.4, 1 - 1e-6])


def test_exact_is_a_point() -> None:
    interval = TVInterval.exact(tensor(0.25).float())
    assert interval.lower.item() == interval.upper.item() == 0.25
    assert interval.upper.dtype == torch.float64


def test_unknown_stays_unknown() -> None:
    nan = math.nan
    assert TVInterval.from_topk(tensor(0.1, nan), tensor(nan, 0.1), tensor(0.1, 0.1)).upper.isnan().all()
    sampled = TVInterval.from_sampled(tensor(nan, -1.0), tensor(-1.0, nan))
    assert sampled.lower.isnan().all()
    assert sampled.upper.isnan().all()


def test_two_intervals_tighten_each_other() -> None:
    first = TVInterval(tensor(0.1, 0.2, math.nan), tensor(0.5, 0.3, math.nan), "topk")
    second = TVInterval(tensor(0.0, 0.25, 0.1), tensor(0.4, 0.6, 0.2), "sampled")
    both = first.tightened(second)
    assert both.lower.tolist() == [0.1, 0.25, 0.1]
    assert both.upper.tolist() == [0.4, 0.3, 0.2]
    assert both.source == "topk+sampled"
    assert first.tightened(first).source == "topk"


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.floats(0.01, 8.0), st.integers(0, 8))
def test_every_interval_holds_the_exact_tv(seed: int, vocab: int, scale: float, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, vocab, generator=generator, dtype=torch.float64)
    p, q = torch.softmax(logits, 1)
    exact = 0.5 * (p - q).abs().sum()
    a = int(torch.multinomial(p, 1, generator=generator))
    support = torch.cat([p.topk(min(k, vocab)).indices, torch.tensor([a])]).unique()
    rest_p, rest_q = 1 - p[support].sum(), 1 - q[support].sum()
    topk = 0.5 * ((p[support] - q[support]).abs().sum() + (rest_p - rest_q).abs())
    from_topk = TVInterval.from_topk(topk.unsqueeze(0), rest_p.unsqueeze(0), rest_q.unsqueeze(0))
    sampled = TVInterval.from_sampled(p[a].log().unsqueeze(0), q[a].log().unsqueeze(0))
    for interval in (from_topk, sampled, from_topk.tightened(sampled)):
        assert interval.lower.item() - 1e-14 <= exact.item() <= interval.upper.item() + 1e-14
    # merging more can only widen it: the sampled token alone is the coarsest partition
    assert from_topk.upper.item() <= sampled.upper.item() + 1e-14
    assert from_topk.lower.item() >= sampled.lower.item() - 1e-14
