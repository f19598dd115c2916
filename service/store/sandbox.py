"""One statement of `POST /sql`, run in a child process and spooled: its status is known before its first byte.

The child is `service.store.sql_child`. It is started for one statement and killed after it, so that nothing a
statement does outlives it, and it sees neither our environment nor our open files.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from service.errors import DiskFull, LimitReached, WorkerFailed, from_problem
from service.settings import Settings
from service.store.gate import check_text

__all__ = ["SpooledResult", "run_sql"]

CHILD = "service.store.sql_child"
START_SECONDS = 30.0  # for Python, DuckDB and the attached file; the statement's own time starts afterwards
CHUNK_BYTES = 1 << 16
MAX_REPORT_BYTES = 1 << 16
IN_MEMORY_BYTES = 8 << 20  # a larger result is spooled to a temporary file


class SpooledResult:
    """A complete Arrow IPC stream of `size` bytes with `rows` rows; iterate once for its chunks, then close it."""

    def __init__(self, file: IO[bytes], rows: int, size: int) -> None:
        self.rows = rows
        self.size = size
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> SpooledResult:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_sql(sql: str, *, lens: Path, data_dir: Path, settings: Settings) -> SpooledResult:
    """Run one SELECT over the tables of `lens`, whose segments lie in `data_dir`. Any thread may call it.

    Raises `StatementRefused` where the gate says no, `LimitReached` where the statement needs more time, memory,
    rows or bytes than `settings` allow or ends its process, `Invalid` with DuckDB's message for any other error of
    the statement, and `WorkerFailed` or `DiskFull` where it is not the statement's fault.
    """
    check_text(sql)
    request = {
        "sql": sql,
        "lens": str(lens.resolve()),
        "data_dir": str(data_dir.resolve()),
        "rows": settings.sql_rows,
        "seconds": settings.sql_seconds,
        "memory_bytes": settings.sql_memory_bytes,
    }
    with contextlib.ExitStack() as undo:
        file = undo.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES))
        with _child(request) as child:
            _wait_until_ready(child)
            deadline = time.monotonic() + settings.sql_seconds
            try:
                size = _spool(child.stream, file, deadline, settings.sql_bytes)
                rows = _outcome(child, deadline)
            except TimeoutError as error:
                raise LimitReached(
                    f"The statement took longer than {settings.sql_seconds:g} s; filter by analysis and step, "
                    "aggregate, or read a sample (USING SAMPLE 1%)."
                ) from error
        undo.pop_all()
    return SpooledResult(file, rows, size)


class _Child:
    """A child process and the two pipes it writes to."""

    def __init__(self, process: subprocess.Popen[bytes], stream: int, report: int) -> None:
        self.process = process
        self.stream = stream
        self._report = report
        self._unread = b""

    def next_message(self, deadline: float) -> dict[str, Any] | None:
        """The next line of its report, None where it ended without one; raises the problem it reports."""
        chunks = _read(self._report, deadline)
        while b"\n" not in self._unread:
            chunk = next(chunks, b"")
            if not chunk or len(self._unread) > MAX_REPORT_BYTES:
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "problem" in message:
            raise from_problem(message["problem"])
        return message


@contextlib.contextmanager
def _child(request: dict[str, Any]) -> Iterator[_Child]:
    """A child that has been given `request`; it is dead afterwards, whatever happened."""
    report, theirs = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 our own module, no shell
            [sys.executable, "-P", "-s", "-m", CHILD, str(theirs)],
            pass_fds=[theirs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the group; the parent decides
        )
    except OSError:
        os.close(report)
        raise
    finally:
        os.close(theirs)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(request).encode())
            yield _Child(process, process.stdout.fileno(), report)
        finally:
            process.kill()
            os.close(report)


def _environment() -> dict[str, str]:
    """What the child may know: where our modules are. No token, no settings, no home directory."""
    return {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "LC_ALL": "C.UTF-8",
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve a GiB of address space
        "MALLOC_ARENA_MAX": "2",
    }


def _read(descriptor: int, deadline: float) -> Iterator[bytes]:
    """Chunks until the other side closes; `TimeoutError` past `deadline`."""
    poll = select.poll()  # select() fails on descriptors over 1023
    poll.register(descriptor, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poll.poll(math.ceil(left * 1000)):
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
    raise TimeoutError


def _wait_until_ready(child: _Child) -> None:
    try:
        message = child.next_message(time.monotonic() + START_SECONDS)
    except TimeoutError as error:
        raise WorkerFailed(f"{CHILD} did not start within {START_SECONDS:g} s.") from error
    if message is None:
        raise WorkerFailed(f"{CHILD} ended with exit code {child.process.wait()} before it began.")


def _spool(stream: int, file: IO[bytes], deadline: float, limit: int) -> int:
    size = 0
    for chunk in _read(stream, deadline):
        size += len(chunk)
        if size > limit:
            raise LimitReached(
                f"The result is larger than {limit / (1 << 20):,.0f} MiB; add LIMIT, an aggregate, or fewer columns."
            )
        try:
            file.write(chunk)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DiskFull("No space is left in the temporary directory for the statement's result.") from error
    return size


def _outcome(child: _Child, deadline: float) -> int:
    """The result's number of rows; raises what the child reports, or that it crashed."""
    message = child.next_message(deadline)
    if message is None:
        raise LimitReached(
            "The statement ended its process: it needs more memory than is allowed, or is nested too deeply. "
            "Filter or aggregate earlier, or flatten it."
        )
    return int(message["rows"])
