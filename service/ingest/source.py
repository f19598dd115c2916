"""A file, opened as what it is, giving chunks of native records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from service.errors import BadRecord, FieldError
from service.ingest.adapters import Adapter, LeftOut, choose
from service.ingest.containers import Container, Inflow, container_of
from service.ingest.examine import NOT_ENDED, parse_line
from service.ingest.lines import Lines, Text, line_chunks
from service.ingest.ndjson import JsonLines, RecordReader
from service.ingest.parquet import ParquetSource
from service.ingest.problems import Problems
from service.ingest.reading import Chunk
from service.ingest.record import names_of
from service.ingest.task import Task
from service.ingest.tokens import tokenising

__all__ = ["Source", "open_source"]


class Source(Protocol):
    """An open file of records."""

    size: int  # bytes of the file
    format: str  # the adapter's name, known once the first chunk is there
    left_out: dict[str, list[int]]  # reason → the lines of responses that were not converted, as far as was read

    def chunks(self) -> Iterator[Chunk]: ...

    def bytes_done(self, records: int) -> int:
        """How much of the file was read when `records` records were."""


def open_source(task: Task, adapters: Sequence[Adapter]) -> Source:
    """The file of a task. Raises `UnsupportedMedia`, `Invalid` and `BadRecord` for one that is not to be read."""
    choose(task.format, frozenset(), adapters)  # a format that does not exist is refused before the file is opened
    container = container_of(Path(task.path))
    adapters = tokenising(adapters, task.tokenizer)
    kind = _TableSource if container == "parquet" else _LineSource
    return kind(task, container, adapters)


class _LineSource:
    """NDJSON, compressed or not."""

    def __init__(self, task: Task, container: Container, adapters: Sequence[Adapter]) -> None:
        self._task = task
        self._container = container
        self._adapters = adapters
        self._inflow = Inflow(Path(task.path), container, task.limits)
        self.size = self._inflow.size
        self.format = task.format
        self.left_out: dict[str, list[int]] = {}

    def bytes_done(self, records: int) -> int:
        del records
        return self._inflow.consumed

    def chunks(self) -> Iterator[Chunk]:
        reader = RecordReader()
        adapter: Adapter | None = None
        for lines in line_chunks(self._inflow, self._container, self._task.limits.line_bytes):
            if adapter is None:
                adapter = choose(self._task.format, _first_names(lines), self._adapters)
                self.format = adapter.name
            native = lines if adapter.convert is None else _converted(lines, adapter, self.left_out)
            if len(native):
                yield JsonLines(native, reader)


class _TableSource:
    """Parquet."""

    def __init__(self, task: Task, container: Container, adapters: Sequence[Adapter]) -> None:
        del container
        self._task = task
        self._file = ParquetSource(Path(task.path), task.limits)
        self._adapter = choose(task.format, self._file.names, adapters)
        self.size = self._file.size
        self.format = self._adapter.name
        self.left_out: dict[str, list[int]] = {}

    def bytes_done(self, records: int) -> int:
        return self._file.bytes_done(records)

    def chunks(self) -> Iterator[Chunk]:
        if self._adapter.convert is None:
            self._file.check_columns(self._task.step)
        reader = RecordReader()
        try:
            for rows in self._file.chunks():
                if self._adapter.convert is None:
                    yield rows
                else:
                    raws = ((line, rows.raw(place)) for place, line in enumerate(rows.lines))
                    native = _native(raws, self._adapter, self.left_out, {})
                    if len(native):
                        yield JsonLines(native, reader)
        finally:
            self._file.close()


def _first_names(lines: Lines) -> frozenset[str]:
    """The field names of the first record; none if it is broken, which the native reading will say.

    Raises `BadRecord` where the first record goes on in the next line: then every line would be an error.
    """
    try:
        return frozenset(names_of(lines.texts[0]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        first = parse_line(lines.numbers[0], bytes(lines.texts[0]))
        if not isinstance(first, FieldError):  # NaN and infinities, which Python's writers put into JSON
            return frozenset(first)
        if first.message == NOT_ENDED:
            raise BadRecord(f"Line {first.line}: {NOT_ENDED}.", [first]) from None
        return frozenset()


def _converted(lines: Lines, adapter: Adapter, left_out: dict[str, list[int]]) -> Lines:
    """The native records of some lines; a line that is no object stays, for the native reading to say why."""
    raws = ((number, _parsed(number, text)) for number, text in zip(lines.numbers, lines.texts, strict=True))
    texts = dict(zip(lines.numbers, lines.texts, strict=True))
    return _native(raws, adapter, left_out, texts)


def _parsed(line: int, text: Text) -> dict[str, Any] | FieldError:
    """The object on a line; quickly, where it is JSON to the letter."""
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return parse_line(line, bytes(text))
    return raw if isinstance(raw, dict) else parse_line(line, bytes(text))


def _native(
    raws: Iterable[tuple[int, dict[str, Any] | FieldError]],
    adapter: Adapter,
    left_out: dict[str, list[int]],
    texts: Mapping[int, Text],
) -> Lines:
    """What an adapter makes of some records. Raises `BadRecord` with the errors of all of them."""
    native, problems, broken = Lines(), Problems(), []
    for line, raw in raws:
        if isinstance(raw, FieldError):
            native.append(line, texts[line])
            broken.append(raw)
            continue
        try:
            _convert(native, line, raw, adapter, left_out)
        except BadRecord as error:
            if not error.errors:
                raise
            problems.add(error.errors)
        except RecursionError:
            problems.add([FieldError("is nested too deeply", line)])
        if problems.full:
            problems.stopped_at = line
            break
    if problems:
        problems.add(broken)
        raise problems.error()
    return native


def _convert(native: Lines, line: int, raw: dict[str, Any], adapter: Adapter, left_out: dict[str, list[int]]) -> None:
    assert adapter.convert is not None
    for record in adapter.convert(line, raw):
        if isinstance(record, LeftOut):
            left_out.setdefault(record.reason, []).append(line)
        else:
            native.append(line, _encoded(record))


def _encoded(record: dict[str, Any]) -> bytes:
    """A record as JSON. What JSON or UTF-8 does not have (half a surrogate pair) is left to the native reading."""
    try:
        return msgspec.json.encode(record)
    except (UnicodeError, OverflowError):
        return json.dumps(record).encode()
