"""The tables of the Disagreement page from hand-made segments: bins, selections, methods as measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from service.api.views.settled import NOT_MEASURED, method_reasons
from service.errors import Invalid
from service.store.catalog import script
from service.store.store import Store
from tests.store.handmade import ANALYSIS, analysed, measured, rows

Row = dict[str, Any]


def columns(tokens: list[tuple[str, float, float, float, float | None, str | None]]) -> dict[str, list[Any]]:
    """Tokens (sample, μ, π, A, entropy of OLD, text) as columns."""
    return {
        "sample_id": [sample for sample, *_ in tokens],
        "logp_rollout": [math.log(mu) for _, mu, *_ in tokens],
        "logp_new": [math.log(pi) for _, _, pi, *_ in tokens],
        "log_ratio__rollout_new": [math.log(pi / mu) for _, mu, pi, *_ in tokens],
        "tv_binary__rollout_new": [abs(pi - mu) for _, mu, pi, *_ in tokens],
        "advantage": [advantage for *_, advantage, _, _ in tokens],
        "entropy_old": [entropy for *_, entropy, _ in tokens],
        "token": [token for *_, token in tokens],
        "token_id": [0 if token == "x" else place for place, (*_, token) in enumerate(tokens)],
    }


# Under ε .2/.28 and δ .15. What drops a token stands behind it.
TOKENS = columns(
    [
        ("s", 0.02, 0.04, 1.0, 0.02, "x"),  # r 2, D .02: PPO
        ("s", 0.02, 0.025, 1.0, 0.2, "y"),  # r 1.25, D .005: neither
        ("s", 0.6, 0.76, 1.0, 0.2, "x"),  # r 1.267, D .16: DPPO
        ("s", 0.6, 0.95, 1.0, 4.0, None),  # r 1.583, D .35: both
        ("t", 0.6, 0.3, -1.0, None, "x"),  # r .5, D .3: both
        ("t", 0.02, 0.01, -1.0, 0.02, "x"),  # r .5, D .01: PPO
        ("u", 0.6, 0.95, 0.0, 0.2, "y"),  # A = 0
    ]
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with analysed(tmp_path_factory.mktemp("disagreement"), {3: TOKENS}) as store:
        yield store


def counts(row: Row) -> tuple[int, ...]:
    return tuple(row[f"n{name}"] for name in ("", "_first", "_second", "_only_first", "_only_second", "_both"))


def binned(store: Store, by: str, **query: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """(sign, low, high) → n, dropped by the first, by the second, by one of them only, by both."""
    return {(row["sign"], row["low"], row["high"]): counts(row) for row in rows(store, "bins", by=by, **query)}


def test_bins_of_the_anchor_s_probability(store: Store) -> None:
    assert binned(store, "probability") == {
        (1, 0.01, 0.05): (2, 1, 0, 1, 0, 0),
        (1, 0.5, 0.75): (2, 1, 2, 0, 1, 1),
        (-1, 0.01, 0.05): (1, 1, 0, 1, 0, 0),
        (-1, 0.5, 0.75): (1, 1, 1, 0, 0, 1),
    }
    mass = {(row["sign"], row["low"]): row["mass_moved"] for row in rows(store, "bins")}
    assert mass[1, 0.5] == pytest.approx(0.16 + 0.35)


def test_bins_of_position_entropy_and_token(store: Store) -> None:
    # positions 0, 1–2, 3–6 of s and 0, 1–2 of t
    assert binned(store, "position") == {
        (1, 0, 0): (1, 1, 0, 1, 0, 0),
        (1, 1, 2): (2, 0, 1, 0, 1, 0),
        (1, 3, 6): (1, 1, 1, 0, 0, 1),
        (-1, 0, 0): (1, 1, 1, 0, 0, 1),
        (-1, 1, 2): (1, 1, 0, 1, 0, 0),
    }
    # of 6 tokens 2 stand at position 0, 2 at 1, 1 at 2 and 1 at 3: before them 0, 2/6, 4/6 and 5/6 of all
    assert [(row["sign"], row["place"], row["low"], row["high"]) for row in rows(store, "bins", by="decile")] == [
        (1, 0, 0, 0),
        (1, 3, 1, 1),
        (1, 6, 2, 2),
        (1, 8, 3, 3),
        (-1, 0, 0, 0),
        (-1, 3, 1, 1),
    ]
    assert binned(store, "entropy") == {
        (1, 0.01, 0.05): (1, 1, 0, 1, 0, 0),
        (1, 0.1, 0.25): (2, 0, 1, 0, 1, 0),
        (1, 3, None): (1, 1, 1, 0, 0, 1),
        (-1, 0.01, 0.05): (1, 1, 0, 1, 0, 0),
        (-1, None, None): (1, 1, 1, 0, 0, 1),  # an entropy that is not known is no bin's
    }
    tokens = [(row["sign"], row["token"], *counts(row)) for row in rows(store, "bins", by="token")]
    assert tokens == [
        (1, "x", 2, 1, 1, 1, 1, 0),  # in dispute twice: first
        (1, None, 1, 1, 1, 0, 0, 1),
        (1, "y", 1, 0, 0, 0, 0, 0),
        (-1, "x", 2, 2, 1, 1, 0, 1),
    ]


def test_a_token_on_an_edge_is_in_the_upper_bin(tmp_path: Path) -> None:
    edges = columns([("s", 0.5, 0.5, 1.0, 0.25, None), ("s", 0.25, 0.25, 1.0, 0.5, None)])  # exact in every float
    with analysed(tmp_path, {0: edges}) as store:
        assert {row["low"]: row["n"] for row in rows(store, "bins", by="entropy")} == {0.25: 1, 0.5: 1}


def cells(store: Store, **query: str) -> dict[tuple[int | None, str], int]:
    return {(row["sign"], row["cell"]): row["n"] for row in rows(store, "cells", **query) if row["step"] is None}


def test_a_rectangle_selects_tokens_in_every_table(store: Store) -> None:
    # μ above .1 and r from 1.3: the token that both drop and the one without an advantage
    box = {"p_low": "0.1", "y_low": "1.3"}
    assert cells(store, **box) == {(1, "both_drop"): 1, (0, "no_gradient"): 1}
    assert [(row["sample_id"], row["position"]) for row in rows(store, "selected", **box)] == [("s", 3), ("u", 0)]
    assert [row["sample_id"] for row in rows(store, "selected", **box, sign="1")] == ["s"]
    assert [row["sample_id"] for row in rows(store, "responses", **box)] == ["s", "u"]
    assert binned(store, "probability", **box) == {(1, 0.5, 0.75): (1, 1, 1, 0, 0, 1)}
    # on the other plane: D from .1 to .32
    box = {"brush": "divergence", "y_low": "0.1", "y_high": "0.32"}
    assert cells(store, **box) == {(1, "dppo_only_drops"): 1, (-1, "both_drop"): 1}
    # what is drawn stays whole
    assert sum(row["n"] for row in rows(store, "ratio_plane", **box)) == 7
    assert cells(store, p_low="0", p_high="1", y_low="0") == cells(store)


def test_a_rectangle_that_cannot_be(store: Store) -> None:
    for query in ({"p_low": "0.5", "p_high": "0.4"}, {"y_low": "2", "y_high": "1"}, {"p_high": "1.5"}):
        with pytest.raises(Invalid, match=next(iter(query))[0]):
            rows(store, "cells", **query)


def test_two_methods_as_they_were_measured(tmp_path: Path) -> None:
    """icepop drops the tokens 1 and 4 and does not know 5; gspo drops 1 and 2."""
    decided = {
        "segment_row": list(range(7)),
        "icepop": [True, False, True, True, False, None, True],
        "gspo": [True, False, False, True, True, True, True],
    }
    with analysed(tmp_path, {3: TOKENS}) as store:
        with pytest.raises(Invalid, match="IcePop cannot be shown here: not measured for this analysis"):
            rows(store, "cells", first="icepop")
        measured(store, {3: decided}, {"icepop": None, "gspo": None, "spo": "the log has no such thing"})
        assert cells(store, first="icepop", second="gspo") == {
            (1, "both_keep"): 2,  # 0 and 3
            (1, "both_drop"): 1,
            (1, "gspo_only_drops"): 1,
            (-1, "icepop_only_drops"): 1,
            (-1, "unknown"): 1,
            (0, "no_gradient"): 1,
        }
        # against DPPO of the dials, which drops 2 (at δ_high .15, not at .2), 3 and 4
        query = {"first": "icepop", "delta_high": "0.2"}
        assert cells(store, **query) == {
            (1, "both_keep"): 2,
            (1, "icepop_only_drops"): 1,
            (1, "dppo_only_drops"): 1,
            (-1, "both_drop"): 1,
            (-1, "unknown"): 1,
            (0, "no_gradient"): 1,
        }
        found = {row["quantity"] for row in rows(store, "intervals", **query)}
        assert {"icepop_drops", "dppo_drops", "icepop_only_drops", "dppo_only_drops", "disagree"} <= found
        marks = {row["cell"] for row in rows(store, "dropped", **query)}
        assert marks == {"icepop_only_drops", "dppo_only_drops", "both_drop"}
        (response,) = (row for row in rows(store, "responses", **query) if row["sample_id"] == "s")
        assert (response["n_only_first"], response["n_only_second"], response["n_both"]) == (1, 1, 0)
        with pytest.raises(Invalid, match="SPO cannot be shown here: the log has no such thing"):
            rows(store, "cells", second="spo")
        with pytest.raises(Invalid, match="own evaluation point"):
            rows(store, "cells", first="icepop", evaluated_at="start")
        with pytest.raises(Invalid, match="the same method"):
            rows(store, "cells", first="dppo")


def test_a_step_without_a_row_of_a_method_is_kept_and_one_step_does_not_answer_for_another(tmp_path: Path) -> None:
    """Rows are a step's own: the first token of step 4 is dropped, that of step 3 is not."""
    keeps = {"segment_row": [0, 1, 2, 3, 4, 5, 6], "icepop": [True] * 7}
    drops = {"segment_row": [0, 1, 2, 3, 4, 5, 6], "icepop": [False] + [True] * 6}
    with analysed(tmp_path, {3: TOKENS, 4: TOKENS}) as store:
        measured(store, {3: keeps, 4: drops}, {"icepop": None})
        found = [row for row in rows(store, "cells", first="icepop") if row["cell"] == "icepop_only_drops"]
    assert [(row["step"], row["sign"], row["n"]) for row in found] == [(None, 1, 1), (4, 1, 1)]


