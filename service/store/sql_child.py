"""The child process that runs one statement of `POST /sql` and ends: `python -m service.store.sql_child FD`.

stdin: the request as JSON. stdout: the Arrow IPC stream. FD, one JSON object a line: `{"ready": true}` once what can
go wrong is the statement's doing, then `{"rows": n}` or `{"problem": …}`. An end without either is a crash.

DuckDB's settings keep an honest statement in bounds; the limits of the operating system keep every other one there
(`memory_limit` does not count what `repeat('x', 2000000000)` takes).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

if __name__ == "__main__":  # pyarrow and DuckDB do without numpy, and start 0.1 s sooner
    sys.modules["numpy"] = None  # type: ignore[assignment]

import duckdb
import pyarrow as pa

from service.errors import Invalid, LensError, LimitReached, WorkerFailed
from service.store.gate import check

THREADS = 2
BATCH_ROWS = 8192
MESSAGE_CHARS = 4000  # a message fits into the pipe's buffer, so that writing it never waits
SPARE_BYTES = 512 << 20  # address space beside DuckDB's own memory: stacks, allocator arenas, Arrow batches

Request = dict[str, Any]


def main() -> None:
    report = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")
    request: Request = json.load(sys.stdin)
    try:
        outcome = _run(request, report)
    except LensError as error:
        outcome = {"problem": error.problem()}
    _tell(report, outcome)


def _run(request: Request, report: IO[str]) -> dict[str, Any]:
    try:
        connection = open_lens(Path(request["lens"]), Path(request["data_dir"]), request["memory_bytes"])
    except duckdb.Error as error:
        raise WorkerFailed(f"{Path(request['lens']).name} cannot be opened: {type(error).__name__}") from error
    limit_process(request["seconds"], request["memory_bytes"])
    _tell(report, {"ready": True})
    try:
        check(request["sql"], connection)
        rows = _stream(connection, request["sql"], request["rows"], sys.stdout.buffer)
    except (MemoryError, duckdb.OutOfMemoryException, pa.ArrowMemoryError) as error:
        raise LimitReached(_out_of_memory(request["memory_bytes"])) from error
    except (duckdb.Error, pa.ArrowException) as error:
        if "Allocation failure" in str(error):  # DuckDB's word for std::bad_alloc
            raise LimitReached(_out_of_memory(request["memory_bytes"])) from error
        raise Invalid(_without_paths(str(error), request)) from error
    return {"rows": rows}


def open_lens(lens: Path, data_dir: Path, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that can read `lens` and the segments it shows, and nothing else.

    Raises `duckdb.Error` where `lens` cannot be attached.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": str(THREADS),
        "memory_limit": f"{memory_bytes}B",
        "temp_directory": "",  # no spilling
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "allow_persistent_secrets": "false",
    }
    if duckdb.__version__.startswith("1."):  # QUALIFY row_number() = 1 can pick another row where keys are NULL
        config["disabled_optimizers"] = "top_n_window_elimination"
    connection = duckdb.connect(":memory:", config=config)
    segments = ", ".join(_literal(f"{data_dir / folder}/") for folder in ("tokens", "rollouts"))
    for command in (
        "SET TimeZone = 'UTC'",
        f"SET VARIABLE dppo_data = {_literal(str(data_dir))}",
        f"ATTACH {_literal(str(lens))} AS lens (READ_ONLY)",
        "USE lens",
        f"SET allowed_directories = [{segments}]",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(command)
    return connection


def _out_of_memory(memory_bytes: int) -> str:
    return (
        f"The statement needs more than {memory_bytes / (1 << 20):,.0f} MiB of memory; "
        "filter or aggregate earlier, or read fewer columns."
    )


def limit_process(seconds: float, memory_bytes: int) -> None:
    """Bound what this process can do from here on, whatever DuckDB does. The parent's own kill comes first."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write to a file fails with an error instead
    signal.setitimer(signal.ITIMER_REAL, seconds + 2)  # ends the process even where the parent is gone
    cpu_seconds = math.ceil(seconds) * THREADS + 2
    limits = {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: cpu_seconds}
    statm = Path("/proc/self/statm")
    if statm.exists():  # macOS has neither this nor a limit on address space
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = used + memory_bytes + SPARE_BYTES
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _stream(connection: duckdb.DuckDBPyConnection, sql: str, limit: int, sink: IO[bytes]) -> int:
    """Write the result of `sql` as an Arrow IPC stream to `sink`, batch by batch; return its number of rows."""
    rows = 0
    reader = connection.sql(sql).to_arrow_reader(BATCH_ROWS)
    with sink, pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            rows += batch.num_rows
            if rows > limit:
                raise LimitReached(f"The result has more than {limit:,} rows; add LIMIT, a filter or an aggregate.")
            writer.write_batch(batch)
    return rows


def _without_paths(message: str, request: Request) -> str:
    """DuckDB's message without where the data lies."""
    for path in (request["lens"], request["data_dir"]):
        message = message.replace(path, "…")
    return message


def _literal(text: str) -> str:
    """A SQL string: ATTACH and SET take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def _tell(report: IO[str], message: dict[str, Any]) -> None:
    if "problem" in message:
        message["problem"]["detail"] = message["problem"]["detail"][:MESSAGE_CHARS]
    with contextlib.suppress(BrokenPipeError):  # the parent has seen enough
        report.write(json.dumps(message) + "\n")
        report.flush()


if __name__ == "__main__":
    main()
