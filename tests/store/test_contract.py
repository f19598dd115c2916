"""The published contract: its macros against dppo_core, its columns, its comments. Runs on DuckDB 1.x and 2.x."""

from __future__ import annotations

import math
import os
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch

from dppo_core.intervals import TVInterval
from dppo_core.masks import Decision, keep_dppo, keep_ppo
from service.settings import Settings
from service.store.store import Store
from service.worker.measure import cohen_kappa

CONTRACT = {
    "runs": "run created_at framework temperature top_p top_k logprobs_mode tokenizer n_steps n_rollouts n_tokens",
    "checkpoints": "checkpoint run step label path adapter fingerprint",
    "analysis_scorings": "analysis step scoring old_checkpoint new_checkpoint span n_tokens device",
    "rollouts": "run step group_id sample_id upload reward advantage prompt_tokens response_tokens counted_tokens "
    "finish_reason policy_version prompt_text response_text meta",
    "analyses": "analysis run created_at source anchor evaluated_at eps_low eps_high dual_clip delta_tv_low "
    "delta_tv_high delta_kl_low delta_kl_high weight_cap top_k topk_mode dtype stale",
    "tokens": "analysis run step group_id sample_id position turn token_id token advantage reward "
    "logp_rollout logp_old logp_new log_ratio tv_binary kl_binary tv_topk kl_topk "
    "log_ratio_old tv_binary_old kl_binary_old tv_topk_old kl_topk_old tv_exact kl_exact "
    "log_mismatch tv_binary_mismatch tv_topk_mismatch kl_topk_mismatch logp_old_logged logp_new_logged "
    "topk_mass_old topk_mass_new entropy_old entropy_new grad_norm_new "
    "keep_ppo keep_dppo_binary_tv keep_dppo_binary_kl keep_dppo_topk_tv keep_dppo_topk_kl "
    "keep_dppo_exact_tv keep_dppo_exact_kl trainer_keep",
    "step_summary": "analysis step sign n n_null mean_abs_dp min_dp max_dp mean_log_ratio q01_log_ratio q50_log_ratio "
    "q99_log_ratio mean_tv_binary q01_tv_binary q50_tv_binary q99_tv_binary mean_entropy_old "
    "n_drop_keep_ppo n_drop_keep_dppo_binary_tv n_drop_keep_dppo_binary_kl n_drop_keep_dppo_topk_tv "
    "n_drop_keep_dppo_topk_kl n_drop_keep_dppo_exact_tv n_drop_keep_dppo_exact_kl n_near_threshold",
    "step_metrics": "analysis step n n_null mean_abs_dp q50_abs_dp q90_abs_dp q99_abs_dp min_dp max_dp n_gradient "
    "n_bad_update n_near_bad_update mean_tv_binary_mismatch mean_abs_log_mismatch mean_tv_binary_old mean_entropy_old "
    "mean_topk_mass_old",
    "run_steps": "run step n_rollouts n_tokens mean_length n_rewards mean_reward",
    "noise_floor": "analysis step n q50_abs_logp q90_abs_logp q99_abs_logp max_abs_logp q50_tv q90_tv q99_tv max_tv "
    "q50_kl q90_kl q99_kl max_kl",
    "method_agreement": "analysis method other n n_both_keep n_only_method_drops n_only_other_drops n_both_drop "
    "agreement kappa drop_rate_negative drop_rate_positive reason",
    "method_rates": "analysis step method sign n n_drop",
    "pipo": "analysis step mean_reward improvement weight reason",
    "bounds": "analysis step responses left_out horizon mean_reward reward_min xi first_order correction tv_source "
    "tv_sum tv_max eq7 eq8 eq8_ceiling eq8_vacuous mean_abs_log_mismatch",
}


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    directory = tmp_path_factory.mktemp("contract") / "data"
    store = Store(Settings(data_dir=directory))
    store.close()
    return duckdb.connect(directory / "lens.duckdb", read_only=True)


def test_the_major_version_that_was_asked_for() -> None:
    wanted = os.environ.get("DPPO_TEST_DUCKDB")
    assert wanted is None or duckdb.__version__.startswith(f"{wanted}.")


@pytest.mark.parametrize("table", CONTRACT)
def test_columns_and_comments(lens: duckdb.DuckDBPyConnection, table: str) -> None:
    found = lens.execute(
        "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index", [table]
    ).fetchall()
    assert [name for name, _ in found] == CONTRACT[table].split()
    assert all(comment for _, comment in found)


def test_types_of_tokens(lens: duckdb.DuckDBPyConnection) -> None:
    types = dict(
        lens.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'tokens'").fetchall()
    )
    text = {"analysis", "run", "group_id", "sample_id", "token"}
    whole = {"step", "position", "turn", "token_id"}
    for name, kind in types.items():
        expected = (
            "VARCHAR"
            if name in text
            else "UINTEGER"
            if name in whole
            else "BOOLEAN"
            if name.startswith("keep_") or name == "trainer_keep"
            else "DOUBLE"
        )
        assert kind == expected, name


