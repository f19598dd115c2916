"""prime-rl's `monitors/file/traces`: the stream of episodes and the annotations beside it, joined to native records."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from service.cli.whole import named
from service.errors import BadRecord, FieldError, Invalid, UnsupportedMedia
from service.ingest.adapters.annotations import NO_TRACE, Annotations, is_annotation
from service.ingest.adapters.base import LeftOut
from service.ingest.adapters.sample import Notes
from service.ingest.adapters.verifiers import VERIFIERS

__all__ = ["is_json", "trace_records"]

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
TORN = "last line was left out: it does not end, as where a process died while it wrote"


def is_json(path: Path) -> bool:
    """Whether the file holds JSON objects, compressed or not."""
    try:
        with _opened(path) as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{")
    except (OSError, ValueError):
        return False


def trace_records(
    files: list[Path], step: int | None, notes: Notes, done: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Native records of the streams, with what the annotations say of them.

    Raises `BadRecord` with the line and field, `UnsupportedMedia` for a file that is neither, and `Invalid` where there
    is no stream.
    """
    annotations, streams = Annotations(notes), []
    for count, path in enumerate(files, 1):
        names = frozenset(next((raw for _, raw, _ in _lines(path, Notes())), {}))
        if is_annotation(names):
            with named(path):
                for line, raw, text in _lines(path, notes):
                    annotations.add(line, raw, text)
        elif VERIFIERS.recognises(names):
            streams.append(path)
        elif names:
            what = "an index of the file beside it" if "offset" in names else "no file of prime-rl's traces"
            raise UnsupportedMedia(
                f"{path.name} is {what} (it has {', '.join(sorted(names)[:8])}): give the stream of episodes "
                "(stream.jsonl, or the files in stream/) and what is in annotations/."
            )
        done(count)
    if not streams:
        raise Invalid("Annotations hold no tokens: give the stream of episodes (stream.jsonl, or stream/*) too.")
    for count, path in enumerate(streams, len(files) + 1):
        with named(path):
            for line, raw, _ in _lines(path, notes):
                yield from _records(line, raw, step, annotations, notes)
        done(count)
    notes[NO_TRACE] += annotations.unused


def _records(
    line: int, episode: dict[str, Any], step: int | None, annotations: Annotations, notes: Notes
) -> Iterator[dict[str, Any]]:
    traces = [episode] if "nodes" in episode else episode.get("traces")
    for trace in traces if isinstance(traces, list) else []:
        if isinstance(trace, dict):
            annotations.fold(trace)
    assert VERIFIERS.convert is not None
    for record in VERIFIERS.convert(line, episode):
        if isinstance(record, LeftOut):
            notes[f"traces or episodes were left out: {record.reason}"] += 1
            continue
        own = record["step"]
        if own is None and step is None:
            raise _bad(line, "run.work.step", "does not say the step; give it with --step N")
        if own is not None and step is not None and own != step:
            raise _bad(line, "run.work.step", f"is {own}, but --step {step} was given")
        record["step"] = step if own is None else own
        yield {name: value for name, value in record.items() if value is not None}


def _lines(path: Path, notes: Notes) -> Iterator[tuple[int, dict[str, Any], bytes]]:
    """The objects of a file, with their lines. Raises `BadRecord`."""
    try:
        with _opened(path) as file:
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    raw = json.loads(text)
                except (ValueError, RecursionError) as error:
                    if not text.endswith(b"\n"):
                        notes[TORN] += 1
                        return
                    raise _bad(line, None, f"is not JSON ({error})") from None
                if not isinstance(raw, dict):
                    raise _bad(line, None, "is not an object")
                yield line, raw, text
    except OSError as error:
        raise UnsupportedMedia(f"{path.name} cannot be read: {error}") from error


def _opened(path: Path) -> io.BufferedReader:
    """The file as it was before it was compressed; the standard library has no zstd, pyarrow has."""
    with path.open("rb") as file:
        compression = _MAGIC.get(file.read(2))
    if compression is None:
        return path.open("rb")
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression=compression))


def _bad(line: int, field: str | None, message: str) -> BadRecord:
    where = f"Line {line}" if field is None else f"Line {line}, {field}"
    return BadRecord(f"{where}: {message}.", [FieldError(message, line, field)])
