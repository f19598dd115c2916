"""The REST surface on a small logged run: routes, formats, events, SQL, export."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Checkpoints
from tests.live import Server
from tests.tiny import records

# Five tokens of one response per sign, worked by hand: (mu, new, A) → PPO(.2, .28), DPPO binary TV .15
ROWS = [
    (0.5, 0.5, 1.0),  # r = 1            both keep
    (0.1, 0.2, 1.0),  # r = 2, TV .1     only PPO drops
    (0.7, 0.88, 1.0),  # r = 1.257, .18   only DPPO drops
    (0.4, 0.8, 1.0),  # r = 2, TV .4     both drop
    (0.9, 0.1, 1.0),  # toward … r < 1 with A > 0: both keep
    (0.5, 0.5, -1.0),  #                  both keep
    (0.1, 0.05, -1.0),  # r = .5, TV .05   only PPO drops
    (0.95, 0.78, -1.0),  # r = .821, .17    only DPPO drops
    (0.8, 0.2, -1.0),  # r = .25, TV .6   both drop
    (0.1, 0.9, 0.0),  # A = 0            no gradient
]


def hand_made() -> list[dict[str, Any]]:
    import math

    return [
        {
            "step": step,
            "sample_id": f"a/{step}",
            "group_id": "a",
            "prompt_token_ids": [1, 2],
            "response_token_ids": list(range(len(ROWS))),
            "response_mask": [1] * len(ROWS),
            "rollout_logprobs": [math.log(mu) for mu, _, _ in ROWS],
            "new_logprobs": [math.log(new) for _, new, _ in ROWS],
            "advantage": [a for _, _, a in ROWS],
            "reward": 1.5,
            "prompt_text": "say",
            "response_text": "things",
        }
        for step in (3, 4)
    ]


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("rest") / "data"
    with Server(data, env={"DPPO_CHECKPOINT_ROOTS": str(checkpoints.root)}) as server:
        assert server.api.post("/runs", json={"run": "hand", "framework": "none"}).status_code == 201
        assert server.upload("hand", hand_made(), filename="a.jsonl")["state"] == "done"
        yield server


@pytest.fixture(scope="module")
def analysis(rest: Server) -> str:
    job = rest.analyze("hand", source="logged")
    assert job["state"] == "done", job
    return str(job["result"]["analysis"])


def cells(rest: Server, analysis: str, **view: Any) -> dict[tuple[int | None, int | None, str], int]:
    rows = rest.api.get(f"/analyses/{analysis}/tables/cells", params=view).json()
    return {(row["step"], row["sign"], row["cell"]): row["n"] for row in rows}


def test_four_cells_by_hand(rest: Server, analysis: str) -> None:
    for step, times in ((3, 1), (4, 1), (None, 2)):
        found = {(sign, cell): n for (at, sign, cell), n in cells(rest, analysis).items() if at == step}
        assert found == {
            (1, "both_keep"): 2 * times,
            (1, "ppo_only_drops"): times,
            (1, "dppo_only_drops"): times,
            (1, "both_drop"): times,
            (-1, "both_keep"): times,
            (-1, "ppo_only_drops"): times,
            (-1, "dppo_only_drops"): times,
            (-1, "both_drop"): times,
            (0, "no_gradient"): times,
        }


def test_mass_and_weight_by_hand(rest: Server, analysis: str) -> None:
    rows = rest.api.get(f"/analyses/{analysis}/tables/cells", params={"step": 3, "weight_cap": 1.5}).json()
    both = next(row for row in rows if row["step"] == 3 and row["sign"] == 1 and row["cell"] == "both_drop")
    assert both["mass_moved"] == pytest.approx(0.4, abs=1e-6)
    assert both["gradient_weight"] == pytest.approx(1.5)  # min(2, 1.5)·1
    assert both["gradient_weight_norm"] is None, "only known for π = NEW"


def test_thresholds_move_without_scoring(rest: Server, analysis: str) -> None:
    assert cells(rest, analysis, step=3, delta_high=0.05)[3, 1, "both_drop"] == 2
    assert cells(rest, analysis, step=3, eps_high=1.5)[3, 1, "dppo_only_drops"] == 2
    assert (
        cells(rest, analysis, step=3, divergence="binary_kl", delta_low=10, delta_high=10)[3, 1, "ppo_only_drops"] == 2
    )
    assert cells(rest, analysis, step=3, divergence="exact_tv")[3, 1, "unknown"] == 5
    assert cells(rest, analysis, anchor="old")[None, 1, "unknown"] == 10, "the log has no old_logprobs"
    bad = rest.api.get(f"/analyses/{analysis}/tables/cells", params={"epsilon": 0.1})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["field"] == "epsilon"


def test_step_summary_by_hand(rest: Server, analysis: str) -> None:
    rows = {(row["step"], row["sign"]): row for row in rest.api.get(f"/analyses/{analysis}/tables/step_summary").json()}
    plus = rows[3, 1]
    assert (plus["n"], plus["n_null"]) == (5, 0)
    assert plus["mean_abs_dp"] == pytest.approx((0 + 0.1 + 0.18 + 0.4 + 0.8) / 5, abs=1e-6)
    assert plus["min_dp"] == pytest.approx(-0.8, abs=1e-6)
    assert plus["max_dp"] == pytest.approx(0.4, abs=1e-6)
    assert (plus["n_drop_keep_ppo"], plus["n_drop_keep_dppo_binary_tv"]) == (2, 2)
    assert plus["n_drop_keep_dppo_exact_tv"] is None
    assert set(rows) == {(step, sign) for step in (3, 4) for sign in (-1, 0, 1)}


@pytest.mark.parametrize("kind", ["csv", "arrow", "parquet"])
def test_tables_in_every_format(rest: Server, analysis: str, kind: str) -> None:
    content = rest.api.get(f"/analyses/{analysis}/tables/step_summary", params={"format": kind}).content
    if kind == "csv":
        assert content.decode().splitlines()[0].startswith('"analysis","step","sign"')
    else:
        table = pq.read_table(BytesIO(content)) if kind == "parquet" else pa.ipc.open_stream(content).read_all()
        assert table.num_rows == 6


def test_tokens_of_a_rollout(rest: Server, analysis: str) -> None:
    rows = rest.api.get(f"/analyses/{analysis}/tokens", params={"step": 3, "sample_id": "a/3"}).json()
    assert [row["cell"] for row in rows] == [
        "both_keep",
        "ppo_only_drops",
        "dppo_only_drops",
        "both_drop",
        "both_keep",
        "both_keep",
        "ppo_only_drops",
        "dppo_only_drops",
        "both_drop",
        "no_gradient",
    ]
    assert rest.api.get(f"/analyses/{analysis}/tokens", params={"step": 3, "sample_id": "x"}).status_code == 404
    listed = rest.api.get(f"/analyses/{analysis}/rollouts").json()
    assert [(row["step"], row["n_ppo_only"], row["n_dppo_only"], row["n_both"]) for row in listed] == [
        (3, 2, 2, 2),
        (4, 2, 2, 2),
    ]


def test_events_of_a_job_end(rest: Server) -> None:
    job = rest.api.post("/runs/hand/analyses", json={"source": "logged", "thresholds": {"eps_low": 0.11}}).json()
    events = []
    with rest.api.stream("GET", f"/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("event: "):
                events.append(line.removeprefix("event: "))
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
    assert events[-1] == "end"
    assert last["state"] == "done"
    assert set(last) >= {"id", "kind", "state", "progress", "error", "result"}
    assert set(last["progress"]) >= {"tokens_done", "tokens_total", "heartbeat"}


def test_sql_is_an_arrow_stream(rest: Server, analysis: str) -> None:
    statement = (
        "SELECT step, count(*) AS n, count(*) FILTER (NOT keep_ppo) AS p, "
        f"count(*) FILTER (NOT keep_dppo(tv_binary, log_ratio, advantage, 0.05, 0.05)) AS d "
        f"FROM tokens WHERE analysis = '{analysis}' GROUP BY step ORDER BY step"
    )
    response = rest.api.post("/sql", json={"sql": statement})
    assert response.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert pa.ipc.open_stream(response.content).read_all().to_pylist() == [
        {"step": 3, "n": 10, "p": 4, "d": 6},
        {"step": 4, "n": 10, "p": 4, "d": 6},  # .05 is not above .05
    ]
    refused = rest.api.post("/sql", json={"sql": "SELECT * FROM read_text('/etc/passwd')"})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert rest.api.post("/sql", json={"sql": "SELECT nothing FROM tokens"}).status_code == 422


def test_an_exported_file_stands_alone(rest: Server, analysis: str, tmp_path: Path) -> None:
    response = rest.api.get(f"/analyses/{analysis}/database")
    assert response.status_code == 200
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "out.duckdb").write_bytes(response.content)
    with duckdb.connect(alone / "out.duckdb", read_only=True) as connection:
        tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        measured = {"noise_floor", "method_agreement", "method_rates", "pipo", "bounds"}
        by_step = {"step_summary", "step_metrics", "run_steps"}
        assert tables == {"tokens", "rollouts", "analyses"} | measured | by_step
        assert connection.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchone() == (0,)
        found = connection.execute(
            "SELECT keep_ppo, keep_dppo_binary_tv, count(*) FROM tokens WHERE advantage > 0 AND step = 3 "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        assert found == [(False, False, 1), (False, True, 1), (True, False, 1), (True, True, 2)]
        assert connection.execute(
            "SELECT bool_and(keep_ppo = keep_ppo(log_ratio, advantage, 0.2, 0.28)) FROM tokens"
        ).fetchone() == (True,)
        assert connection.execute("SELECT count(*), any_value(response_text) FROM rollouts").fetchone() == (2, "things")
        (comment,) = connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'tokens' AND column_name = 'kl_exact'"
        ).fetchone() or ("",)
        assert "whole vocabulary" in comment


def test_what_an_import_found(rest: Server) -> None:
    """Warnings and notes in the job's result, and the same in the upload; the run's sampling is heard."""
    sampling = {"top_p": 0.9, "logprobs_mode": None}
    assert rest.api.post("/runs", json={"run": "cut", "sampling": sampling}).status_code == 201
    result = rest.upload("cut", [{**one, "response_mask": None, "colour": "red"} for one in hand_made()])["result"]
    assert [(one["code"], one["level"], one["count"]) for one in result["warnings"]] == [
        ("no_response_mask", "warning", 2)
    ]
    assert [(one["code"], one["level"], one["count"]) for one in result["notes"]] == [
        ("truncated_sampling", "note", 1),
        ("unknown_fields", "note", 2),
    ]
    assert result["warnings"][0]["examples"] == [
        {"line": line, "field": "response_mask", "step": step, "sample_id": f"a/{step}"}
        for line, step in ((1, 3), (2, 4))
    ]
    upload = rest.api.get(f"/uploads/{result['upload']}").json()
    assert {name: upload[name] for name in ("warnings", "notes")} == {
        name: result[name] for name in ("warnings", "notes")
    }
    assert rest.api.delete("/runs/cut").status_code == 204


def test_uploads_runs_and_metrics(rest: Server) -> None:
    import httpx

    (upload,) = rest.api.get("/runs/hand/uploads").json()
    assert (upload["filename"], upload["rollouts"], upload["steps"], upload["visible"]) == ("a.jsonl", 2, [3, 4], True)
    assert rest.api.get(f"/uploads/{upload['upload']}").json() == upload
    assert rest.api.get("/runs/hand").json()["n_tokens"] == 20
    text = httpx.get(f"{rest.url}/metrics").text
    assert "dppo_runs 1" in text
    assert "dppo_response_tokens 20" in text
    assert httpx.get(f"{rest.url}/readyz").json()["status"] == "ready"


def parquet(lines: bytes) -> bytes:
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in lines.splitlines()]), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        ("application/json", bytes),
        ("application/gzip", gzip.compress),
        ("application/zstd", lambda body: pa.compress(body, codec="zstd", asbytes=True)),
        ("application/octet-stream", gzip.compress),
        ("application/vnd.apache.parquet", parquet),
    ],
)
def test_every_content_type_is_taken_and_the_content_decides(
    server: Server, kind: str, pack: Callable[[bytes], bytes]
) -> None:
    server.api.post("/runs", json={"run": "kinds"})
    body = pack(b"".join(json.dumps(row).encode() + b"\n" for row in records()))
    accepted = server.api.put("/runs/kinds/rollouts", content=body, headers={"content-type": kind})
    assert accepted.status_code == 202
    done = server.wait(accepted.json())
    assert (done["state"], done["result"]["rollouts"]) == ("done", 12)


def test_the_methods_are_told(rest: Server) -> None:
    methods = {method["method"]: method for method in rest.api.get("/methods").json()}
    assert len(methods) > 45
    assert methods["ppo_rollout"]["title"]


def test_every_route_of_the_contract_is_there(rest: Server) -> None:
    paths = rest.api.get("/openapi.json").json()["paths"]
    contract = {
        "/api/v1/runs": {"get", "post"},
        "/api/v1/runs/{run}": {"get", "delete"},
        "/api/v1/runs/{run}/rollouts": {"put"},
        "/api/v1/runs/{run}/checkpoints": {"get", "post"},
        "/api/v1/runs/{run}/analyses": {"get", "post"},
        "/api/v1/runs/{run}/uploads": {"get"},
        "/api/v1/uploads/{upload}": {"get", "delete"},
        "/api/v1/jobs/{job}": {"get", "delete"},
        "/api/v1/jobs/{job}/events": {"get"},
        "/api/v1/analyses/{analysis}": {"get", "delete"},
        "/api/v1/analyses/{analysis}/tables/{name}": {"get"},
        "/api/v1/runs/{run}/tables/{name}": {"get"},
        "/api/v1/runs/{run}/figures/{name}": {"get"},
        "/api/v1/analyses/{analysis}/database": {"get"},
        "/api/v1/analyses/{analysis}/figures/{name}": {"get"},
        "/api/v1/analyses/{analysis}/rollouts": {"get"},
        "/api/v1/analyses/{analysis}/tokens": {"get"},
        "/api/v1/checkpoints/{checkpoint}": {"delete"},
        "/api/v1/sql": {"post"},
        "/healthz": {"get"},
        "/readyz": {"get"},
        "/metrics": {"get"},
    }
    for path, methods in contract.items():
        assert methods <= set(paths[path]), path