def masked(decision: Decision) -> list[bool | None]:
    return [
        bool(keep) if known else None
        for keep, known in zip(decision.keep.tolist(), decision.known.tolist(), strict=True)
    ]


N = 120_000


@pytest.fixture(scope="module")
def tokens() -> dict[str, np.ndarray]:
    """Random tokens with ties on every threshold, NULLs (NaN here), zeros, and float32 values as stored."""
    rng = np.random.default_rng(7)
    log_ratio = rng.normal(0, 0.4, N)
    log_ratio[:4000] = 0.0
    log_ratio[4000:8000] = np.log1p(0.25)  # on the upper bound, as a double
    log_ratio[8000:12000] = np.log(1 - 0.25)  # on the lower bound
    log_ratio[12000:16000] = np.log(3.0)  # on the dual clip
    log_ratio[16000:] = log_ratio[16000:].astype(np.float32)
    divergence = rng.exponential(0.1, N).astype(np.float32).astype(np.float64)
    divergence[::7] = 0.125  # on δ, exactly
    divergence[1::7] = np.float32(0.15)  # float32(.15) > .15: dropped, in both
    divergence[2::7] = 0.15
    advantage = rng.choice([-1.5, -0.5, 0.0, 0.5, 1.5], N)
    for values, start in ((log_ratio, 3), (divergence, 5), (advantage, 11)):
        values[start::101] = np.nan
    return {"log_ratio": log_ratio, "divergence": divergence, "advantage": advantage}


def as_arrow(tokens: dict[str, np.ndarray]) -> pa.Table:
    return pa.table({name: pa.array(values, mask=np.isnan(values)) for name, values in tokens.items()})


@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize(("eps_low", "eps_high"), [(0.25, 0.25), (0.2, 0.28), (0.0, 0.0), (1.0, 5.0)])
def test_keep_ppo_is_dppo_core_s(
    lens: duckdb.DuckDBPyConnection,
    tokens: dict[str, np.ndarray],
    eps_low: float,
    eps_high: float,
    dual_clip: float | None,
) -> None:
    lens.register("t", as_arrow(tokens))
    found = [
        row[0]
        for row in lens.execute(
            "SELECT keep_ppo(log_ratio, advantage, ?, ?, dual_clip := ?::DOUBLE) FROM t", [eps_low, eps_high, dual_clip]
        ).fetchall()
    ]
    expected = masked(
        keep_ppo(
            torch.from_numpy(tokens["log_ratio"]), torch.from_numpy(tokens["advantage"]), eps_low, eps_high, dual_clip
        )
    )
    assert found == expected
    if (eps_low, eps_high) == (0.25, 0.25):
        assert {True, False, None} == set(found)


@pytest.mark.parametrize(("low", "high"), [(0.125, 0.125), (0.15, 0.15), (0.0, 0.3)])
def test_keep_dppo_is_dppo_core_s(
    lens: duckdb.DuckDBPyConnection, tokens: dict[str, np.ndarray], low: float, high: float
) -> None:
    lens.register("t", as_arrow(tokens))
    found = [
        row[0]
        for row in lens.execute(
            "SELECT keep_dppo(divergence, log_ratio, advantage, ?, ?) FROM t", [low, high]
        ).fetchall()
    ]
    expected = masked(
        keep_dppo(
            torch.from_numpy(tokens["divergence"]),
            torch.from_numpy(tokens["log_ratio"]),
            torch.from_numpy(tokens["advantage"]),
            low,
            high,
        )
    )
    assert found == expected
    assert {True, False, None} == set(found)


def test_masks_cast_floats_before_they_compare(lens: duckdb.DuckDBPyConnection) -> None:
    # float32(.15) is .15000000596: above .15 as a double, equal to it as a FLOAT
    assert lens.execute("SELECT keep_dppo(0.15::FLOAT, 0.1::FLOAT, 1, 0.15, 0.15)").fetchone() == (False,)
    assert lens.execute("SELECT keep_dppo(0.15, 0.1, 1, 0.15, 0.15)").fetchone() == (True,)


@pytest.mark.parametrize(
    "call",
    [
        "keep_ppo(NULL, 1, 0.2, 0.28)",
        "keep_ppo(1, NULL, 0.2, 0.28)",
        "keep_ppo(1, 1, NULL, 0.28)",
        "keep_ppo(1, 1, 0.2, NULL)",
        "keep_dppo(NULL, 1, 1, 0.1, 0.1)",
        "keep_dppo(1, NULL, 1, 0.1, 0.1)",
        "keep_dppo(1, 1, NULL, 0.1, 0.1)",
        "keep_dppo(1, 1, 1, NULL, 0.1)",
        "keep_dppo(1, 1, 1, 0.1, NULL)",
    ],
)
def test_null_in_null_out(lens: duckdb.DuckDBPyConnection, call: str) -> None:
    assert lens.execute(f"SELECT {call}").fetchone() == (None,)


def test_a_dual_clip_of_null_is_none(lens: duckdb.DuckDBPyConnection) -> None:
    assert lens.execute("SELECT keep_ppo(9, -1, 0.2, 0.28), keep_ppo(9, -1, 0.2, 0.28, dual_clip := 3)").fetchone() == (
        True,
        False,
    )


