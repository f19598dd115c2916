"""Intervals from a bootstrap over prompts: exact where nothing varies, else against numpy's, drawn independently."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.store.store import Store
from tests.store.handmade import analysed, rows

Row = dict[str, Any]
KEEP, PPO, DPPO = (0.5, 0.55), (0.01, 0.018), (0.7, 0.86)  # (μ, π) with A = 1 under ε_high .28 and δ .15


def prompts(groups: list[tuple[int, int, int]]) -> dict[str, list[Any]]:
    """One response a group, of so many tokens that both keep, that PPO alone and that DPPO alone drops; A = 1."""
    pairs = [
        (f"g{place:05d}", pair)
        for place, counts in enumerate(groups)
        for pair, n in zip((KEEP, PPO, DPPO), counts, strict=True)
        for _ in range(n)
    ]
    return {
        "sample_id": [name for name, _ in pairs],
        "group_id": [name for name, _ in pairs],
        "log_ratio__rollout_new": [math.log(pi / mu) for _, (mu, pi) in pairs],
        "tv_binary__rollout_new": [pi - mu for _, (mu, pi) in pairs],
        "advantage": [1.0] * len(pairs),
    }


def intervals(store: Store) -> dict[tuple[int | None, str], Row]:
    return {(row["sign"], row["quantity"]): row for row in rows(store, "intervals")}


def test_groups_that_are_alike_leave_no_doubt(tmp_path: Path) -> None:
    with analysed(tmp_path, {0: prompts([(6, 1, 1)] * 12)}) as store:
        found = intervals(store)
        again = intervals(store)
    assert found == again
    cells = {"both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop"}
    assert {quantity for sign, quantity in found if sign is None} == cells | {
        "all",
        "ppo_drops",
        "dppo_drops",
        "disagree",
    }
    row = found[1, "ppo_only_drops"]
    assert row["n_groups"] == 12
    assert (row["share"], row["share_low"], row["share_high"]) == (0.125, 0.125, 0.125)
    for name, value in (("mass_moved", 12 * 0.008), ("gradient_weight", 12 * 1.8)):
        assert [row[f"{name}{side}"] for side in ("", "_low", "_high")] == [pytest.approx(value)] * 3
    assert row["gradient_weight_norm"] is row["gradient_weight_norm_low"] is None  # no Σπ² here
    assert [found[1, "disagree"][f"share{side}"] for side in ("", "_low", "_high")] == [0.25] * 3
    assert [found[1, "both_drop"][f"share{side}"] for side in ("", "_low", "_high")] == [0] * 3
    assert found[1, "both_drop"]["mass_moved"] is None  # of no token nothing moved, as in the table of cells


def test_one_group_that_differs_is_drawn_as_often_as_chance_says(tmp_path: Path) -> None:
    """Of 16 groups of equal size one is dropped by PPO: the share is k/16, k ~ binomial(16, 1/16).

    P(k = 0) = .356 and P(k ≤ 3) = .983, P(k ≤ 2) = .922: the 2.5 % and 97.5 % quantiles are 0 and 3/16, and of 1000
    replicates it takes 3.5 standard errors (.0041) to push P(k ≤ 3) below .975.
    """
    with analysed(tmp_path, {0: prompts([(0, 4, 0)] + [(4, 0, 0)] * 15)}) as store:
        row = intervals(store)[1, "ppo_drops"]
    assert (row["share"], row["share_low"], row["share_high"]) == (1 / 16, 0, 3 / 16)


def ours(groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shares of PPO's drops in replicates that weigh the groups so: [replicates]."""
    return (weights @ groups[:, 1]) / (weights @ groups.sum(1))


def mixed(x: int) -> int:
    """The multiply-xorshift permutation of 32 bits that the SQL draws with, in Python's integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def test_against_numpy(tmp_path: Path) -> None:
    """Exactly, from the same draws; and from numpy's own, within what 1000 replicates can tell.

    A 2.5 % quantile of B replicates of a normal has a standard error of σ·√(.025·.975/B)/.0584 = .085 σ: 4 of them.
    """
    rng = np.random.default_rng(3)
    groups = np.column_stack([rng.integers(5, 40, 60), rng.poisson(3, 60) * rng.integers(0, 3, 60), rng.poisson(1, 60)])
    with analysed(tmp_path, {0: prompts([tuple(map(int, row)) for row in groups])}) as store:
        found = intervals(store)
    row = found[None, "ppo_drops"]

    place = np.argsort(np.argsort([mixed(number) for number in range(1, 61)]))  # the groups, shuffled
    shuffled = np.empty_like(groups)
    shuffled[place] = groups
    weights = np.zeros((1000, 60))
    for replicate in range(1000):
        for draw in range(60):
            weights[replicate, mixed(replicate * 2**20 + draw) % 60] += 1
    same = ours(shuffled, weights)
    assert row["share_low"] == pytest.approx(np.quantile(same, 0.025), abs=1e-12)
    assert row["share_high"] == pytest.approx(np.quantile(same, 0.975), abs=1e-12)

    theirs = ours(groups, rng.multinomial(60, [1 / 60] * 60, size=20_000))
    tolerance = 4 * 0.085 * theirs.std()
    assert row["share_low"] == pytest.approx(np.quantile(theirs, 0.025), abs=tolerance)
    assert row["share_high"] == pytest.approx(np.quantile(theirs, 0.975), abs=tolerance)
    mass = rng.multinomial(60, [1 / 60] * 60, size=20_000) @ (groups[:, 2] * 0.16)
    (row,) = (found[key] for key in found if key == (1, "dppo_only_drops"))
    for side, q in (("low", 0.025), ("high", 0.975)):
        assert row[f"mass_moved_{side}"] == pytest.approx(np.quantile(mass, q), abs=4 * 0.085 * mass.std())


def test_many_groups_are_pooled_without_a_narrower_interval(tmp_path: Path) -> None:
    """1,700 groups in 1,000 places: the width is that of all groups, within 4 standard errors of √(2·.085²) σ and 10 %
    for the places, of which 1,000 hold one or two groups."""
    rng = np.random.default_rng(4)
    groups = np.column_stack([rng.integers(1, 6, 1700), rng.integers(0, 2, 1700), np.zeros(1700, int)])
    with analysed(tmp_path, {0: prompts([tuple(map(int, row)) for row in groups])}) as store:
        row = intervals(store)[1, "ppo_drops"]
    assert row["n_groups"] == 1700
    theirs = ours(groups, rng.multinomial(1700, [1 / 1700] * 1700, size=4000))
    assert row["share_high"] - row["share_low"] == pytest.approx(
        np.quantile(theirs, 0.975) - np.quantile(theirs, 0.025), abs=(4 * 0.12 + 0.4) * theirs.std()
    )
