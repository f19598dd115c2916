"""The whole path on a real pretrained model: one step of the recorded run, through a real server, against float64.

`smollm2-arith-expected.json` was computed from eager, unpadded, unmerged float32 logits and float64 arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import RealStep

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def connection(real_step: RealStep) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(real_step.server.data_dir / "lens.duckdb", read_only=True) as connection:
        yield connection


def one(connection: duckdb.DuckDBPyConnection, columns: str, analysis: str) -> tuple[Any, ...]:
    row = connection.execute(f"SELECT {columns} FROM tokens WHERE analysis = ?", [analysis]).fetchone()
    assert row is not None
    return row


def test_counts_and_sums(real_step: RealStep, connection: duckdb.DuckDBPyConnection) -> None:
    expected = real_step.expected
    n, positive, negative, zero = one(
        connection,
        "count(*), count(*) FILTER (advantage > 0), count(*) FILTER (advantage < 0), count(*) FILTER (advantage = 0)",
        real_step.analyses["old"],
    )
    assert n == expected["n_tokens"]
    assert {"positive": positive, "negative": negative, "zero": zero} == expected["n_tokens_by_advantage"]
    tv, kl, entropy, old, new, mu = one(
        connection,
        "avg(tv_exact), avg(kl_exact), avg(entropy_old), sum(logp_old), sum(logp_new), sum(logp_rollout)",
        real_step.analyses["old"],
    )
    assert tv == pytest.approx(expected["exact_tv_old_new"]["mean"], abs=1e-6)
    assert kl == pytest.approx(expected["exact_kl_old_new"]["mean"], abs=1e-6)
    assert entropy == pytest.approx(expected["entropy_old"]["mean"], abs=1e-5)
    assert old == pytest.approx(expected["sum_old_logprobs"], abs=2e-3)
    assert new == pytest.approx(expected["sum_new_logprobs"], abs=2e-3)
    assert mu == pytest.approx(expected["sum_rollout_logprobs"], abs=1e-3)
    (median,) = one(connection, "median(abs(logp_old - logp_old_logged))", real_step.analyses["old"])
    assert median < 1e-4


@pytest.mark.parametrize("anchor", ["rollout", "old"])
def test_four_cells(real_step: RealStep, anchor: str) -> None:
    server, analyses = real_step.server, real_step.analyses
    expected = real_step.expected[f"anchor_{anchor}"]
    close = expected["close_calls"]
    for name, cells in expected["cells"].items():
        estimate, kind, delta = name.split("_")
        found = dict.fromkeys(("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop"), 0)
        view = {"divergence": f"{estimate}_{kind}", "delta_low": delta, "delta_high": delta}
        for row in server.api.get(f"/analyses/{analyses[anchor]}/tables/cells", params=view).json():
            if row["step"] == 0 and row["cell"] in found:
                found[row["cell"]] += row["n"]
        slack = close["ppo_within_1e-3"] + close[f"{name}_within_1e-4"]
        both, *dropped = cells
        both -= real_step.expected["n_tokens_by_advantage"]["zero"]
        for number, wanted in zip(found.values(), [both, *dropped], strict=True):
            assert abs(number - wanted) <= slack, (name, found, cells)


def test_chain_binary_topk_exact_on_real_logits(real_step: RealStep, connection: duckdb.DuckDBPyConnection) -> None:
    violations = one(
        connection,
        "count(*) FILTER (tv_binary_old > tv_topk_old OR tv_topk_old > tv_exact OR kl_binary_old > kl_topk_old "
        "OR kl_topk_old > kl_exact OR tv_exact * tv_exact > kl_exact / 2 + 1e-7)",
        real_step.analyses["old"],
    )
    assert violations == (0,)


def test_lists_of_mu(real_step: RealStep, connection: duckdb.DuckDBPyConnection) -> None:
    # the expected figures take the logged list alone; A' adds the sampled token, which can only refine
    expected = real_step.expected["top20"]
    old, new, missing = one(
        connection,
        "avg(tv_topk_mismatch), avg(tv_topk), count(*) FILTER (tv_topk IS NULL)",
        real_step.analyses["rollout"],
    )
    assert missing == 0
    assert expected["tv_mu_old"]["mean"] <= old <= expected["tv_mu_old"]["mean"] + 1e-5
    assert expected["tv_mu_new"]["mean"] <= new <= expected["tv_mu_new"]["mean"] + 1e-5


def test_tokens_are_the_logged_text(real_step: RealStep, connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute(
        "SELECT r.response_text, string_agg(t.token, '' ORDER BY t.position) FROM tokens t JOIN rollouts r "
        "USING (run, step, sample_id) WHERE t.analysis = ? GROUP BY ALL",
        [real_step.analyses["old"]],
    ).fetchall()
    plain = [(text, joined.replace("<|im_end|>", "")) for text, joined in rows if "\ufffd" not in joined]
    assert len(plain) > 40
    assert all(text == joined for text, joined in plain)


def test_the_exported_file_gives_the_same_cells(
    real_step: RealStep, connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    server, analyses = real_step.server, real_step.analyses
    query = (
        "SELECT step, sign(advantage), keep_ppo, keep_dppo_binary_tv, keep_dppo_exact_kl, count(*), sum(tv_binary) "
        "FROM tokens WHERE analysis = ? GROUP BY ALL ORDER BY ALL"
    )
    file = tmp_path / "alone.duckdb"
    file.write_bytes(server.api.get(f"/analyses/{analyses['rollout']}/database").content)
    with duckdb.connect(file, read_only=True) as alone:
        found = alone.execute(query, [analyses["rollout"]]).fetchall()
    assert found == connection.execute(query, [analyses["rollout"]]).fetchall()
