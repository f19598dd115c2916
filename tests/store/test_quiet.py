"""Sums over quiet tokens stand for them: every table is the same with and without, and thresholds among them say so."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.api.views import TABLES
from service.api.views.settled import settled
from service.schemas.overview import CompareView
from service.schemas.segment import PAIRS
from service.schemas.view import DisagreementView
from service.settings import Settings
from service.store import quiet
from service.store.store import Store
from tests.store.handmade import ANALYSIS, Columns, analysed

NO_NOISE = {"log_ratio": None, "tv": None}
TABLES_OF_COUNTS: list[tuple[str, dict[str, str]]] = [
    ("cells", {}),
    *(("bins", {"by": by}) for by in ("probability", "entropy", "position", "token", "decile")),
    ("responses", {}),
    ("rollouts", {}),
    ("dropped", {}),
    ("intervals", {}),
    *(("most_clipped", {"method": method}) for method in ("ppo", "dppo", "disputed")),
    ("clipped_summary", {}),
    ("clipped_probability", {}),
]
VIEWS: list[dict[str, str]] = [
    {},
    {"step": "1"},
    {"anchor": "old"},
    {"evaluated_at": "start"},
    {"evaluated_at": "logged"},
    {"anchor": "old", "evaluated_at": "logged"},
    {"divergence": "binary_kl"},
    {"delta_low": "0.0202", "delta_high": "0.0202", "eps_low": "0.08", "eps_high": "0.0845"},
]


def logp(p: float) -> float:
    return math.log(p)


def step(seed: int, n: int = 400) -> Columns:
    """Tokens of which most hardly move; some pairs are not known, in whole or in part; some have no advantage."""
    chance = random.Random(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("sample_id", "group_id", "token_id", "counted", "advantage")}
    names = ["logp_rollout", "logp_old", "logp_new", "logp_old_logged", "logp_new_logged", "entropy_old", "reward"]
    names += ["grad_norm_new", *(f"{what}__{pair}" for pair, all_ in PAIRS.items() for what in all_)]
    columns |= {name: [] for name in names}
    for place in range(n):
        sample = place * 12 // n
        mu = chance.choice([0.999, 0.9, 0.5, 0.05, 0.002])
        logged = mu * math.exp(chance.choice([0.0, 0.01, 0.08, -0.08]))
        old = mu * math.exp(chance.choice([0.0, 0.003, -0.02]))
        new = old * math.exp(chance.choice([0.0, 0.01, -0.03, 0.0798, -0.0799, 0.2, -0.4]))
        p = {"rollout": mu, "old": min(old, 0.9999), "new": min(new, 0.9999), "logged": min(logged, 0.9999)}
        pairs = {
            "rollout_old": ("rollout", "old"),
            "rollout_new": ("rollout", "new"),
            "rollout_logged": ("rollout", "logged"),
            "old_new": ("old", "new"),
            "logged_logged": ("old", "logged"),
        }
        row: dict[str, Any] = {
            "sample_id": f"s{sample:02}",
            "group_id": f"g{sample // 4}",
            "token_id": chance.randrange(9),
            "counted": chance.random() < 0.95,
            "advantage": chance.choice([1.0, 1.0, -1.0, -1.0, 0.5, 0.0, None]),
            "reward": float(sample % 2),
            "entropy_old": chance.choice([None, 0.02, 0.7, 4.0]),
            "grad_norm_new": chance.choice([0.1, 0.9]),
            "logp_rollout": logp(p["rollout"]),
            "logp_old": logp(p["old"]),
            "logp_new": logp(p["new"]),
            "logp_old_logged": logp(p["old"]),
            "logp_new_logged": logp(p["logged"]),
        }
        for pair, statistics in PAIRS.items():
            before, after = (p[name] for name in pairs[pair])
            kl = before * math.log(before / after) + (1 - before) * math.log((1 - before) / (1 - after))
            known = {"log_ratio": math.log(after / before), "tv_binary": abs(after - before), "kl_binary": max(kl, 0.0)}
            missing = chance.random()
            if missing < 0.05:
                known = {}
            elif missing < 0.08:
                known.pop(chance.choice(list(known)))
            row |= {f"{what}__{pair}": known.get(what) for what in statistics}
        for name, values in columns.items():
            values.append(row[name])
    return columns


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with analysed(tmp_path_factory.mktemp("quiet"), {0: step(0), 1: step(1)}) as opened:
        yield opened


def found(store: Store, table: str, quick: bool, **query: str) -> list[dict[str, Any]]:
    """The table's rows, with sums or from every token."""
    view = TABLES[table].view.of(query, set())
    at = settled(store.lens, view.parameters(store.analyses.get(ANALYSIS)))
    assert at["quick"], "this view would not use the sums at all"
    at["quick"] = quick
    rows: list[dict[str, Any]] = TABLES[table].rows(store.lens, at).to_pylist()
    return rows


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize(("table", "more"), TABLES_OF_COUNTS, ids=str)
def test_sums_stand_for_quiet_tokens(store: Store, table: str, more: dict[str, str], view: dict[str, str]) -> None:
    whole, sums = (found(store, table, quick, **view, **more) for quick in (False, True))
    assert len(whole) == len(sums)
    assert whole or table == "dropped"
    for one, other in zip(whole, sums, strict=True):
        assert one.keys() == other.keys()
        for key, number in one.items():
            close = pytest.approx(number, rel=1e-12, abs=1e-14) if isinstance(number, float) else number
            assert other[key] == close, key


