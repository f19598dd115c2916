"""The whole path on a real pretrained model: one step of the recorded run, through a real server, against float64.

`smollm2-arith-expected.json` was computed from eager, unpadded, unmerged float32 logits and float64 arithmetic.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.live import REPOSITORY, Server

pytestmark = pytest.mark.model

DEMO = REPOSITORY / "service" / "cli" / "demo_data" / "smollm2-arith"
EXPECTED = json.loads((REPOSITORY / "tests" / "data" / "smollm2-arith-expected.json").read_text())["steps"]
STEP = 0


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, base_checkpoint: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server that has scored step 0 for both anchors: the server and the analysis of each anchor."""
    data = tmp_path_factory.mktemp("e2e") / "data"
    roots = os.pathsep.join(str(path) for path in (base_checkpoint.parent, DEMO))
    with Server(data, env={"DPPO_CHECKPOINT_ROOTS": roots}) as server:
        about = json.loads((DEMO / "run.json").read_text())
        sampling = {name: about["sampling"][name] for name in ("temperature", "top_p", "top_k", "logprobs_mode")}
        assert server.api.post("/runs", json={"run": "real", "sampling": sampling}).status_code == 201
        with gzip.open(DEMO / "rollouts.jsonl.gz", "rt") as file:
            rows = [row for row in map(json.loads, file) if row["step"] == STEP]
        imported = server.upload("real", rows)
        assert imported["state"] == "done"
        assert imported["result"]["warnings"] == []
        for step in (STEP, STEP + 1):
            body = {"step": step, "path": str(base_checkpoint), "adapter": str(DEMO / "adapters" / f"step_{step:03d}")}
            registered = server.api.post("/runs/real/checkpoints", json=body)
            assert registered.status_code == 201, registered.text
            assert registered.json()["warnings"] == [], "the adapter names this base"
        analyses = {}
        for anchor in ("rollout", "old"):
            job = server.analyze("real", anchor=anchor, dtype="float32")
            assert job["state"] == "done", job
            assert job["warnings"] == [], "a bfloat16 engine's mismatch alone raises no doubt"
            (note,) = job["result"]["notes"]
            assert "tokens of 4 responses: old_logprobs median |Δ log-prob|" in note
            analyses[anchor] = job["result"]["analysis"]
        yield server, analyses


@pytest.fixture(scope="module")
def connection(scored: tuple[Server, dict[str, str]]) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(scored[0].data_dir / "lens.duckdb", read_only=True) as connection:
        yield connection


def one(connection: duckdb.DuckDBPyConnection, columns: str, analysis: str) -> tuple[Any, ...]:
    row = connection.execute(f"SELECT {columns} FROM tokens WHERE analysis = ?", [analysis]).fetchone()
    assert row is not None
    return row


def test_counts_and_sums(scored: tuple[Server, dict[str, str]], connection: duckdb.DuckDBPyConnection) -> None:
    expected = EXPECTED[str(STEP)]
    n, positive, negative, zero = one(
        connection,
        "count(*), count(*) FILTER (advantage > 0), count(*) FILTER (advantage < 0), count(*) FILTER (advantage = 0)",
        scored[1]["old"],
    )
    assert n == expected["n_tokens"]
    assert {"positive": positive, "negative": negative, "zero": zero} == expected["n_tokens_by_advantage"]
    tv, kl, entropy, old, new, mu = one(
        connection,
        "avg(tv_exact), avg(kl_exact), avg(entropy_old), sum(logp_old), sum(logp_new), sum(logp_rollout)",
        scored[1]["old"],
    )
    assert tv == pytest.approx(expected["exact_tv_old_new"]["mean"], abs=1e-6)
    assert kl == pytest.approx(expected["exact_kl_old_new"]["mean"], abs=1e-6)
    assert entropy == pytest.approx(expected["entropy_old"]["mean"], abs=1e-5)
    assert old == pytest.approx(expected["sum_old_logprobs"], abs=2e-3)
    assert new == pytest.approx(expected["sum_new_logprobs"], abs=2e-3)
    assert mu == pytest.approx(expected["sum_rollout_logprobs"], abs=1e-3)
    (median,) = one(connection, "median(abs(logp_old - logp_old_logged))", scored[1]["old"])
    assert median < 1e-4


