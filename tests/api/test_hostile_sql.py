"""The hostile statements over HTTP: each is a 4xx with a reason, nothing is written, and the service lives."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live import Server
from tests.store.hostile_statements import Hostile, written

LIMITS = {"DPPO_SQL_SECONDS": "0.5", "DPPO_SQL_MEMORY_BYTES": str(256 << 20), "DPPO_SQL_BYTES": str(8 << 20)}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("guarded") / "data", env=LIMITS) as server:
        yield server


def test_every_hostile_statement_is_a_4xx_and_the_service_lives(guarded: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def outcome(hostile: Hostile) -> str | None:
        response = guarded.api.post("/sql", json={"sql": hostile.at(out=out, data=guarded.data_dir)})
        problem = response.headers["content-type"] == "application/problem+json" and response.json()["detail"]
        return None if 400 <= response.status_code < 500 and problem else f"{response.status_code}: {hostile.sql}"

    statements = written()
    assert len(statements) >= 50
    with ThreadPoolExecutor(2) as pool:
        assert [wrong for wrong in pool.map(outcome, statements) if wrong] == []
    assert list(out.iterdir()) == []
    assert guarded.process is not None
    assert guarded.process.poll() is None
    assert guarded.api.post("/sql", json={"sql": "SELECT 1 AS one"}).status_code == 200
