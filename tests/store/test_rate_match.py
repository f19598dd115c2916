"""The lock of δ to ε: its SQL against `dppo_core.rate_match` on the tokens as stored, and what it does to a view."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from dppo_core.masks import keep_ppo
from dppo_core.rate_match import rate_matched_delta
from service.store.store import Store
from tests.store.handmade import analysed, rows

N = 4000


def columns(seed: int, decimals: int) -> dict[str, list[Any]]:
    """Random tokens; few decimals make many ties. Some are not known, some have A = 0, some D = 0."""
    rng = np.random.default_rng(seed)
    log_ratio = rng.normal(0, 0.3, N).round(decimals + 1)
    tv = (rng.exponential(0.1, N) * rng.random(N)).round(decimals)
    kl = np.round(tv**2 * rng.uniform(2, 4, N), decimals + 2)
    advantage = rng.choice([-1.5, -0.5, 0.0, 0.5, 1.5], N)
    known = {"log_ratio__rollout_new": 97, "tv_binary__rollout_new": 89, "kl_binary__rollout_new": 89, "advantage": 101}
    drawn = {
        "log_ratio__rollout_new": log_ratio,
        "tv_binary__rollout_new": tv,
        "kl_binary__rollout_new": kl,
        "advantage": advantage,
    }
    return {
        "sample_id": [f"s{place // 50}" for place in range(N)],
        **{
            name: [None if place % known[name] == 3 else float(v) for place, v in enumerate(values)]
            for name, values in drawn.items()
        },
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    steps = {0: columns(0, 6), 1: columns(1, 2)}
    with analysed(tmp_path_factory.mktemp("matched"), steps) as store:
        yield store


def stored(store: Store, name: str, steps: list[int]) -> Tensor:
    """A column as the segments hold it, in float64, NaN for null."""
    parts = [pq.read_table(store.layout.segment(f"x{step}"), columns=[name], partitioning=None)[name] for step in steps]
    values = [[math.nan if v is None else v for v in part.to_pylist()] for part in parts]
    return torch.tensor([v for part in values for v in part], dtype=torch.float64)


@pytest.mark.parametrize("divergence", ["tv", "kl"])
@pytest.mark.parametrize("step", [None, 0, 1])
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"eps_low": "0.05", "eps_high": "0.02"},
        {"eps_low": "0.9", "eps_high": "3"},  # PPO drops next to nothing
        {"eps_low": "0", "eps_high": "0"},  # and everything that moves away
        {"dual_clip": "1.05"},  # and more than DPPO ever can
    ],
)
def test_the_same_as_the_reference(store: Store, query: dict[str, str], step: int | None, divergence: str) -> None:
    steps = [0, 1] if step is None else [step]
    log_ratio, advantage = (stored(store, name, steps) for name in ("log_ratio__rollout_new", "advantage"))
    d = stored(store, f"{divergence}_binary__rollout_new", steps)
    eps = {"eps_low": 0.2, "eps_high": 0.28} | {name: float(value) for name, value in query.items()}
    ppo = keep_ppo(log_ratio, advantage, **eps)
    of_step = {} if step is None else {"step": str(step)}
    found = {
        row["sign"]: row for row in rows(store, "rate_match", divergence=f"binary_{divergence}", **query, **of_step)
    }
    assert found.keys() == {-1, 1}
    for sign, row in found.items():
        expected = rate_matched_delta(d, log_ratio, advantage, ppo, sign)
        assert (row["delta"], row["n"], row["n_ppo"], row["n_dppo"], row["n_tied"]) == (
            expected.delta,
            expected.tokens,
            expected.dropped_ppo,
            expected.dropped_dppo,
            expected.tied,
        )
        assert row["n_dppo"] <= row["n_ppo"]


def drops(store: Store, **query: str) -> dict[tuple[int, str], int]:
    """How many tokens of each sign a method drops."""
    cells = [row for row in rows(store, "cells", **query) if row["step"] is None and row["sign"]]
    return {
        (sign, method): sum(
            row["n"] for row in cells if row["sign"] == sign and row["cell"] in (f"{method}_only_drops", "both_drop")
        )
        for sign in (-1, 1)
        for method in ("ppo", "dppo")
    }


def test_a_locked_view_drops_what_the_lock_says(store: Store) -> None:
    """Without ties both rates are equal; with them DPPO's is the next lower one, and n_tied says why."""
    free = drops(store, step="0", match="1", eps_high="0.1")
    assert free[1, "dppo"] == free[1, "ppo"] > 0
    assert free[-1, "dppo"] == free[-1, "ppo"] > 0
    assert free != drops(store, step="0", eps_high="0.1")
    tied = drops(store, step="1", match="1")
    lock = {row["sign"]: row for row in rows(store, "rate_match", step="1")}
    assert {sign: (tied[sign, "ppo"], tied[sign, "dppo"]) for sign in lock} == {
        sign: (row["n_ppo"], row["n_dppo"]) for sign, row in lock.items()
    }
    assert any(row["n_dppo"] < row["n_ppo"] < row["n_dppo"] + row["n_tied"] for row in lock.values())


def test_a_sign_without_tokens_keeps_its_delta(tmp_path: Path) -> None:
    one = {
        "sample_id": ["s", "s"],
        "log_ratio__rollout_new": [0.5, 0.2],
        "tv_binary__rollout_new": [0.25, 0.125],
        "advantage": [1.0, 1.0],
    }
    with analysed(tmp_path, {0: one}) as store:
        # r = 1.65 drops, 1.22 does not
        assert [(row["sign"], row["delta"]) for row in rows(store, "rate_match")] == [(1, 0.125)]
        assert drops(store, match="1") == {(1, "ppo"): 1, (1, "dppo"): 1, (-1, "ppo"): 0, (-1, "dppo"): 0}
