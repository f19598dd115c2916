"""Crashes, cancellation, deletion and readers beside it all: real processes, killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import Checkpoints
from tests.live import Server
from tests.tiny import records

STEPS = 2


def many(step: int, **extra: Any) -> list[dict[str, Any]]:
    """About ten shards of 2,048 tokens."""
    return records(step=step, groups=10, samples=10, length=(150, 240), **extra)


@pytest.fixture
def fresh(tmp_path: Path, checkpoints: Checkpoints) -> Iterator[Server]:
    with Server(tmp_path / "data", env={"DPPO_CHECKPOINT_ROOTS": str(checkpoints.root)}) as running:
        yield running


def prepare(server: Server, checkpoints: Checkpoints, run: str = "r") -> None:
    assert server.api.post("/runs", json={"run": run}).status_code == 201
    for step in range(STEPS):
        assert server.upload(run, many(step))["state"] == "done"
    for step in range(STEPS + 1):
        body = {"step": step, "path": str(checkpoints.steps[step])}
        assert server.api.post(f"/runs/{run}/checkpoints", json=body).status_code == 201


def start(server: Server, run: str = "r", **body: Any) -> dict[str, Any]:
    response = server.api.post(f"/runs/{run}/analyses", json=body)
    assert response.status_code == 202, response.text
    return dict(response.json())


def wait_for_shards(server: Server, count: int) -> None:
    """Until `count` shards of some scoring are on disk."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(list(server.data_dir.glob("work/x*/h*.parquet"))) >= count:
            return
        time.sleep(0.005)
    raise AssertionError("no shards appeared")


def worker_pid(server: Server) -> int:
    assert server.process is not None
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if b"service.worker" in command and parent == server.process.pid:
                return int(entry.name)
    raise AssertionError("the worker does not run")