@pytest.mark.parametrize("anchor", ["rollout", "old"])
def test_four_cells(scored: tuple[Server, dict[str, str]], anchor: str) -> None:
    server, analyses = scored
    expected = EXPECTED[str(STEP)][f"anchor_{anchor}"]
    close = expected["close_calls"]
    for name, cells in expected["cells"].items():
        estimate, kind, delta = name.split("_")
        found = dict.fromkeys(("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop"), 0)
        view = {"divergence": f"{estimate}_{kind}", "delta_low": delta, "delta_high": delta}
        for row in server.api.get(f"/analyses/{analyses[anchor]}/tables/cells", params=view).json():
            if row["step"] == STEP and row["cell"] in found:
                found[row["cell"]] += row["n"]
        slack = close["ppo_within_1e-3"] + close[f"{name}_within_1e-4"]
        cells[0] -= EXPECTED[str(STEP)]["n_tokens_by_advantage"]["zero"]
        for number, wanted in zip(found.values(), cells, strict=True):
            assert abs(number - wanted) <= slack, (name, found, cells)


def test_chain_binary_topk_exact_on_real_logits(
    scored: tuple[Server, dict[str, str]], connection: duckdb.DuckDBPyConnection
) -> None:
    violations = one(
        connection,
        "count(*) FILTER (tv_binary_old > tv_topk_old OR tv_topk_old > tv_exact OR kl_binary_old > kl_topk_old "
        "OR kl_topk_old > kl_exact OR tv_exact * tv_exact > kl_exact / 2 + 1e-7)",
        scored[1]["old"],
    )
    assert violations == (0,)


def test_lists_of_mu(scored: tuple[Server, dict[str, str]], connection: duckdb.DuckDBPyConnection) -> None:
    # the expected figures take the logged list alone; A' adds the sampled token, which can only refine
    expected = EXPECTED[str(STEP)]["top20"]
    old, new, missing = one(
        connection, "avg(tv_topk_mismatch), avg(tv_topk), count(*) FILTER (tv_topk IS NULL)", scored[1]["rollout"]
    )
    assert missing == 0
    assert expected["tv_mu_old"]["mean"] <= old <= expected["tv_mu_old"]["mean"] + 1e-5
    assert expected["tv_mu_new"]["mean"] <= new <= expected["tv_mu_new"]["mean"] + 1e-5


def test_tokens_are_the_logged_text(
    scored: tuple[Server, dict[str, str]], connection: duckdb.DuckDBPyConnection
) -> None:
    rows = connection.execute(
        "SELECT r.response_text, string_agg(t.token, '' ORDER BY t.position) FROM tokens t JOIN rollouts r "
        "USING (run, step, sample_id) WHERE t.analysis = ? GROUP BY ALL",
        [scored[1]["old"]],
    ).fetchall()
    plain = [(text, joined.replace("<|im_end|>", "")) for text, joined in rows if "\ufffd" not in joined]
    assert len(plain) > 40
    assert all(text == joined for text, joined in plain)


def test_the_exported_file_gives_the_same_cells(
    scored: tuple[Server, dict[str, str]], connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    server, analyses = scored
    query = (
        "SELECT step, sign(advantage), keep_ppo, keep_dppo_binary_tv, keep_dppo_exact_kl, count(*), sum(tv_binary) "
        "FROM tokens WHERE analysis = ? GROUP BY ALL ORDER BY ALL"
    )
    file = tmp_path / "alone.duckdb"
    file.write_bytes(server.api.get(f"/analyses/{analyses['rollout']}/database").content)
    with duckdb.connect(file, read_only=True) as alone:
        found = alone.execute(query, [analyses["rollout"]]).fetchall()
    assert found == connection.execute(query, [analyses["rollout"]]).fetchall()
