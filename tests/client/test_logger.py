"""The logger against a real service: every step arrives once, also through kills, restarts and refusals."""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, RolloutLogger
from tests.live import REPOSITORY, Server
from tests.tiny import records

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


def stored(server: Server, run: str) -> dict[int, int]:
    """Responses per step, as readers see them."""
    with Client(server.url) as client:
        table = client.sql(f"SELECT step, count(*) AS n FROM rollouts WHERE run = '{run}' GROUP BY step ORDER BY step")
    return {row["step"]: row["n"] for row in table.to_pylist()}


def waiting(spool: Path) -> list[list[dict[str, Any]]]:
    """What is sealed in a spool, read as anyone can read it."""
    files = sorted(spool.glob("*.ndjson.gz"))
    return [[json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()] for file in files]


def wait_for(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Tensor:
    """Looks like a tensor: its values come out by `tolist()` only."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def tolist(self) -> Any:
        return self._values


def test_steps_arrive(server: Server, tmp_path: Path) -> None:
    sampling = {"temperature": 0.7, "logprobs_mode": "processed"}
    with RolloutLogger(server.url, "live", spool=tmp_path / "spool", sampling=sampling, framework="mine") as logger:
        for step in range(3):
            assert logger.log(step, records(step=step))
    assert stored(server, "live") == {0: 12, 1: 12, 2: 12}
    run = server.api.get("/runs/live").json()
    assert (run["framework"], run["sampling"]["temperature"]) == ("mine", 0.7)
    assert not waiting(tmp_path / "spool")


def test_tensors_and_unknown_numbers(tmp_path: Path) -> None:
    row = records(groups=1, samples=1)[0]
    n = len(row["response_token_ids"])
    row["response_token_ids"] = Tensor(row["response_token_ids"])
    row["rollout_logprobs"] = [Tensor(math.nan), *(Tensor(-0.5) for _ in range(n - 1))]
    row["old_logprobs"] = array("d", [-0.25] * n)
    row["reward"] = Tensor(1.5)
    row["meta"] = {"seen": (Tensor([1, 2]), None), 3: "three"}
    logger = RolloutLogger(NOWHERE, "live", spool=tmp_path)
    assert logger.log(Tensor7(), iter([row]))
    wait_for(lambda: waiting(tmp_path))
    assert not logger.close(0)
    ((kept,),) = waiting(tmp_path)
    assert kept["step"] == 7  # the call's, not the record's
    assert kept["rollout_logprobs"] == [None] + [-0.5] * (n - 1)
    assert kept["old_logprobs"] == [-0.25] * n
    assert kept["reward"] == 1.5
    assert kept["meta"] == {"seen": [[1, 2], None], "3": "three"}


class Tensor7:
    """A whole number of another library's."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("step", "rows", "word"),
    [
        (1.0, [], "whole number"),
        (True, [], "whole number"),
        (-1, [], "whole number"),
        (2**32, [], "whole number"),
        (0, {"reward": [1.0]}, "list of dicts"),
        (0, None, "list of dicts"),
        (0, [[1]], "a dict"),
    ],
)
def test_no_record_at_all_is_said_at_once(step: Any, rows: Any, word: str, tmp_path: Path) -> None:
    logger = RolloutLogger(NOWHERE, "live", spool=tmp_path)
    with pytest.raises(ValueError, match=word):
        logger.log(step, rows)
    assert logger.close()
    with pytest.raises(ValueError, match="run names"):
        RolloutLogger(NOWHERE, "../live", spool=tmp_path)


def test_nothing_else_reaches_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = RolloutLogger(NOWHERE, "live", spool=tmp_path, max_bytes=2000)
    assert not logger.log(0, [{"meta": {"model": object()}}])
    assert not logger.log(0, [{"meta": {"model": object()}}])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "object is no JSON" in caplog.text
    caplog.clear()
    taken = [logger.log(step, records(step=step)) for step in range(20)]
    assert taken[0]
    assert not taken[-1]
    assert sum("steps are dropped" in record.message for record in caplog.records) == 1
    assert not logger.close(0.1)
    assert not logger.log(0, records())
    assert "is closed" in caplog.text
    assert len(waiting(tmp_path)) == sum(taken)  # nothing that was acknowledged is dropped


def test_a_spool_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = RolloutLogger(NOWHERE, "live", spool=tmp_path / "spool")
    (tmp_path / "spool").rename(tmp_path / "moved")
    assert not logger.log(0, records())
    assert "step 0 is not logged: FileNotFoundError" in caplog.text
    logger.close(0)