def test_sums_stand_for_quiet_tokens_of_either_side_of_a_comparison(store: Store) -> None:
    view = CompareView.of({"b": ANALYSIS, "b_anchor": "old", "b_eps_low": "0.1", "step": "1"}, set())
    table = TABLES["compare_cells"]
    at = table.parameters(store.lens, view.parameters(store.analyses.get(ANALYSIS)))
    assert (at["quick"], at["b_quick"]) == (True, True)
    sums = store.lens.table("compare_cells", at).to_pylist()
    whole = store.lens.table("compare_cells", {**at, "quick": False, "b_quick": False}).to_pylist()
    assert sums == whole
    assert {row["n_a"] for row in sums} != {row["n_b"] for row in sums}


def test_every_counted_token_is_in_one_of_the_two_files(store: Store) -> None:
    for scoring in ("x0", "x1"):
        segment = pq.read_table(store.layout.segment(scoring), partitioning=None)
        moved = pq.read_table(store.layout.moved(scoring), partitioning=None)
        sums = pq.read_table(store.layout.quiet(scoring), partitioning=None).to_pylist()
        n_counted = sum(segment["counted"].to_pylist())
        for pair in PAIRS:
            n_quiet = sum(row["n"] for row in sums if row["pair"] == pair and row["dimension"] == "response")
            assert n_quiet > 0
            assert moved.num_rows + n_quiet == n_counted
        rows = segment.to_pylist()
        for token in moved.to_pylist():
            place = token.pop("file_row_number")
            assert rows[place] == token


def test_a_token_that_is_not_quiet_in_one_pair_is_in_no_sum(store: Store) -> None:
    for token in pq.read_table(store.layout.moved("x0"), partitioning=None).to_pylist():
        beyond = token["advantage"] is None
        for pair in PAIRS:
            values = [token[f"{what}__{pair}"] for what in ("log_ratio", "tv_binary", "kl_binary")]
            limits = (quiet.LOG_RATIO, quiet.TV, quiet.KL)
            beyond |= None in values and values != [None] * 3
            beyond |= any(v is not None and abs(v) > limit for v, limit in zip(values, limits, strict=True))
        assert beyond


def at(**changed: Any) -> dict[str, Any]:
    return {
        "anchor": "rollout",
        "evaluated_at": "end",
        "divergence": "binary_tv",
        "eps_low": 0.2,
        "eps_high": 0.28,
        "dual_clip": None,
        "weight_cap": None,
        "delta_low": 0.15,
        "delta_high": 0.15,
        "first": "ppo",
        "second": "dppo",
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        # e^.08 = 1.08329: within the noise floor of 1e-3 up to 1.08429; e^-.08 = .92312: down to 1 - .07788
        ({"eps_high": 0.0843}, True),
        ({"eps_high": 0.0842}, False),
        ({"eps_low": 0.0779}, True),
        ({"eps_low": 0.0778}, False),
        ({"delta_low": 0.02011}, True),
        ({"delta_low": 0.02009}, False),
        ({"delta_high": 0.01}, False),
        ({"divergence": "binary_kl", "delta_high": 0.0042}, True),
        ({"divergence": "binary_kl", "delta_high": 0.0041}, False),
        ({"divergence": "topk_tv"}, False),
        ({"divergence": "exact_kl"}, False),
        ({"anchor": "old", "evaluated_at": "start"}, False),
        ({"dual_clip": 1.05}, False),
        ({"dual_clip": 3.0}, True),
        ({"weight_cap": 1.05}, False),
        ({"weight_cap": 1.1}, True),
        ({"first": "ipo"}, False),
        ({"first": "dppo", "second": "ppo"}, True),
        ({"p_low": 0.0}, False),
        ({"brush_high": 2.0}, False),
    ],
    ids=str,
)
def test_when_sums_may_stand_for_quiet_tokens(changed: dict[str, Any], expected: bool) -> None:
    assert quiet.beyond(at(**changed), NO_NOISE) is expected


def test_a_wide_noise_floor_brings_quiet_tokens_near() -> None:
    assert quiet.beyond(at(), {"log_ratio": 0.1, "tv": 0.1})
    assert not quiet.beyond(at(), {"log_ratio": 0.2, "tv": 0.1})  # 1.28 - .2 < e^.08
    assert not quiet.beyond(at(), {"log_ratio": 0.1, "tv": 0.14})  # .15 - .14 < .02


@pytest.mark.parametrize(("eps", "among"), [("0.25", False), ("0.085", True)])
def test_a_match_among_quiet_tokens_looks_at_all(store: Store, eps: str, among: bool) -> None:
    """Where PPO drops more tokens than moved far, the δ that drops as many lies among the quiet ones."""
    query = {"match": "1", "eps_low": eps, "eps_high": eps}
    view = DisagreementView.of(query, set()).parameters(store.analyses.get(ANALYSIS))
    matched = settled(store.lens, view)["matched"]
    whole = store.lens.table("rate_match", {**view, "quick": False}).to_pylist()
    assert matched == {row["sign"]: row for row in whole}
    assert (min(row["delta"] for row in whole) < quiet.TV) is among
    assert (store.lens.table("rate_match", {**view, "quick": True}).to_pylist() != whole) is among


def test_a_scoring_of_an_earlier_version_gets_its_sums_when_the_store_is_opened(tmp_path: Path) -> None:
    with analysed(tmp_path, {0: step(3)}) as opened:
        root, before = opened.layout.root, found(opened, "cells", True)
        opened.catalog.execute("delete_availability", scoring="x0")
        for path in (opened.layout.moved("x0"), opened.layout.quiet("x0")):
            path.unlink()
    again = Store(Settings(data_dir=root))
    try:
        assert found(again, "cells", True) == before
        assert again.lens.table("availability", {"analysis": ANALYSIS}).to_pylist()[0]["rollout/end/binary"] > 0
    finally:
        again.close()
