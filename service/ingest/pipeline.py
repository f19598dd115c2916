"""An import, from the file to its pieces: read, check, hash, compare, write. All of it, or nothing."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from service.errors import BadRecord, FieldError, TooLarge, WorkerFailed
from service.ingest.adapters import ADAPTERS, Adapter
from service.ingest.check import doubtful
from service.ingest.columns import Columns
from service.ingest.examine import Examined
from service.ingest.findings.report import Report
from service.ingest.flat import Bools
from service.ingest.lines import Lines
from service.ingest.ndjson import JsonLines, RecordReader
from service.ingest.pieces import PieceWriter
from service.ingest.problems import MAX_ERRORS, Problems
from service.ingest.reading import Chunk, Reading
from service.ingest.rows import row_hashes, settle, table_of, totals_of
from service.ingest.seen import Existing, Hashes, Keys, Seen, hashes_of, keys_of
from service.ingest.source import Source, open_source
from service.ingest.steps import Steps
from service.ingest.task import Task, read_task
from service.process import Emit, Message

__all__ = ["ingest"]

_PROGRESS_SECONDS = 0.2


def ingest(message: Message, emit: Emit, adapters: Sequence[Adapter] = ADAPTERS) -> Message:
    """Import one file as `message` says (`Task`); the manifest of what was written.

    The manifest: `rollouts` in the file, of which `skipped` were there already with the same content; response `tokens`
    and `counted_tokens` of the others; the same for each of `steps`, with its `content` (`seen.step_content`) and
    `pieces` (file, rows); `warnings` and `notes` (`findings.report`); `format`, the adapter's name.

    Emits `{"event": "progress", "bytes_done", "bytes_total", "rollouts"}`. Raises `BadRecord`, `Conflict`, `TooLarge`,
    `UnsupportedMedia`, `Invalid` and `DiskFull`, and then leaves nothing in `out_dir`.
    """
    task = read_task(message)
    with _uncollected(), PieceWriter(Path(task.out_dir), task.upload) as writer:
        return _Import(task, open_source(task, adapters), writer, emit).run()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: it would walk millions of numbers, none of which is in a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Import:
    """The state of one import."""

    def __init__(self, task: Task, source: Source, writer: PieceWriter, emit: Emit) -> None:
        self._task = task
        self._source = source
        self._writer = writer
        self._emit = emit
        self._problems = Problems()
        self._report = Report(task)
        self._seen = Seen()
        self._existing = Existing({} if task.replace else task.existing)
        self._steps = Steps()
        self._records = 0
        self._skipped = 0
        self._line = 0  # the last one that was dealt with
        self._told = 0.0  # when progress was last emitted

    def run(self) -> Message:
        """Everything. Raises what `ingest` does."""
        try:
            for chunk in self._source.chunks():
                self._take(chunk)
                self._records += len(chunk.lines)
                self._line = int(chunk.lines[-1])
                if self._problems.full:
                    self._problems.stopped_at = self._line
                    break
                if time.monotonic() - self._told >= _PROGRESS_SECONDS:
                    self._tell(self._source.bytes_done(self._records))
            return self._finish()
        except MemoryError as error:
            limit = self._task.limits.memory_bytes
            message = f"the records after line {self._line} need more memory than an import may use ({limit} bytes)"
            raise TooLarge(
                f"{message[0].upper()}{message[1:]}. Split the longest records.", [FieldError(message, self._line + 1)]
            ) from error

    def _tell(self, bytes_done: int) -> None:
        self._told = time.monotonic()
        self._emit(
            {"event": "progress", "bytes_done": bytes_done, "bytes_total": self._source.size, "rollouts": self._records}
        )

    def _take(self, chunk: Chunk) -> None:
        """Deal with one chunk: its rows to the writer, or its errors to the problems."""
        reading, suspects = self._read(chunk)
        if suspects:
            examined = self._examine(chunk, suspects)
            if any(one.errors for one in examined.values()):
                self._see_others(reading, suspects, chunk)
                self._writer.discard()
                return
            reading = self._read_again(chunk, examined)
        columns = reading.columns
        if columns is None:
            return
        for line, names in reading.unknown:
            self._report.unknown.add(line, names)
        settle(columns, self._task.step)
        self._report.observe(columns)
        self._keep(columns)

    def _read(self, chunk: Chunk) -> tuple[Reading, list[int]]:
        """The quick reading, and the places of those records that need the precise one."""
        reading = chunk.read()
        suspects = set(reading.unread)
        if reading.columns is not None:
            doubt = doubtful(reading.columns, self._task.step)
            suspects.update(_places(reading, chunk)[doubt].tolist())
        return reading, sorted(suspects)

    def _examine(self, chunk: Chunk, suspects: list[int]) -> dict[int, Examined]:
        """The precise reading of the suspects, until there are errors enough. The errors go to the problems."""
        examined = {}
        for place in suspects:
            examined[place] = chunk.examine(place, self._task.step)
            self._problems.add(examined[place].errors)
            if self._problems.full:
                break
        return examined

    def _read_again(self, chunk: Chunk, examined: dict[int, Examined]) -> Reading:
        """The chunk from the precise reading of each record: its spelling was unusual, but it breaks no rule."""
        lines = Lines()
        unknown = []
        for place, line in enumerate(chunk.lines):
            one = examined.get(place) or chunk.examine(place, self._task.step)
            lines.append(int(line), msgspec.json.encode(one.record))
            if one.unknown:
                unknown.append((int(line), one.unknown))
        reading, suspects = self._read(JsonLines(lines, RecordReader()))
        if suspects:
            line = lines.numbers[suspects[0]]
            raise WorkerFailed(f"Line {line} breaks a rule that the import cannot name; please report the record.")
        reading.unknown = unknown
        return reading

    def _see_others(self, reading: Reading, suspects: list[int], chunk: Chunk) -> None:
        """Remember the good records beside bad ones, so that a sample that comes twice is named in the same breath."""
        if reading.columns is None:
            return
        columns = reading.columns
        good = np.flatnonzero(~np.isin(_places(reading, chunk), suspects)).tolist()
        steps = [columns.step[row] if columns.step[row] is not None else self._task.step for row in good]
        keys = keys_of(map(int, steps), [columns.sample_id[row] for row in good])  # type: ignore[arg-type]
        self._seen.add(keys, columns.lines[good])

    def _keep(self, columns: Columns) -> None:
        """Hash settled rows, compare them with those that are there, and hand the new ones to the writer."""
        digests = row_hashes(columns)
        keys, hashes = keys_of(columns.step, columns.sample_id), hashes_of(digests)  # type: ignore[arg-type]
        self._seen.add(keys, columns.lines)
        new = self._compare(columns, keys, hashes)
        if self._problems:
            self._writer.discard()
            return
        self._steps.add(columns.step, totals_of(columns), hashes, new)  # type: ignore[arg-type]
        batch = table_of(columns, self._task.upload, digests)
        self._writer.add(batch if new.all() else batch.filter(new))

    def _compare(self, columns: Columns, keys: Keys, hashes: Hashes) -> Bools:
        """[rows] which rows are not there yet. Those that are, with other content, go to the problems."""
        new = np.ones(columns.rows, bool)
        steps = np.asarray(columns.step)
        for step in np.unique(steps).tolist():
            rows = np.flatnonzero(steps == step)
            there, same = self._existing.compare(step, keys[rows], hashes[rows])
            new[rows[there]] = False
            self._skipped += int(same.sum())
            for row in rows[there & ~same].tolist():
                message = f"sample {columns.sample_id[row]!r} of step {step} is there already, with other content"
                self._problems.conflict(FieldError(message, int(columns.lines[row]), "sample_id"))
        return new

    def _finish(self) -> Message:
        self._problems.add(self._seen.duplicates(MAX_ERRORS))
        if self._problems:
            raise self._problems.error()
        for reason, lines in self._source.left_out.items():
            self._report.left_out.add(reason, lines)
        if not self._records and self._source.left_out:
            raise BadRecord(f"The file holds no response to import: {'; '.join(self._source.left_out)}.")
        if not self._records:
            raise BadRecord("The file holds no record. Write one JSON object a line, or rows of Parquet.")
        pieces = self._writer.finish()
        self._tell(self._source.size)
        return {
            "rollouts": self._records,
            **self._steps.totals(),
            "steps": self._steps.manifest(pieces),
            "skipped": self._skipped,
            **self._report.result(),
            "format": self._source.format,
        }


def _places(reading: Reading, chunk: Chunk) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """[rows] the place in the chunk of each row of the columns."""
    return np.delete(np.arange(len(chunk.lines)), reading.unread)