def differences(one: Path, other: Path) -> int:
    """Rows of `tokens` that are in one data directory and not in the other, both ways; ids of analyses aside."""
    with duckdb.connect() as connection:
        for name, path in (("a", one), ("b", other)):
            connection.execute(f"ATTACH '{path}/lens.duckdb' AS {name} (READ_ONLY)")
            connection.execute(f"SET VARIABLE dppo_data = '{path}'")
            connection.execute(f"CREATE TABLE t_{name} AS SELECT * EXCLUDE (analysis, run) FROM {name}.tokens")
        (rows,) = connection.execute("SELECT count(*) FROM t_a").fetchone() or (0,)
        assert rows == sum(len(row["response_token_ids"]) for step in range(STEPS) for row in many(step))
        (found,) = connection.execute(
            "SELECT (SELECT count(*) FROM (FROM t_a EXCEPT ALL FROM t_b)) "
            "+ (SELECT count(*) FROM (FROM t_b EXCEPT ALL FROM t_a))"
        ).fetchone() or (-1,)
        return int(found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Path:
    """The data directory of a run that nothing happened to."""
    data = tmp_path_factory.mktemp("undisturbed") / "data"
    with Server(data, env={"DPPO_CHECKPOINT_ROOTS": str(checkpoints.root)}) as server:
        prepare(server, checkpoints)
        assert server.wait(start(server))["state"] == "done"
    return data


def test_the_worker_is_killed_in_the_middle(fresh: Server, checkpoints: Checkpoints, undisturbed: Path) -> None:
    prepare(fresh, checkpoints)
    job = start(fresh)
    wait_for_shards(fresh, 3)
    os.kill(worker_pid(fresh), signal.SIGKILL)
    assert fresh.wait(job)["state"] == "done"
    assert differences(undisturbed, fresh.data_dir) == 0


def test_the_service_is_killed_in_the_middle(fresh: Server, checkpoints: Checkpoints, undisturbed: Path) -> None:
    prepare(fresh, checkpoints)
    job = start(fresh)
    wait_for_shards(fresh, 3)
    orphan = worker_pid(fresh)
    fresh.stop(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{orphan}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{orphan}").exists(), "the worker must end with the service"
    finished = len(list(fresh.data_dir.glob("work/x*/h*.parquet")))
    assert finished >= 3
    fresh.start()
    done = fresh.wait(job)  # nobody asked again
    assert done["state"] == "done"
    assert done["progress"]["tokens_done"] == done["progress"]["tokens_total"]
    assert differences(undisturbed, fresh.data_dir) == 0
    assert not list(fresh.data_dir.glob("work/x*"))


READER = """
import sys, time, duckdb
path, stop = sys.argv[1:]
expected = {0: int(sys.stdin.readline()), 1: int(sys.stdin.readline())}
import os
reads, before, between, seen = 0, 0, 0, set()
while not os.path.exists(stop):
    with duckdb.connect(path, read_only=True) as connection:
        found = connection.execute("SELECT analysis, step, count(*) FROM tokens GROUP BY analysis, step").fetchall()
        before += not found and connection.execute("SELECT count(*) FROM runs").fetchone()[0] > 0
        between += 0 < len(found) < 2 * len(expected)
        for analysis, step, n in found:
            assert n == expected[step], (step, n, expected)
            seen.add((analysis, step))
        connection.execute("SELECT count(*), sum(len(prompt_text)) FROM rollouts").fetchone()
        connection.execute("SELECT * FROM step_summary").fetchall()
        connection.execute("SELECT * FROM analysis_scorings").fetchall()
    reads += 1
print(reads, before, between, len(seen))
"""


def test_a_reader_beside_upload_scoring_and_publication(
    fresh: Server, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(fresh.data_dir / "lens.duckdb"), str(stop)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None
    reader.stdin.write(
        "".join(f"{sum(len(row['response_token_ids']) for row in many(step))}\n" for step in range(STEPS))
    )
    reader.stdin.flush()
    prepare(fresh, checkpoints)
    for anchor in ("rollout", "old"):
        assert fresh.wait(start(fresh, anchor=anchor))["state"] == "done"
    assert fresh.api.post("/runs", json={"run": "another"}).status_code == 201
    time.sleep(0.5)
    stop.touch()
    out, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    reads, before, between, seen = map(int, out.split())
    assert reads > 5
    assert before > 0  # while the run was uploaded and its first step scored
    assert between > 0  # while others were
    assert seen == 2 * STEPS


def test_cancel_keeps_what_is_finished_and_nothing_half(fresh: Server, checkpoints: Checkpoints) -> None:
    prepare(fresh, checkpoints)
    job = start(fresh)
    wait_for_shards(fresh, 2)
    assert fresh.api.delete(f"/jobs/{job['id']}").status_code == 202
    assert fresh.wait(job)["state"] == "cancelled"
    with duckdb.connect(fresh.data_dir / "lens.duckdb", read_only=True) as connection:
        counts = dict(connection.execute("SELECT step, count(*) FROM tokens GROUP BY step").fetchall())
    for step, n in counts.items():
        assert n == sum(len(row["response_token_ids"]) for row in many(step))
    shards = len(list(fresh.data_dir.glob("work/x*/h*.parquet")))
    assert shards >= 2 or counts
    again = fresh.wait(start(fresh))
    assert again["state"] == "done", again


def test_finished_steps_are_seen_while_others_are_scored_and_after_a_cancellation(fresh: Server) -> None:
    """Of steps that are scored faster than they are published, some wait: not the first, and not beyond the job."""
    fresh.api.post("/runs", json={"run": "r"})
    steps = [row for step in range(80) for row in records(step=step)]
    for row in steps:
        row["old_logprobs"] = row["rollout_logprobs"]
    assert fresh.upload("r", steps)["state"] == "done"
    job = start(fresh, source="logged")
    (asked,) = fresh.api.get("/runs/r/analyses").json()

    def finished() -> set[int]:
        of = fresh.api.get(f"/analyses/{asked['analysis']}").json()["steps"]
        return {step["step"] for step in of if step["finished"]}

    def seen() -> set[int]:
        with duckdb.connect(fresh.data_dir / "lens.duckdb", read_only=True) as connection:
            return {step for (step,) in connection.execute("SELECT DISTINCT step FROM tokens").fetchall()}

    deadline = time.monotonic() + 120
    while not (shown := seen()) or len(finished()) < 5:
        assert time.monotonic() < deadline
    assert fresh.api.get(f"/jobs/{job['id']}").json()["state"] == "running"
    assert 0 in shown
    assert fresh.api.delete(f"/jobs/{job['id']}").status_code == 202
    assert fresh.wait(job)["state"] == "cancelled"
    assert 5 <= len(finished()) < 80
    assert seen() == finished()


def test_a_shard_that_kills_the_worker_three_times_fails_the_job(fresh: Server, checkpoints: Checkpoints) -> None:
    prepare(fresh, checkpoints)
    job = start(fresh)
    deadline = time.monotonic() + 120
    killed: set[int] = set()
    while fresh.api.get(f"/jobs/{job['id']}").json()["state"] in ("queued", "running") and time.monotonic() < deadline:
        try:
            pid = worker_pid(fresh)
        except AssertionError:
            continue
        if pid not in killed:  # before it has finished importing torch, so always on the same shard
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.01)
    done = fresh.wait(job)
    assert done["state"] == "failed"
    assert "SIGKILL" in done["error"]["detail"]
    assert "s0/g" in done["error"]["detail"], "it names the samples"


def test_uploads_are_identified_by_their_bytes(fresh: Server) -> None:
    fresh.api.post("/runs", json={"run": "r"})
    rows = records()
    first, second = fresh.upload("r", rows), fresh.upload("r", rows)
    assert first["result"] == second["result"]
    assert len(fresh.api.get("/runs/r/uploads").json()) == 1
    overlap = fresh.upload("r", rows + records(groups=4)[12:])
    assert (overlap["result"]["rollouts"], overlap["result"]["skipped"]) == (4, 12)
    assert fresh.api.get("/runs/r").json()["n_rollouts"] == 16


def test_replacing_a_step_marks_its_analyses_stale(fresh: Server, checkpoints: Checkpoints) -> None:
    fresh.api.post("/runs", json={"run": "r"})
    rows = [{**row, "new_logprobs": row["rollout_logprobs"]} for row in records()]
    fresh.upload("r", rows)
    analysis = fresh.analyze("r", source="logged")["result"]["analysis"]
    changed = [{**row, "reward": 0.125} for row in rows]
    assert fresh.upload("r", changed)["error"]["status"] == 409
    assert not fresh.api.get(f"/analyses/{analysis}").json()["stale"]
    replaced = fresh.upload("r", changed, replace="step")
    assert replaced["state"] == "done", replaced
    assert fresh.api.get(f"/analyses/{analysis}").json()["stale"]
    assert fresh.api.get("/runs/r").json()["n_rollouts"] == len(rows)
    with duckdb.connect(fresh.data_dir / "lens.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT DISTINCT reward FROM rollouts").fetchall() == [(0.125,)]
    assert [upload["visible"] for upload in fresh.api.get("/runs/r/uploads").json()] == [False, True]
    again = fresh.analyze("r", source="logged")["result"]["analysis"]
    assert again != analysis
    back = fresh.upload("r", rows, replace="step")  # the first file once more
    assert back["state"] == "done"
    assert [upload["visible"] for upload in fresh.api.get("/runs/r/uploads").json()] == [False, True]


def test_deleting(tmp_path: Path, checkpoints: Checkpoints) -> None:
    env = {"DPPO_CHECKPOINT_ROOTS": str(checkpoints.root), "DPPO_TRASH_SECONDS": "0"}
    with Server(tmp_path / "data", env=env) as server:
        server.api.post("/runs", json={"run": "r"})
        rows = [{**row, "new_logprobs": row["rollout_logprobs"]} for row in records() + records(step=1)]
        upload = server.upload("r", rows)["result"]["upload"]
        analysis = server.analyze("r", source="logged")["result"]["analysis"]
        other = server.analyze("r", source="logged", thresholds={"eps_low": 0.1})["result"]["analysis"]
        reader = duckdb.connect(server.data_dir / "lens.duckdb", read_only=True)  # opened before the deletion
        assert server.api.delete(f"/analyses/{analysis}").status_code == 204
        assert len(list(server.data_dir.glob("tokens/scoring=x*"))) == 2, "the other analysis uses them"
        assert server.api.delete(f"/analyses/{other}").status_code == 204
        assert server.api.delete(f"/uploads/{upload}").status_code == 204
        assert reader.execute("SELECT count(*) FROM tokens WHERE analysis = ?", [other]).fetchone() != (0,)
        reader.close()
        with duckdb.connect(server.data_dir / "lens.duckdb", read_only=True) as connection:
            for table in ("tokens", "rollouts", "analyses", "step_summary"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert server.api.delete("/runs/r").status_code == 204
        assert server.api.get("/runs").json() == []
        server.stop()
        server.start()  # sweeps
        assert not list(server.data_dir.glob("tokens/scoring=x*"))
        assert not list(server.data_dir.glob("rollouts/r*/*/*.parquet"))


def test_one_data_directory_one_service(fresh: Server) -> None:
    assert fresh.process is not None
    second = subprocess.run(
        [sys.executable, "-m", "service.cli.main", "serve", "--port", "0", "--data-dir", str(fresh.data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert f"PID {fresh.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_newer_schema_is_refused_in_words(fresh: Server) -> None:
    fresh.stop()
    with duckdb.connect(fresh.data_dir / "catalog.duckdb") as connection:
        ((own,),) = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall()
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    second = subprocess.run(
        [sys.executable, "-m", "service.cli.main", "serve", "--port", "0", "--data-dir", str(fresh.data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "newer version" in second.stderr
    assert "Traceback" not in second.stderr
    with duckdb.connect(fresh.data_dir / "catalog.duckdb") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [own])
    fresh.start()


def test_a_moved_data_directory_is_read_through_a_variable(fresh: Server, tmp_path: Path) -> None:
    fresh.api.post("/runs", json={"run": "r"})
    fresh.upload("r", [{**row, "new_logprobs": row["rollout_logprobs"]} for row in records()])
    analysis = fresh.analyze("r", source="logged")["result"]["analysis"]
    fresh.stop()
    moved = tmp_path / "moved's"
    fresh.data_dir.rename(moved)
    with duckdb.connect(moved / "lens.duckdb", read_only=True) as connection:
        connection.execute("SET VARIABLE dppo_data = ?", [str(moved)])
        (n,) = connection.execute("SELECT count(*) FROM tokens WHERE analysis = ?", [analysis]).fetchone() or (0,)
    assert n == sum(len(row["response_token_ids"]) for row in records())
    moved.rename(fresh.data_dir)
    fresh.start()
