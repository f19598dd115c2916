"""Pieces: the Parquet files that an import leaves, each with rows of one step, written beside the parser."""

from __future__ import annotations

import errno
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import DiskFull
from service.ingest.columns import LOGPROBS
from service.layout import fsync_path

__all__ = ["Piece", "PieceWriter"]

_BUFFER = 16 << 20  # bytes of rows that wait; as many are being written meanwhile
_WRITE_BATCH = 1 << 20  # values that are encoded at once: a tenth faster than the 1024 that are usual
_ROW_GROUP = 256  # rows: one response is read without the others of its step

# Log-probs never repeat: splitting their bytes by significance compresses better and faster than a dictionary does.
# (Ids would gain as well, but DuckDB 1.5 reads such pages of floats only.)
_FLOATS = [f"{name}.list.element" for name in (*LOGPROBS, "token_rewards")]
_FLOATS.append("rollout_top_logprobs.list.element.list.element")
_REPEATING = ["upload", "step", "group_id", "finish_reason", "prompt_text", "meta"]
_REPEATING += [f"{name}.list.element" for name in ("advantage", "policy_version", "turn", "minibatch")]


@dataclass(frozen=True)
class Piece:
    file: str
    rows: int


@dataclass
class _Written:
    by_step: dict[int, list[Piece]] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)


class PieceWriter:
    """Buffers rows and writes them as pieces into `out_dir`. A context: leaving it by an exception removes them.

    The same rows of the same upload always make pieces of the same names and bytes.
    """

    def __init__(self, out_dir: Path, upload: str) -> None:
        self._out_dir = out_dir
        self._upload = upload
        self._buffer: list[Any] = []
        self._bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pieces")
        self._writing: Future[None] | None = None
        self._written = _Written()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if kind is not None:
            for path in self._written.paths:
                with suppress(FileNotFoundError):
                    path.unlink()

    def add(self, batch: Any) -> None:
        """Take a record batch in `ROLLOUT_SCHEMA`. Raises what writing the batches before it raised."""
        if batch.num_rows == 0:
            return
        self._buffer.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= _BUFFER:
            self._flush()

    def finish(self) -> dict[int, list[Piece]]:
        """Write what is left; the pieces by step, each on disk for good. Raises `DiskFull`."""
        self._flush()
        self._wait()
        fsync_path(self._out_dir)
        return self._written.by_step

    def discard(self) -> None:
        """Forget the rows that wait: the import fails anyway, the rest of the file is only checked."""
        self._buffer, self._bytes = [], 0

    def _flush(self) -> None:
        self._wait()
        if self._buffer:
            table = pa.Table.from_batches(self._buffer)
            self.discard()
            self._writing = self._thread.submit(self._write_steps, table)

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write_steps(self, table: Any) -> None:
        steps = table["step"].to_numpy()
        if (steps[1:] < steps[:-1]).any():  # most files have them in order
            table = table.take(np.argsort(steps, kind="stable"))
        start = 0
        for step, count in zip(*np.unique(steps, return_counts=True), strict=True):
            try:
                piece = self._write(table.slice(start, count))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise DiskFull("The disk is full. Free space in the data directory and upload again.") from error
                if "not enough memory" in str(error):  # so says zstd, in an OSError
                    raise MemoryError from error
                raise
            self._written.by_step.setdefault(int(step), []).append(piece)
            start += count

    def _write(self, table: Any) -> Piece:
        name = hashlib.sha256(self._upload.encode())
        for row_hash in table["row_hash"].to_pylist():
            name.update(row_hash.encode())
        path = self._out_dir / f"{name.hexdigest()[:32]}.parquet"
        temporary = path.with_suffix(".tmp")
        self._written.paths += [path, temporary]
        pq.write_table(
            table,
            temporary,
            row_group_size=_ROW_GROUP,
            compression="zstd",
            compression_level=1,
            use_dictionary=_REPEATING,
            column_encoding=dict.fromkeys(_FLOATS, "BYTE_STREAM_SPLIT"),
            write_statistics=["step", "sample_id"],
            write_batch_size=_WRITE_BATCH,
            store_schema=True,
        )
        fsync_path(temporary)
        temporary.replace(path)
        return Piece(path.name, table.num_rows)
