"""The logger's buffer on disk: steps wait here until the service has them.

<spool>/
  lock                       held by the one process that sends
  joined.gz                  several steps on their way
  <when>-s<step>-<id>.raw    a step as `log` left it: written in a millisecond, safe from a killed trainer
  <when>-s<step>-<id>.ndjson.gz   the same step as it is sent, fsynced: safe from a power cut too
  rejected/                  what the service refused, each with its problem document

Every file appears under its name by one rename, complete. Names sort in the order of the calls.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import marshal
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: one process per spool is then the user's care
    fcntl = None  # type: ignore[assignment]

from service.client.values import finite, pack, unpack
from service.layout import fsync_path

__all__ = ["RAW", "SEALED", "Spool", "Unreadable"]

RAW, SEALED = ".raw", ".ndjson.gz"
STALE_SECONDS = 3600
MARSHAL_VERSION = 4  # every Python from 3.4 on reads it
PAUSE = 2e-4  # between records, so that the training thread never waits for more than one


class Unreadable(Exception):
    """A power cut left a step half written, or something else wrote into the spool."""


class Spool:
    """One directory of waiting steps. `write` may be called by any thread of any process, the rest by the sender."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rejected = folder / "rejected"
        self.rejected.mkdir(parents=True, exist_ok=True)
        self._last = 0
        self._naming = threading.Lock()
        self._lock: int | None = None
        self.size = self.measure()
        self._sweep()

    def measure(self) -> int:
        """Bytes on disk, what was rejected included."""
        return sum(size for folder in (self.folder, self.rejected) for size in _sizes(folder))

    def write(self, step: int, records: list[Mapping[str, Any]], sync: bool = False) -> Path:
        """Keep one step. Returns when a killed process no longer loses it; with `sync`, a power cut neither.

        Raises TypeError for what is no JSON.
        """
        body = marshal.dumps([{**pack(record), "step": step} for record in records], MARSHAL_VERSION)
        with self._naming:
            self._last = max(time.time_ns(), self._last + 1)
            name = f"{self._last:019d}-s{step}-{secrets.token_hex(4)}"
        path = self.folder / f"{name}{RAW}"
        self._place(path, body, sync)
        self.size += len(body)
        return path

    def pending(self) -> list[Path]:
        """Steps that wait, in the order they were logged."""
        return sorted(path for path in self.folder.iterdir() if path.name.endswith((RAW, SEALED)))

    def seal(self, path: Path) -> tuple[Path, bool]:
        """A waiting step as gzip NDJSON, fsynced, and whether a number had to become null. Raises `Unreadable`."""
        if path.name.endswith(SEALED):
            return path, False
        body = path.read_bytes()
        try:
            records = marshal.loads(body)  # noqa: S302 our own file; it holds data only
            lines, nulls = _encode(records)
        except (EOFError, ValueError, TypeError) as error:
            raise Unreadable(f"{path.name} cannot be read: {error}") from error
        sealed = path.with_name(path.name.removesuffix(RAW) + SEALED)
        packed = gzip.compress(lines, compresslevel=1, mtime=0)  # level 1: a tenth of the time for 7 % more bytes
        self._place(sealed, packed, sync=True)
        path.unlink()
        self.size += len(packed) - len(body)
        return sealed, nulls

    @contextlib.contextmanager
    def joined(self, sealed: list[Path]) -> Iterator[Path]:
        """Several sealed steps as one file."""
        if len(sealed) == 1:
            yield sealed[0]
            return
        file = self.folder / "joined.gz"
        try:
            with file.open("wb") as out:
                for path in sealed:
                    out.write(path.read_bytes())
            yield file
        finally:
            file.unlink(missing_ok=True)

    def done(self, path: Path) -> None:
        """The service has it."""
        self.size -= path.stat().st_size
        path.unlink()

    def reject(self, path: Path, problem: dict[str, Any]) -> Path:
        """Keep a refused step aside, with the problem document beside it."""
        kept = self.rejected / path.name
        document = json.dumps(problem, indent=1).encode()
        name = path.name.removesuffix(RAW).removesuffix(SEALED)
        self._place(self.rejected / f"{name}.problem.json", document, sync=True)
        path.replace(kept)
        return kept

    def take(self) -> bool:
        """Whether this process is the one that sends; asks for it if nobody is."""
        if self._lock is None:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if fcntl is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def give(self) -> None:
        """Let another process send."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _place(self, path: Path, body: bytes, sync: bool) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
            try:
                view = memoryview(body)
                while view:
                    view = view[os.write(descriptor, view) :]
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            fsync_path(path.parent)

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process sends from here
            if path.is_file():
                yield path.stat().st_size


def _encode(records: list[dict[str, Any]]) -> tuple[bytes, bool]:
    """NDJSON, and whether a NaN or an infinity became null."""
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode
    lines, nulls = [], False
    for packed in records:
        record = unpack(packed)
        try:
            lines.append(encode(record))
        except ValueError:
            lines.append(encode(finite(record)))
            nulls = True
        time.sleep(PAUSE)
    lines.append("")
    return "\n".join(lines).encode(), nulls
