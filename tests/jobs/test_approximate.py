"""A text-only log through a real server: every page, table and answer about it says that it is approximate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from tests.conftest import Checkpoints
from tests.ingest.adapters.words import words
from tests.live import Server


@pytest.fixture(scope="module")
def tokenizer(checkpoints: Checkpoints) -> str:
    return words(checkpoints.root / "words")


def create(server: Server, **fields: Any) -> None:
    assert server.api.post("/runs", json={"run": "r", "sampling": {"temperature": 1.0}, **fields}).status_code == 201


def verl(index: int) -> dict[str, Any]:
    """A response as verl logs it."""
    output = "4 is it" if index else "four"
    return {"input": "2+2?", "output": output, "gts": "4", "score": 1.0, "step": 0, "uid": f"q_{index}_0"}


def test_said_everywhere(server: Server, checkpoints: Checkpoints, tokenizer: str) -> None:
    create(server, tokenizer=tokenizer)
    job = server.upload("r", [verl(0), verl(1)])
    assert job["state"] == "done", job
    (warning,) = [one for one in job["result"]["warnings"] if one["code"] == "approximate"]
    assert warning["count"] == 2
    for step in (0, 1):
        body = {"step": step, "path": str(checkpoints.steps[step])}
        assert server.api.post("/runs/r/checkpoints", json=body).status_code == 201
    job = server.analyze("r")
    assert job["state"] == "done", job
    assert [one for one in job["warnings"] if one.startswith("2 of 2 responses are approximate: token ids made from")]
    analysis = job["result"]["analysis"]
    assert server.api.get(f"/analyses/{analysis}").json()["warnings"] == job["warnings"]
    assert_on_pages(server.url, analysis)
    with duckdb.connect(server.data_dir / "lens.duckdb", read_only=True) as connection:
        rows = connection.execute("SELECT meta, response_tokens FROM rollouts ORDER BY sample_id").fetchall()
        (tokens,) = connection.execute("SELECT list(token ORDER BY sample_id, position) FROM tokens").fetchone() or ()
    assert [json.loads(meta)["approximate_token_ids"] for meta, _ in rows] == [["prompt", "response"]] * 2
    assert [count for _, count in rows] == [1, 3]
    assert tokens == ["four", "4", " is", " it"]


def assert_on_pages(url: str, analysis: str) -> None:
    for path in ("runs/r", f"analyses/{analysis}", f"analyses/{analysis}/rollout?step=0&sample_id=q_0_0"):
        page = httpx.get(f"{url}/{path}")
        assert page.status_code == 200
        assert "responses are approximate: token ids made from text" in page.text, path
    assert "approximate: made from text" in page.text  # the response's own facts


def test_exact_logs_say_nothing(server: Server, checkpoints: Checkpoints) -> None:
    create(server)
    row = {"step": 0, "sample_id": "a", "group_id": "g", "prompt_token_ids": [4], "response_token_ids": [5, 6]}
    logged = {"rollout_logprobs": [-1, -2], "new_logprobs": [-1, -1], "response_mask": [1, 1], "advantage": 1}
    assert server.upload("r", [{**row, **logged}])["result"]["warnings"] == []
    job = server.analyze("r", source="logged")
    assert job["state"] == "done", job
    assert not [one for one in job["warnings"] if "approximate" in one]


def test_a_run_without_a_tokenizer(server: Server) -> None:
    """The error says how to give one, and nothing is imported."""
    create(server)
    job = server.upload("r", [verl(0)])
    assert job["state"] == "failed"
    assert job["error"]["status"] == 422
    assert "`dppo upload RUN FILE --tokenizer DIR`" in job["error"]["detail"]
    assert job["error"]["errors"][0]["field"] == "tokenizer"
    assert server.api.get("/runs/r/uploads").json() == []


def test_tokenizing_stays_out_of_the_server(server: Server, tokenizer: str) -> None:
    """The API process never loads the tokenizer's library; the import's child does."""
    create(server, tokenizer=tokenizer)
    assert server.upload("r", [verl(0)])["state"] == "done"
    assert server.process is not None
    maps = Path(f"/proc/{server.process.pid}/maps")
    if maps.exists():
        assert "tokenizers" not in maps.read_text()
