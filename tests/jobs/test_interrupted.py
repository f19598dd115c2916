"""Uploads that end in the middle: nothing of them is seen or left, and sending the file again is enough."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from service.layout import SEED
from tests.live import Server
from tests.tiny import records

ROWS = 100

CLIENT = """
import sys, time, httpx
address, path = sys.argv[1:]
body = open(path, "rb").read()

def half():
    yield body[: len(body) // 2]
    time.sleep(600)

headers = {"content-type": "application/x-ndjson", "content-length": str(len(body))}
httpx.put(address, content=half(), headers=headers, timeout=None)
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as running:
        assert running.api.post("/runs", json={"run": "r"}).status_code == 201
        yield running


def log(folder: Path, text_bytes: int) -> Path:
    """A file of `ROWS` responses with prompts of so many bytes."""
    file = folder / "rollouts.jsonl"
    rows = records(groups=10, samples=10, prompt_text="x" * text_bytes)
    assert len(rows) == ROWS
    file.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return file


@pytest.fixture
def client(fresh: Server, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has sent half of a file of 4 MB, which the service is writing, and waits."""
    command = [sys.executable, "-c", CLIENT, f"{fresh.url}/api/v1/runs/r/rollouts", str(log(tmp_path, 40_000))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: any(path.stat().st_size for path in incoming(fresh)))
        yield process
        process.kill()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def incoming(server: Server) -> list[Path]:
    return list(server.data_dir.glob("incoming/*"))


def pieces(server: Server) -> list[Path]:
    return [path for path in server.data_dir.glob("rollouts/*/*/*.parquet") if path.stem != SEED]


def seen(server: Server) -> tuple[int, int]:
    """Responses and different samples that a reader of lens.duckdb sees."""
    with duckdb.connect(server.data_dir / "lens.duckdb", read_only=True) as connection:
        found = connection.execute("SELECT count(*), count(DISTINCT sample_id) FROM rollouts").fetchone()
    assert found is not None
    return found


def assert_nothing_is_there(server: Server) -> None:
    assert server.api.get("/runs/r").json()["n_rollouts"] == 0
    assert server.api.get("/runs/r/uploads").json() == server.api.get("/runs/r/jobs").json() == []
    assert seen(server) == (0, 0)
    assert incoming(server) == pieces(server) == []


def assert_it_is_there_once(server: Server) -> None:
    assert server.api.get("/runs/r").json()["n_rollouts"] == ROWS
    assert [upload["rollouts"] for upload in server.api.get("/runs/r/uploads").json()] == [ROWS]
    assert seen(server) == (ROWS, ROWS)
    assert incoming(server) == []
    assert sum(pq.read_metadata(path).num_rows for path in pieces(server)) == ROWS


def test_the_client_is_killed_in_the_middle(fresh: Server, client: subprocess.Popen[bytes], tmp_path: Path) -> None:
    client.kill()
    wait_for(lambda: not incoming(fresh))
    assert_nothing_is_there(fresh)
    assert fresh.upload("r", (tmp_path / "rollouts.jsonl").read_bytes())["state"] == "done"
    assert_it_is_there_once(fresh)


@pytest.mark.usefixtures("client")
def test_the_service_is_killed_in_the_middle_of_a_body(fresh: Server, tmp_path: Path) -> None:
    fresh.stop(signal.SIGKILL)
    (body,) = incoming(fresh)
    assert body.stat().st_size < (tmp_path / "rollouts.jsonl").stat().st_size
    assert seen(fresh) == (0, 0)
    fresh.start()
    assert_nothing_is_there(fresh)
    assert fresh.upload("r", (tmp_path / "rollouts.jsonl").read_bytes())["state"] == "done"
    assert_it_is_there_once(fresh)


def test_the_service_is_killed_in_the_middle_of_an_import(fresh: Server, tmp_path: Path) -> None:
    body = log(tmp_path, 1_200_000).read_bytes()  # several buffers of the writer, so that it is killed between them
    job = fresh.api.put("/runs/r/rollouts", content=body, headers={"content-type": "application/x-ndjson"}).json()
    wait_for(lambda: any(fresh.data_dir.glob("incoming/*.pieces/*")))
    fresh.stop(signal.SIGKILL)
    assert seen(fresh) == (0, 0)
    assert pieces(fresh) == []
    # as if it had been killed a moment later, when pieces are in place and the catalog does not know them yet
    half = min(fresh.data_dir.glob("incoming/*.pieces/*"))
    moved = fresh.data_dir / "rollouts" / "r0" / "0" / "p0.parquet"
    moved.parent.mkdir(parents=True)
    shutil.copy(half, moved)
    fresh.start()
    assert not moved.exists()
    assert fresh.wait(job)["state"] == "done"  # it was acknowledged, so nobody need ask again
    assert_it_is_there_once(fresh)
    assert fresh.upload("r", body)["result"] == fresh.wait(job)["result"]  # and asking again is harmless
    assert_it_is_there_once(fresh)
