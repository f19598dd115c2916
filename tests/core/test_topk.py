"""Supports: the fast top-K against a stable sort, and logged lists by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.topk import logged_support, topk_ids

NAN = math.nan


@pytest.mark.parametrize("vocab", [20, 21, 64, 1000, 1408, 5000, 49152])
@pytest.mark.parametrize("rounding", [None, 8.0, 1.0])
def test_topk_ids_are_those_of_a_stable_sort(vocab: int, rounding: float | None) -> None:
    logits = 4 * torch.randn(7, vocab, generator=torch.Generator().manual_seed(vocab))
    if rounding:
        logits = (logits * rounding).round() / rounding  # many ties, also at the boundary
    expected = logits.sort(dim=1, descending=True, stable=True).indices[:, :20]
    assert torch.equal(topk_ids(logits, 20), expected)


def logged(
    ids: list[int], probs: list[float], sampled: int, sampled_p: float, k: int = 3, mode: str = "paper"
) -> tuple[list[int], list[float], float, bool]:
    support = logged_support(
        torch.tensor([ids]),
        torch.log(torch.tensor([probs], dtype=torch.float64)),
        torch.tensor([sampled]),
        torch.log(torch.tensor([sampled_p], dtype=torch.float64)),
        k,
        mode,  # type: ignore[arg-type]
    )
    entries = [token for token in support.ids[0].tolist() if token >= 0]
    masses = [math.exp(value) for value in support.logp[0, : len(entries)].tolist()]
    return entries, masses, math.exp(support.log_rest[0].item()), bool(support.known[0])


def test_the_first_k_entries_and_the_sampled_token() -> None:
    entries, masses, rest, known = logged([7, 3, 9, 1], [0.4, 0.2, 0.1, 0.05], 5, 0.02)
    assert known
    assert entries == [7, 3, 9, 5]
    assert masses == pytest.approx([0.4, 0.2, 0.1, 0.02])
    assert rest == pytest.approx(0.28)


def test_slots_keep_k_entries() -> None:
    entries, _, rest, _ = logged([7, 3, 9, 1], [0.4, 0.2, 0.1, 0.05], 5, 0.02, mode="slots")
    assert entries == [7, 3, 5]
    assert rest == pytest.approx(0.38)


def test_a_sampled_token_in_the_list_counts_once_with_its_own_log_prob() -> None:
    entries, masses, rest, _ = logged([7, 3, 9], [0.4, 0.2, 0.1], 3, 0.25)
    assert entries == [7, 3, 9]
    assert masses == pytest.approx([0.4, 0.25, 0.1])
    assert rest == pytest.approx(0.25)


def test_repeated_ids_count_once() -> None:
    entries, masses, _, known = logged([7, 7, 3, 9], [0.4, 0.4, 0.2, 0.1], 7, 0.4)
    assert known
    assert entries == [7, 3, 9]
    assert masses == pytest.approx([0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    ("ids", "probs", "why"),
    [
        ([7, 3], [0.4, 0.2], "fewer than k entries"),
        ([7, 3, 3], [0.4, 0.2, 0.2], "fewer than k distinct entries"),
        ([7, 3, 9], [0.6, 0.3, 0.2], "more than 1 in all"),
        ([7, 3, 9], [0.6, NAN, 0.2], "a log-prob is missing"),
        ([7, 3, -1], [0.6, 0.1, NAN], "padding"),
    ],
)
def test_lists_that_cannot_be_used(ids: list[int], probs: list[float], why: str) -> None:
    assert not logged(ids, probs, 7, probs[0])[3], why


def test_rounding_above_one_leaves_no_rest() -> None:
    _, _, rest, known = logged([7, 3, 9], [0.5, 0.3, 0.20005], 7, 0.5)
    assert known
    assert rest == 0.0
