"""Answers outlive a publication exactly as long as nothing changes in their run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.views.settled import settled
from service.schemas.view import DisagreementView
from service.store.store import Store
from tests.store.handmade import ANALYSIS, Columns, analysed, measured

TOKENS: Columns = {
    "sample_id": ["s"] * 2,
    "advantage": [1.0, -1.0],
    "logp_rollout": [-2.0, -0.1],
    "log_ratio__rollout_new": [0.5, 0.01],
    "tv_binary__rollout_new": [0.1, 0.005],
    "kl_binary__rollout_new": [0.01, 1e-5],
}
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs_mode": None}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with analysed(tmp_path, {0: TOKENS}) as opened:
        yield opened


def cells(store: Store) -> Any:
    """The very table that the lens hands out: the same object as long as it is kept."""
    view = DisagreementView().parameters(store.analyses.get(ANALYSIS))
    return store.lens.table("cells", settled(store.lens, view))


def test_another_run_changes_nothing(store: Store) -> None:
    kept = cells(store)
    store.runs.create("other", None, SAMPLING, None, {})
    store.lens.publish()
    assert cells(store) is kept


def test_a_measurement_of_the_run_does(store: Store) -> None:
    kept = cells(store)
    measured(store, {0: {"segment_row": [0], "icepop": [False]}}, {"icepop": None})
    assert cells(store) is not kept
    assert cells(store) == kept


def test_what_is_about_no_run_is_asked_again(store: Store) -> None:
    kept = store.lens.table("run_states")
    store.lens.publish()
    assert store.lens.table("run_states") is not kept


def test_a_deleted_run_is_forgotten(store: Store) -> None:
    assert store.lens.table("step_summary", {"analysis": ANALYSIS}).num_rows == 2  # one a sign
    store.delete_run("run")
    assert "run" not in store.lens.states
    assert store.lens.table("step_summary", {"analysis": ANALYSIS}).num_rows == 0
