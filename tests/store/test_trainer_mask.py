"""The trainer's mask in uploaded pieces, as SQL counts it. Runs on DuckDB 1.x and 2.x."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dppo_core.methods.catalog import Thresholds
from service.schemas.rollout import ROLLOUT_SCHEMA
from service.settings import Settings
from service.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Settings(data_dir=tmp_path / "data"))
    yield store
    store.close()


def counted(
    store: Store, tokens: list[tuple[float | None, float | None, float | None, bool | None]]
) -> dict[str, dict[str, Any]]:
    """What the query says of one response of (A, μ(a), π(a), the trainer keeps it) at δ_TV = .2, by method."""
    n = len(tokens)
    row = {
        "upload": "u",
        "step": 4,
        "group_id": "g",
        "sample_id": "s",
        "row_hash": "",
        "prompt_token_ids": [1],
        "prompt_tokens": 1,
        "response_tokens": n,
        "counted_tokens": n,
        "response_token_ids": list(range(n)),
        "response_mask": [True] * n,
        "advantage": [a for a, *_ in tokens],
        "rollout_logprobs": [mu and math.log(mu) for _, mu, *_ in tokens],
        "new_logprobs": [pi and math.log(pi) for _, _, pi, _ in tokens],
        "trainer_keep": [keep for *_, keep in tokens],
    }
    path = store.layout.root / "piece.parquet"
    pq.write_table(pa.Table.from_pylist([row], schema=ROLLOUT_SCHEMA), path)
    thresholds = asdict(Thresholds(delta_tv_low=0.2, delta_tv_high=0.2))
    return {
        row["method"]: row
        for row in store.lens.table("trainer_mask", {"pieces": [str(path)], **thresholds}).to_pylist()
    }


def test_every_class_of_difference(store: Store) -> None:
    found = counted(
        store,
        [
            (1, 0.2, 0.5, True),  # D .3 kept: another threshold
            (1, 0.5, 0.9, False),  # D .4 dropped by both
            (1, 0.9, 0.4, False),  # toward r = 1
            (-1, 0.50005, 0.3, True),  # D .20005
            (-1, 0.5, 0.1, False),
            (0, 0.9, 0.2, False),
            (None, 0.9, 0.2, False),
            (1, None, 0.2, False),
            (1, 0.9, 0.2, None),  # no decision, in no count
        ],
    )["dppo_binary_tv"]
    assert (found["n"], found["n_alike"], found["agreement"]) == (5, 2, 0.4)
    assert {entry["class"]: entry["n"] for entry in found["differences"]} == {
        "threshold": 1,
        "direction": 1,
        "near_threshold": 1,
        "no_gradient": 1,
        "unknown": 2,
    }
    assert (found["kept_high"], found["dropped_high"]) == (pytest.approx(0.3), pytest.approx(0.4))
    assert (found["kept_low"], found["dropped_low"]) == (pytest.approx(0.20005), pytest.approx(0.4))
    assert found["examples"] == [{"step": 4, "sample_id": "s", "position": at} for at in (0, 2, 3)]


def test_no_threshold_explains_a_mask_that_contradicts_itself(store: Store) -> None:
    tokens = [(1, 0.2, 0.5, True), (1, 0.2, 0.45, False), (1, 0.2, 0.3, True), (1, 0.2, 0.35, False)]
    found = counted(store, tokens)["dppo_binary_tv"]
    assert {entry["class"]: entry["n"] for entry in found["differences"]} == {"other": 2}
    assert (found["kept_high"], found["dropped_high"]) == (pytest.approx(0.3), pytest.approx(0.15))


def test_certain_tokens_have_a_kl(store: Store) -> None:
    """.9 → 1 is infinitely far, 1 → .9 by −log .9, 1 → 1 by nothing; δ_KL = .05."""
    tokens = [(1, 0.9, 1.0, False), (-1, 1.0, 0.9, False), (1, 1.0, 1.0, True), (-1, 0.5, 0.48, True)]
    found = counted(store, tokens)["dppo_binary_kl"]
    assert (found["n"], found["n_alike"], found["differences"]) == (4, 4, [])
    assert found["dropped_high"] == math.inf
    assert found["dropped_low"] == pytest.approx(-math.log(0.9))
    assert found["kept_low"] == pytest.approx(0.5 * math.log(0.5 / 0.48) + 0.5 * math.log(0.5 / 0.52))


def test_nothing_to_compare(store: Store) -> None:
    assert counted(store, [(0, 0.9, 0.2, False), (1, None, 0.2, False)]) == {}