def test_no_step_is_lost_while_the_service_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dppo.logger")
    server = Server(tmp_path / "data").start()
    port = server.url.rpartition(":")[2]
    logger = RolloutLogger(server.url, "live", spool=tmp_path / "spool")
    assert logger.log(0, records(step=0))
    assert logger.flush(30)
    assert logger.log(1, records(step=1))
    time.sleep(0.1)  # an import is under way
    server.stop(signal.SIGKILL)
    gone = time.monotonic()
    step = 2
    while time.monotonic() < gone + 3:
        assert logger.log(step, records(step=step))
        step += 1
        time.sleep(0.1)
    again = Server(tmp_path / "data", "--port", port).start()
    try:
        assert logger.log(step, records(step=step))
        assert logger.close(60)
        assert stored(again, "live") == dict.fromkeys(range(step + 1), 12)
    finally:
        again.stop()
    assert sum("takes no steps" in record.message for record in caplog.records) == 1
    assert sum("takes steps again" in record.message for record in caplog.records) == 1


TRAINER = """
import sys, time
from service.client import RolloutLogger
from tests.tiny import records
logger = RolloutLogger(sys.argv[1], "live", spool=sys.argv[2])
for step in range(1000):
    assert logger.log(step, records(step=step))
    print(step, flush=True)
    time.sleep(.01)
"""


def test_a_killed_trainer_loses_no_acknowledged_step(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINER, NOWHERE, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout
        for line in trainer.stdout:
            if int(line) == 20:
                trainer.kill()
                break
        last = max([20, *map(int, trainer.stdout.read().split())])
    with RolloutLogger(server.url, "live", spool=tmp_path) as logger:
        assert logger.flush(60)
    found = stored(server, "live")
    assert list(found.values()) == [12] * len(found)
    assert set(range(last + 1)) <= found.keys() <= set(range(last + 2))  # the kill may fall between disk and print


def test_what_was_left_is_sent_once_even_if_it_was_there_already(server: Server, tmp_path: Path) -> None:
    away = RolloutLogger(NOWHERE, "live", spool=tmp_path / "spool")
    for step in range(3):
        away.log(step, records(step=step))
    wait_for(lambda: len(waiting(tmp_path / "spool")) == 3)
    away.close(0)
    first = min((tmp_path / "spool").glob("*.ndjson.gz"))
    with Client(server.url) as client:
        client.create_run("live")
        client.wait(client.upload("live", first))  # the service had it, and the trainer died before it heard so
    with RolloutLogger(server.url, "live", spool=tmp_path / "spool"):
        pass
    assert stored(server, "live") == {0: 12, 1: 12, 2: 12}


def test_a_refused_step_is_kept_aside(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = records(step=1)
    bad[3]["rollout_logprobs"][0] = 0.5
    worse = [{"step": 3, "reward": 1.0}]
    with RolloutLogger(server.url, "live", spool=tmp_path) as logger:
        for step, rows in enumerate([records(step=0), bad, records(step=2), worse]):
            assert logger.log(step, rows)
        assert logger.flush(60)
    assert stored(server, "live") == {0: 12, 2: 12}
    first, second = sorted((tmp_path / "rejected").glob("*.problem.json"))
    (error,) = json.loads(first.read_text())["errors"]
    assert (error["line"], error["field"]) == (4, "rollout_logprobs[0]")
    assert json.loads(second.read_text())["status"] == 422
    assert len(waiting(tmp_path / "rejected")) == 2
    said = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "a step was refused" in said[0].message


def test_a_step_logged_again(server: Server, tmp_path: Path) -> None:
    with RolloutLogger(server.url, "live", spool=tmp_path) as logger:
        logger.log(0, records(step=0))
        logger.flush(30)
        logger.log(0, records(step=0, seed=1))
    assert "409" in next((tmp_path / "rejected").glob("*.problem.json")).read_text()
    with RolloutLogger(server.url, "live", spool=tmp_path, replace=True) as logger:
        logger.log(0, records(step=0, seed=1, groups=2))
    assert stored(server, "live") == {0: 8}


def test_a_torn_file_is_kept_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "0-s0-00.raw").write_bytes(b"\xdb\x05")
    with RolloutLogger(NOWHERE, "live", spool=tmp_path):
        wait_for(lambda: (tmp_path / "rejected" / "0-s0-00.problem.json").exists())
    assert (tmp_path / "rejected" / "0-s0-00.raw").exists()
    assert "cannot be read" in caplog.text


def test_processes_share_a_spool_and_one_sends(server: Server, tmp_path: Path) -> None:
    with RolloutLogger(server.url, "live", spool=tmp_path) as first:
        first.log(0, records(step=0))
        assert first.flush(30)
        with RolloutLogger(NOWHERE, "live", spool=tmp_path) as second:  # alone it would reach nobody
            second.log(0, [{**row, "sample_id": f"1/{row['sample_id']}"} for row in records(step=0)])
            assert second.flush(30)
    assert stored(server, "live") == {0: 24}


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("torch", "duckdb", "numpy", "pyarrow", "pandas", "transformers", "trl", "plotly", "pydantic", "msgspec")
    ours = "service.client, service.client.hooks.trl, service.client.hooks.verl"
    code = f"import sys, {ours}; print([name for name in {heavy} if name in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"