def test_certified_bounds_are_dppo_core_s(lens: duckdb.DuckDBPyConnection) -> None:
    rng = np.random.default_rng(3)
    p, q = (rng.dirichlet(np.full(6, 0.5), 4000).astype(np.float32).astype(np.float64) + 1e-12 for _ in "pq")
    held = slice(0, 3)  # the sampled token is the first, and of the top-K set
    mass = {"anchor": p[:, held].sum(1), "new": q[:, held].sum(1)}
    parts = np.abs(p[:, held] - q[:, held]).sum(1) + np.abs(mass["anchor"] - mass["new"])
    columns = {
        "logp_anchor": np.log(p[:, 0]),
        "logp_new": np.log(q[:, 0]),
        "tv_topk": parts / 2,
        "mass_anchor": mass["anchor"],
        "mass_new": mass["new"],
    }
    for place, name in enumerate(columns):
        columns[name][place::11] = np.nan
    cursor = lens.cursor()
    cursor.register("t", as_arrow(columns))
    found = cursor.execute(
        "SELECT _ceiling_sampled(logp_anchor, logp_new), _ceiling_topk(tv_topk, mass_anchor, mass_new) FROM t"
    ).fetchnumpy()
    sampled, topk = (values.filled(np.nan) for values in found.values())
    tensors = {name: torch.from_numpy(values) for name, values in columns.items()}
    expected = TVInterval.from_sampled(tensors["logp_anchor"], tensors["logp_new"]).upper.numpy()
    known = ~np.isnan(columns["logp_anchor"] + columns["logp_new"])
    np.testing.assert_allclose(sampled[known], expected[known], rtol=0, atol=1e-15)
    rests = (1 - tensors["mass_anchor"], 1 - tensors["mass_new"])
    expected = TVInterval.from_topk(tensors["tv_topk"], *rests).upper.numpy()
    whole = ~np.isnan(columns["tv_topk"] + columns["mass_anchor"] + columns["mass_new"])
    np.testing.assert_allclose(topk[whole], expected[whole], rtol=0, atol=1e-15)
    assert np.isnan(sampled[~known]).all()
    assert np.isnan(topk[~whole]).all()
    both = known & whole
    exact = np.abs(p - q).sum(1) / 2
    assert (exact <= topk + 1e-12)[both].all()
    assert (topk <= sampled + 1e-12)[both].all()


@pytest.mark.parametrize(
    ("cells", "kappa"),
    [((8, 3, 0, 1), 4 / 13), ((6, 2, 0, 2), 6 / 11), ((0, 5, 5, 0), -1.0), ((9, 0, 0, 0), None), ((0,) * 4, None)],
)
def test_kappa(lens: duckdb.DuckDBPyConnection, cells: tuple[int, ...], kappa: float | None) -> None:
    ((found,),) = lens.cursor().execute("SELECT _kappa(?, ?, ?, ?)", list(cells)).fetchall()
    assert found == (None if kappa is None else pytest.approx(kappa))
    assert found == (None if kappa is None else pytest.approx(cohen_kappa(*cells)))


def test_bins_of_a_probability_hold_their_lower_edge(lens: duckdb.DuckDBPyConnection) -> None:
    values = "(0::DOUBLE), (0.001), (0.00999), (0.1), (0.5), (0.9), (0.98), (0.99), (1), (NULL)"
    query = f"SELECT p, _bin_low(_bin_of(p)), _bin_high(_bin_of(p)) FROM (VALUES {values}) t(p)"
    found = lens.cursor().execute(query).fetchall()
    assert found == [
        (0, 0, 0.001),
        (0.001, 0.001, 0.01),
        (0.00999, 0.001, 0.01),
        (0.1, 0.1, 0.5),
        (0.5, 0.5, 0.9),
        (0.9, 0.9, 0.99),
        (0.98, 0.9, 0.99),
        (0.99, 0.99, 1),
        (1, 0.99, 1),
        (None, None, None),
    ]


def test_the_boundary_curve_of_kl_solves_kl_equals_delta(tmp_path: Path) -> None:
    store = Store(Settings(data_dir=tmp_path / "data"))
    curve = store.lens.table(
        "boundaries",
        {
            "divergence": "binary_kl",
            "eps_low": 0.2,
            "eps_high": 0.28,
            "delta_low": 0.05,
            "delta_high": 0.05,
            "x_limit": 9.2,
        },
    ).to_pylist()
    store.close()
    points = [
        row
        for row in curve
        if row["method"] == "dppo"
        and row["log_ratio"] is not None
        and 1 - row["p"] * math.exp(row["log_ratio"]) > 1e-9  # nearer to 1 a double cannot resolve the curve
    ]
    assert len(points) > 250
    for row in points:
        p = row["p"]
        q = p * math.exp(row["log_ratio"])
        assert (q > p) == (row["sign"] == 1)
        assert p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) == pytest.approx(0.05, abs=1e-5)
