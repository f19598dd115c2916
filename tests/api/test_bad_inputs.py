"""Twelve bad inputs and more: each a problem document with what and where, and nothing changes."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Checkpoints
from tests.live import Server
from tests.tiny import records


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("bad") / "data"
    env = {"DPPO_CHECKPOINT_ROOTS": str(checkpoints.root), "DPPO_MAX_LINE_BYTES": "20000"}
    with Server(data, env=env) as server:
        assert server.api.post("/runs", json={"run": "good"}).status_code == 201
        assert server.upload("good", records())["state"] == "done"
        yield server


def snapshot(server: Server) -> Any:
    """Everything a user can see, and every file of the store."""
    runs = server.api.get("/runs").json()
    files = sorted(
        str(path.relative_to(server.data_dir))
        for path in server.data_dir.rglob("*")
        if path.is_file() and path.suffix in {".parquet", ".body", ".pieces"}
    )
    return runs, server.api.get("/runs/good/uploads").json(), server.api.get("/runs/good/checkpoints").json(), files


@pytest.fixture
def unchanged(running: Server) -> Iterator[Server]:
    before = snapshot(running)
    yield running
    assert snapshot(running) == before


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def edited(**changes: Any) -> bytes:
    """Two good records of another step and, on line 2, one with something wrong."""
    good = records(step=7)
    bad = {**good[1], **changes}
    return lines(good[0], {name: value for name, value in bad.items() if value is not ...}, good[2])


def with_logprob(value: float) -> bytes:
    row = records(step=7)[1]
    row["rollout_logprobs"][2] = value
    return edited(rollout_logprobs=row["rollout_logprobs"])


REFUSED_FILES = {
    "truncated gzip": (gzip.compress(lines(*records(step=7)))[:-40], 422, None, None, "cut off"),
    "a list one short": (
        edited(rollout_logprobs=records(step=7)[1]["rollout_logprobs"][:-1]),
        422,
        2,
        "rollout_logprobs",
        "one short",
    ),
    "NaN": (with_logprob(float("nan")), 422, 2, "rollout_logprobs[2]", "NaN|not a number|finite"),
    "log-prob 0.5": (with_logprob(0.5), 422, 2, "rollout_logprobs[2]", "positive"),
    "duplicate sample": (edited(sample_id=records(step=7)[0]["sample_id"]), 422, 2, "sample_id", "line 1"),
    "negative id": (
        edited(response_token_ids=[-1] * len(records(step=7)[1]["response_token_ids"])),
        422,
        2,
        "response_token_ids[0]",
        "-1|negative",
    ),
    "a line over the limit": (edited(prompt_text="x" * 30_000), 413, 2, None, "20,?000|line"),
    "a gzip bomb": (gzip.compress((b" " * 1023 + b"\n") * 1024) * 66, 413, None, None, "expands"),
    "a near-miss field name": (edited(rollout_logprob=[0.0]), 422, 2, "rollout_logprob", "rollout_logprobs"),
    "a missing field": (edited(group_id=...), 422, 2, "group_id", "missing|required"),
    "not JSON": (lines(records(step=7)[0]) + b"{oops\n", 422, 2, None, "JSON"),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_bad_file_is_refused_with_line_and_field(unchanged: Server, name: str) -> None:
    body, status, line, field, words = REFUSED_FILES[name]
    job = unchanged.upload("good", body)
    assert job["state"] == "failed"
    problem = job["error"]
    assert problem["status"] == status, problem
    found = problem.get("errors", [{}])[0]
    if line is not None:
        assert found["line"] == line, problem
    if field is not None:
        assert found["field"] == field, problem
    text = " ".join([problem["detail"], *(error["message"] for error in problem.get("errors", []))])
    assert re.search(words, text), text


def test_up_to_twenty_errors_of_one_file(unchanged: Server) -> None:
    rows = [{**row, "rollout_logprobs": [1.0, *row["rollout_logprobs"][1:]]} for row in records(step=7, groups=8)]
    problem = unchanged.upload("good", rows)["error"]
    assert len(problem["errors"]) == 20
    assert [error["line"] for error in problem["errors"]] == list(range(1, 21))


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["detail"]
    return problem


def test_wrong_content_type(unchanged: Server) -> None:
    response = unchanged.api.put("/runs/good/rollouts", content=b"x", headers={"content-type": "text/html"})
    assert "text/html" in refused(response, 415)["detail"]
    response = unchanged.api.post("/runs", content=b'{"run": "x"}', headers={"content-type": "text/plain"})
    assert "application/json" in refused(response, 415)["detail"]


def test_unknown_format(unchanged: Server) -> None:
    response = unchanged.api.put(
        "/runs/good/rollouts", content=b"{}", params={"format": "nemo"}, headers={"content-type": "application/json"}
    )
    assert "nemo-rl" in refused(response, 422)["detail"]


def test_unknown_run(unchanged: Server) -> None:
    response = unchanged.api.put("/runs/nope/rollouts", content=b"x", headers={"content-type": "application/json"})
    assert "nope" in refused(response, 404)["detail"]


def test_a_checkpoint_outside_the_roots_through_a_symlink(
    unchanged: Server, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    link = checkpoints.root / "link"
    link.symlink_to(outside)
    try:
        response = unchanged.api.post("/runs/good/checkpoints", json={"step": 0, "path": str(link)})
        problem = refused(response, 422)
        assert problem["errors"][0]["field"] == "path"
        assert "outside the checkpoint roots" in problem["detail"]
        inside = checkpoints.root / "half"
        inside.mkdir()
        (inside / "config.json").write_text('{"vocab_size": 5}')
        (outside / "model.safetensors").write_bytes(b"")
        (inside / "model.safetensors").symlink_to(outside / "model.safetensors")
        response = unchanged.api.post("/runs/good/checkpoints", json={"step": 0, "path": str(inside)})
        assert "leads outside the checkpoint roots" in refused(response, 422)["detail"]
    finally:
        link.unlink()


def test_another_host(unchanged: Server) -> None:
    response = unchanged.api.get("/runs", headers={"host": "evil.example:8000"})
    assert "evil.example" in refused(response, 421)["detail"]
    page = httpx.get(f"{unchanged.url}/", headers={"host": "evil.example", "accept": "text/html"})
    assert page.status_code == 421
    for name in ("localhost:1", "127.0.0.1", "[::1]:9", "LOCALHOST"):
        assert unchanged.api.get("/runs", headers={"host": name}).status_code == 200, name


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"run": "a/b"}, "run"),
        ({"run": "../x"}, "run"),
        ({"run": ""}, "run"),
        ({"run": "x" * 101}, "run"),
        ({}, "run"),
        ({"run": "t0", "sampling": {"temperature": 0}}, "sampling"),
        ({"run": "tk", "sampling": {"top_k": 1}}, "sampling"),
        ({"run": "tp", "sampling": {"top_p": 1.5}}, "sampling.top_p"),
        ({"run": "m", "sampling": {"logprobs_mode": "both"}}, "sampling.logprobs_mode"),
        ({"run": "u", "colour": "blue"}, "colour"),
        ({"run": "tok", "tokenizer": "/etc"}, "tokenizer"),
    ],
)
def test_a_bad_run_is_refused(unchanged: Server, body: dict[str, Any], field: str) -> None:
    problem = refused(unchanged.api.post("/runs", json=body), 422)
    assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"thresholds": {"delta_tv": 0.1, "delta_tv_low": 0.1}}, "thresholds"),
        ({"thresholds": {"eps_low": -0.1}}, "thresholds.eps_low"),
        ({"thresholds": {"epsilon": 0.1}}, "thresholds.epsilon"),
        ({"anchor": "behaviour"}, "anchor"),
        ({"top_k": 0}, "top_k"),
        ({"steps": []}, "steps"),
        ({"steps": [99]}, "steps"),
        ({"source": "logged"}, "evaluated_at"),
        ({"evaluated_at": "logged"}, "steps"),
        ({"old": "c1"}, "new"),
        ({"source": "logged", "evaluated_at": "end"}, "evaluated_at"),
        ({"source": "logged", "evaluated_at": "start"}, "evaluated_at"),
    ],
)
def test_a_bad_analysis_is_refused(unchanged: Server, body: dict[str, Any], field: str) -> None:
    problem = refused(unchanged.api.post("/runs/good/analyses", json=body), 422)
    assert problem["errors"][0]["field"] == field


def test_an_existing_run_and_unknown_things(unchanged: Server) -> None:
    refused(unchanged.api.post("/runs", json={"run": "good"}), 409)
    for path in (
        "/runs/x",
        "/jobs/x",
        "/uploads/x",
        "/analyses/x",
        "/analyses/x/tables/cells",
        "/analyses/x/database",
        "/analyses/x/figures/ratio_plane",
        "/nothing",
    ):
        refused(unchanged.api.get(path), 404)
    for path in ("/runs/x", "/uploads/x", "/analyses/x", "/checkpoints/x", "/jobs/x"):
        refused(unchanged.api.delete(path), 404)
    refused(unchanged.api.patch("/runs"), 405)
    refused(unchanged.api.post("/runs", content=b"{", headers={"content-type": "application/json"}), 422)


def test_the_same_sample_with_other_content_is_a_conflict(unchanged: Server) -> None:
    row = records()[0]
    problem = unchanged.upload("good", [{**row, "reward": 0.25}])["error"]
    assert problem["status"] == 409
    assert row["sample_id"] in json.dumps(problem)