def test_decisions_are_deleted_with_their_analysis(tmp_path: Path) -> None:
    with analysed(tmp_path, {3: TOKENS}) as store:
        assert not store.analyses.measured(ANALYSIS)
        measured(store, {3: {"segment_row": [0], "icepop": [True]}}, {"icepop": None})
        assert store.analyses.measured(ANALYSIS)
        (first,) = store.layout.decisions.glob("*/3.parquet")
        measured(store, {3: {"segment_row": [0], "icepop": [False]}}, {"icepop": None})  # again: in a folder of its own
        assert first.exists()  # for readers of the older publication
        assert sum(row["n"] for row in rows(store, "cells", first="icepop") if row["cell"] == "icepop_only_drops") == 2
        store.analyses.delete(ANALYSIS)
        store.lens.publish()
        with store.lens.cursor() as cursor:
            assert cursor.execute("SELECT count(*) FROM _decisions").fetchall() == [(0,)]
        deleted = {row["path"] for row in store.catalog.rows("trash_all")}
        assert {str(path) for path in store.layout.decisions.glob("*/3.parquet")} <= deleted


def test_a_catalog_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """It had no measurements: the methods are then not measured, and everything else is there."""
    path = tmp_path / "data" / "catalog.duckdb"
    path.parent.mkdir()
    with duckdb.connect(path) as connection:
        connection.execute(script("catalog"))
    with analysed(tmp_path, {3: TOKENS}) as store:
        assert store.catalog.one("schema_version")["value"] == "3"
        assert cells(store)[1, "both_keep"] == 1
        assert set(method_reasons(store.lens, {"analysis": ANALYSIS, "evaluated_at": "end"}).values()) == {NOT_MEASURED}
