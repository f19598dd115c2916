"""The import in its own process, as the service runs it."""

from __future__ import annotations

import gzip
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.errors import BadRecord, Conflict, TooLarge, UnsupportedMedia
from service.process import Child, ChildDied
from tests.ingest.files import Importing, ndjson, parquet, record


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    process = Child("service.ingest")
    yield process
    process.kill()


def test_import(child: Child, importing: Importing) -> None:
    records = [record("a"), record("b", step=1, reward=1)]
    content = gzip.compress(ndjson(records))
    events: list[dict[str, Any]] = []
    manifest = child.call(importing.task(content), events.append, timeout=60)
    assert events[-1] == {"event": "progress", "bytes_done": len(content), "bytes_total": len(content), "rollouts": 2}
    assert [row["reward"] for row in importing.rows()] == [None, 1.0]
    assert manifest == importing(records)  # the same in this process


def test_one_process_does_many_tasks_and_survives_errors(child: Child, importing: Importing) -> None:
    pid = child.pid
    with pytest.raises(BadRecord) as bad:
        child.call(importing.task(ndjson([record(), record("b", step="x"), record()])), timeout=60)
    assert [(error.line, error.field) for error in bad.value.errors] == [(2, "step"), (3, "sample_id")]
    with pytest.raises(UnsupportedMedia):
        child.call(importing.task(b"PK\x03\x04"), timeout=60)
    importing([record()])
    there = importing.pieces()
    with pytest.raises(Conflict):
        child.call(importing.task(ndjson([record(reward=1)]), existing=there), timeout=60)
    assert list(importing.out.iterdir()) == []
    assert child.call(importing.task(ndjson([record()]), existing=there), timeout=60)["skipped"] == 1
    assert child.pid == pid


def test_deep_json_does_not_crash(child: Child, importing: Importing) -> None:
    for deep in (b"[" * 3_000_000, b'{"x":' * 1_000_000, b'{"meta":{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}}"):
        content = ndjson([record()]) + (deep if deep.startswith(b"{") else b'{"x":' + deep) + b"\n"
        with pytest.raises(BadRecord, match="nested too deeply"):
            child.call(importing.task(content), timeout=60)


def many_numbers() -> bytes:
    """One line of 24 MB with 12 million numbers: a list of Python floats takes 400 MB."""
    line = ndjson([record(response_token_ids="X", response_mask=...)])
    return line.replace(b'"X"', b"[" + b"7," * 12_000_000 + b"7]")


def test_memory_limit_is_an_error_with_the_line(child: Child, importing: Importing) -> None:
    content = ndjson([record()]) + many_numbers()
    with pytest.raises(TooLarge, match="need more memory than an import may use"):
        child.call(importing.task(content, limits={"memory_bytes": 400 << 20}), timeout=60)
    assert list(importing.out.iterdir()) == []
    assert child.call(importing.task(ndjson([record()])), timeout=60)["rollouts"] == 1


def test_memory_limit_on_parquet(child: Child, importing: Importing) -> None:
    ids = pa.ListArray.from_arrays(pa.array([0, 16_000_000], pa.int32()), pa.array(np.full(16_000_000, 5, np.int32)))
    columns = {"step": [0], "sample_id": ["a"], "group_id": ["g"], "prompt_token_ids": [[1]], "response_token_ids": ids}
    path = parquet(importing.folder / "in", columns)
    limits = {"memory_bytes": 400 << 20, "expansion": 10**9}
    with pytest.raises((TooLarge, ChildDied)):
        child.call(importing.task(path, limits=limits), timeout=60)
    assert child.call(importing.task(ndjson([record()])), timeout=60)["rollouts"] == 1


def test_progress_comes_at_most_five_times_a_second(child: Child, importing: Importing) -> None:
    content = ndjson([record(str(index), prompt_text="x" * 100_000) for index in range(500)])
    times: list[float] = []
    done: list[int] = []

    def note(event: dict[str, Any]) -> None:
        times.append(time.monotonic())
        done.append(event["bytes_done"])

    start = time.monotonic()
    child.call(importing.task(content), note, timeout=120)
    assert len(times) <= 2 + 5 * (time.monotonic() - start)
    assert done == sorted(done)
    assert done[-1] == len(content)


def test_death_in_the_middle_is_seen(importing: Importing) -> None:
    process = Child("service.ingest")
    process.start()
    content = ndjson([record(str(index), prompt_text="x" * 100_000) for index in range(400)])

    def kill(_event: dict[str, Any]) -> None:
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(ChildDied, match="SIGKILL"):
        process.call(importing.task(content), kill, timeout=60)


def resident(pid: int) -> int:
    """Bytes of memory the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_is_flat(importing: Importing) -> None:
    """A file three times as long takes no more memory."""

    def peak(copies: int) -> int:
        process = Child("service.ingest")
        numbers = list(range(1500))
        logprobs = [-0.1 * number for number in numbers]
        lines = ndjson(
            record(str(index), response_token_ids=numbers, response_mask=[1] * 1500, rollout_logprobs=logprobs)
            for index in range(300)
        )
        content = b"".join(lines.replace(b'"step": 0', b'"step": %d' % copy) for copy in range(copies))
        process.start()
        highest, stop = [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.01):
                if process.pid:
                    highest[0] = max(highest[0], resident(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert process.call(importing.task(content), timeout=120)["rollouts"] == 300 * copies
        finally:
            stop.set()
            watcher.join()
            process.kill()
        return highest[0]

    small, large = peak(5), peak(10)  # 55 MB and 110 MB
    assert large < 300 << 20
    assert large < small + (60 << 20)
