"""Agreement of methods over an analysis's segments: by hand, and the segment read at every evaluation point."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Method, Status, Unavailable
from dppo_core.tokens import TokenArrays
from service.schemas.decisions import DECISION_SCHEMA
from service.schemas.measures import MEASURES
from service.schemas.segment import SEGMENT_SCHEMA
from service.worker.measure import Agreement, bounds_of, cohen_kappa, measure, tokens_of

THRESHOLDS: dict[str, Any] = {
    "eps_low": 0.2,
    "eps_high": 0.28,
    "dual_clip": None,
    "weight_cap": None,
    "delta_tv_low": 0.15,
    "delta_tv_high": 0.15,
    "delta_kl_low": 0.05,
    "delta_kl_high": 0.05,
}


def fixed(name: str, coef: list[float], status: Status = "read") -> Method:
    """A method that says `coef` whatever the tokens are."""

    def function(tokens: TokenArrays) -> torch.Tensor:
        return torch.tensor(coef, dtype=torch.float64)

    return Method(name, name, "fixed", "here", status, "token", (), {}, {}, function)


def unavailable(name: str) -> Method:
    def function(tokens: TokenArrays) -> torch.Tensor:
        raise Unavailable(f"{name}: the log has no such thing")

    return Method(name, name, "fixed", "here", "read", "token", (), {}, {}, function)


def tokens(advantage: list[float]) -> TokenArrays:
    return TokenArrays(torch.tensor(advantage), torch.zeros(len(advantage), dtype=torch.long))


def test_agreement_by_hand() -> None:
    #                 A > 0: 3 tokens        A < 0: 2      A = 0
    advantage = [1.0, 1.0, 1.0, -1.0, -1.0, 0.0]
    a = fixed("a", [1, 0, 1, 0, -1, 0])  # keeps 1st, 3rd, 5th; drops 2nd, 4th
    b = fixed("b", [1, 0, 0, -1, math.nan, 0])  # keeps 1st, 4th; drops 2nd, 3rd; does not know the 5th
    agreement = Agreement([a, b, fixed("c", [1] * 6, "unverified"), unavailable("d")], THRESHOLDS)
    decided = agreement.add(tokens(advantage))
    assert list(agreement.rates(7, decided.counts)) == [
        {"step": 7, "method": "a", "sign": -1, "n": 2, "n_drop": 1},
        {"step": 7, "method": "a", "sign": 1, "n": 3, "n_drop": 1},
        {"step": 7, "method": "b", "sign": -1, "n": 1, "n_drop": 0},
        {"step": 7, "method": "b", "sign": 1, "n": 3, "n_drop": 2},
    ]
    rows = {(row["method"], row["other"]): row for row in agreement.rows()}
    assert len(rows) == 16
    ab = rows["a", "b"]
    # tokens 1-4: both keep the 1st, a alone drops the 4th, b alone drops the 3rd, both drop the 2nd
    assert [ab[f"n_{cell}"] for cell in ("both_keep", "only_method_drops", "only_other_drops", "both_drop")] == [1] * 4
    assert (ab["n"], ab["agreement"], ab["kappa"]) == (4, 0.5, 0.0)  # chance agreement .5·.5 + .5·.5 is .5 too
    assert (ab["drop_rate_positive"], ab["drop_rate_negative"]) == (pytest.approx(1 / 3), 0.5)  # a's own 3 and 2 tokens
    assert rows["b", "a"]["drop_rate_positive"] == pytest.approx(2 / 3)
    assert rows["b", "a"]["drop_rate_negative"] == 0.0
    assert (rows["a", "a"]["n"], rows["a", "a"]["kappa"]) == (5, 1.0)
    assert rows["a", "c"]["n"] == 0
    assert rows["a", "c"]["agreement"] is None
    assert rows["c", "a"]["reason"] == "its formula is not verified"
    assert rows["d", "a"]["reason"] == "the log has no such thing"
    assert rows["a", "d"]["reason"] is None


def test_agreement_adds_up_over_steps_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.worker.measure.CHUNK", 2)
    a, b = fixed("a", [1, 0, 1, 1, 1]), fixed("b", [1, 0, 0, 1, 1])
    agreement = Agreement([a, b], THRESHOLDS)
    agreement.add(tokens([1.0] * 5))
    agreement.add(tokens([1.0] * 5))
    row = next(row for row in agreement.rows() if (row["method"], row["other"]) == ("a", "b"))
    assert (row["n"], row["n_both_keep"], row["n_only_other_drops"], row["n_both_drop"]) == (10, 6, 2, 2)
    # p_o = .8, p_e = .2·.4 + .8·.6 = .56
    assert row["kappa"] == pytest.approx((0.8 - 0.56) / 0.44)


def test_kappa_is_not_known_where_both_are_constant() -> None:
    assert cohen_kappa(10, 0, 0, 0) is None
    assert cohen_kappa(0, 0, 0, 0) is None
    assert cohen_kappa(0, 5, 5, 0) == -1.0


def segment(**columns: list[Any]) -> pa.Table:
    """Three tokens of sample b, then two of sample a in another group; the second token of b is not counted."""
    given: dict[str, list[Any]] = {
        "group_id": ["g2", "g2", "g2", "g1", "g1"],
        "sample_id": ["b", "b", "b", "a", "a"],
        "position": [0, 1, 2, 0, 1],
        "token_id": [5, 6, 7, 8, 9],
        "counted": [True, False, True, True, True],
        "advantage": [1.0, None, 1.0, -1.0, -1.0],
        "reward": [1.0, 1.0, 1.0, 0.0, 0.0],
        "logp_rollout": [-1.0, None, None, -3.0, -4.0],
        "logp_old": [-1.5, None, -2.5, -3.5, -4.5],
        "logp_new": [-1.25, None, -2.25, -3.25, -4.25],
        "logp_old_logged": [-1.125, None, -2.0, -3.0, None],
        "logp_new_logged": [-1.0, None, -2.0, -3.0, -4.0],
        "log_ratio__rollout_old": [-0.5, None, None, -0.5, -0.5],
        "log_ratio__rollout_new": [-0.25, None, None, -0.25, -0.25],
        "log_ratio__old_new": [0.25, None, 0.25, 0.25, 0.25],
        "tv_exact__old_new": [0.5, None, 0.25, 0.125, 0.0625],
        **columns,
    }
    return pa.table(
        [pa.array(given.get(field.name, [None] * 5), field.type) for field in SEGMENT_SCHEMA], schema=SEGMENT_SCHEMA
    )


def floats(values: torch.Tensor | None) -> list[float | None]:
    assert values is not None
    return [None if math.isnan(value) else value for value in values.tolist()]


def test_a_segment_at_the_step_s_end() -> None:
    found = tokens_of(segment(), "end")
    assert found.sequence.tolist() == [0, 0, 1, 1]
    assert found.reward is not None
    assert found.reward.tolist() == [1.0, 0.0]
    assert found.group is not None
    assert found.group[0] != found.group[1]
    assert floats(found.logp_new) == [-1.25, -2.25, -3.25, -4.25]
    assert floats(found.log_ratio("rollout")) == [-0.25, None, -0.25, -0.25]
    assert floats(found.log_ratio("old")) == [0.25] * 4
    assert floats(found.log_mismatch) == [-0.5, None, -0.5, -0.5]
    assert floats(found.divergence("tv", "exact", "old")) == [0.5, 0.25, 0.125, 0.0625]
    assert found.missing("tv_topk_rollout") == "the log has no usable top-K lists of the rollout policy"


def test_a_segment_at_the_step_s_start_and_as_logged() -> None:
    start = tokens_of(segment(), "start")
    assert floats(start.logp_new) == floats(start.logp_old) == [-1.5, -2.5, -3.5, -4.5]
    assert floats(start.log_ratio("rollout")) == [-0.5, None, -0.5, -0.5]
    assert floats(start.log_ratio("old")) == floats(start.divergence("kl", "exact", "old")) == [0.0] * 4
    logged = tokens_of(segment(log_ratio__logged_logged=[0.125, None, 0.0, 0.0, None]), "logged")
    assert floats(logged.logp_old) == [-1.125, -2.0, -3.0, None]
    assert floats(logged.log_ratio("old")) == [0.125, 0.0, 0.0, None]
    assert floats(logged.log_mismatch) == [-0.125, None, 0.0, None]  # the trainer's own π_old against μ
    assert logged.missing("tv_exact_old") is not None


def test_a_segment_without_models_starts_at_the_trainer_s_own_old() -> None:
    columns = {name: [None] * 5 for name in ("logp_old", "logp_new", "tv_exact__old_new", "log_ratio__old_new")}
    found = tokens_of(segment(**columns), "start")
    assert floats(found.logp_new) == floats(found.logp_old) == [-1.125, -2.0, -3.0, None]
    assert floats(found.log_ratio("old")) == [0.0, 0.0, 0.0, None]
    assert floats(found.log_ratio("rollout")) == [-0.5, None, -0.5, -0.5]  # as stored


@pytest.mark.parametrize("evaluated_at", ["start", "end", "logged"])
def test_measure_writes_every_table(tmp_path: Path, evaluated_at: str) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(segment(), path)
    events: list[dict[str, Any]] = []
    emit: Callable[[dict[str, Any]], None] = events.append
    task = {"segments": [[0, str(path)], [1, str(path)]], "evaluated_at": evaluated_at, "thresholds": THRESHOLDS}
    assert measure({**task, "out": str(tmp_path / "out")}, emit) == {"steps": 2}
    assert len(events) >= 2 * 30  # a sign of life after every method
    for name, schema in MEASURES.items():
        assert pq.read_schema(tmp_path / "out" / f"{name}.parquet").equals(schema)
    rows = pq.read_table(tmp_path / "out" / "method_agreement.parquet").to_pylist()
    row = next(row for row in rows if row["method"] == row["other"] == "ppo_old")
    # r′ = exp(.25) > 1.28 drops the two tokens with A > 0 at the end; at the start r′ = 1; logged: nothing is known
    expected = {"end": (8, 1.0, 0.0), "start": (8, 0.0, 0.0), "logged": (0, None, None)}[evaluated_at]
    assert (row["n"], row["drop_rate_positive"], row["drop_rate_negative"]) == expected


def test_every_method_s_decisions_are_kept_token_by_token(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(segment(), path)
    task = {"segments": [[7, str(path)]], "evaluated_at": "end", "thresholds": THRESHOLDS}
    measure({**task, "out": str(tmp_path / "out")}, lambda _: None)
    found = pq.read_table(tmp_path / "out" / "decisions" / "7.parquet")
    assert found.schema.equals(DECISION_SCHEMA)
    assert found["step"].to_pylist() == [7] * 4
    assert found["segment_row"].to_pylist() == [0, 2, 3, 4]  # the second token of sample b is not counted
    # r′ = exp(.25) = 1.284 > 1.28 drops A > 0, not A < 0
    assert found["ppo_old"].to_pylist() == [False, False, True, True]
    # r = exp(−.25) = .779 < .8 drops A < 0; the third token of b has no μ
    assert found["ppo_rollout"].to_pylist() == [True, None, False, False]
    # exact TV .5 and .25 exceed .15 where r′ > 1 and A > 0
    assert found["dppo_exact_tv_old"].to_pylist() == [False, False, True, True]
    assert found["dppo_topk_tv_rollout"].null_count == 4  # unavailable
    assert found["nfpo"].null_count == 4  # unverified


def test_a_token_without_a_gradient_is_kept_by_every_method(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(segment(advantage=[0.0, None, 0.0, 0.0, 0.0]), path)
    task = {"segments": [[7, str(path)]], "evaluated_at": "end", "thresholds": THRESHOLDS}
    measure({**task, "out": str(tmp_path / "out")}, lambda _: None)
    found = pq.read_table(tmp_path / "out" / "decisions" / "7.parquet")
    assert found["ppo_old"].to_pylist() == [True] * 4
    assert all(keep is not False for name in METHODS for keep in found[name].to_pylist())


def test_bounds_of_a_step_by_hand() -> None:
    found = bounds_of(segment(log_ratio__old_new=[math.log(2.0), None, math.log(0.5), math.log(2.0), math.log(2.0)]))
    # rewards 1 and 0, so the second response adds nothing: R sum(r - 1) = 1 - 1/2, the product is 1, so L = Delta
    assert (found["responses"], found["left_out"], found["horizon"], found["xi"]) == (2, 0, 2, 1.0)
    assert found["first_order"] == pytest.approx(0.25)
    assert found["correction"] == pytest.approx(0.25)
    assert found["tv_sum"] == pytest.approx((0.75 + 0.1875) / 2)
    assert found["tv_max"] == 0.5
    assert found["eq7"] == pytest.approx(0.25 - 2 * 1 * 2 * 1 * 0.25)
    assert found["eq8"] == pytest.approx(0.25 - 4 * 0.46875)
    assert found["eq8_vacuous"] is True  # -1.625 is below -(1/2 - 0)
    assert found["mean_abs_log_mismatch"] is None  # one token has no mu


def test_bounds_from_the_trainer_s_own_log_probs() -> None:
    columns = {name: [None] * 5 for name in ("logp_old", "logp_new", "tv_exact__old_new", "log_ratio__old_new")}
    found = bounds_of(segment(**columns, log_ratio__logged_logged=[0.125, None, 0.0, 0.0, None]))
    assert found["tv_source"] == "sampled"
    assert (found["responses"], found["left_out"]) == (1, 1)  # sample a lacks an old_logprob
    # TV <= 1 - min(P, Q): 1 - exp(-1.125) and 1 - exp(-2)
    assert found["tv_sum"] == pytest.approx(2 - math.exp(-1.125) - math.exp(-2.0))
