"""A file of records that appears whole or not at all, and the names of those that it is made of."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from service.errors import BadRecord, Invalid

__all__ = ["named", "record_file"]


@contextmanager
def named(*paths: Path) -> Iterator[None]:
    """Refusals with the files' names in front."""
    try:
        yield
    except BadRecord as error:
        names = " and ".join(path.name for path in paths)
        raise BadRecord(f"{names}: {error.detail}", error.errors) from error


@contextmanager
def record_file(out: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields write(record), a line each, gzip by the suffix. The file takes its name when everything is on the disk.

    Raises `Invalid` where it cannot be written; after any error nothing is left.
    """
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as raw:
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) if out.suffix == ".gz" else nullcontext(raw) as file:
                yield lambda record: _write(file, record)
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(out)
    except OSError as error:
        raise Invalid(f"{error.filename or out}: {error.strerror}; nothing was written.") from error
    finally:
        part.unlink(missing_ok=True)


def _write(file: IO[bytes] | gzip.GzipFile, record: Mapping[str, Any]) -> None:
    try:
        text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    except ValueError:  # NaN in metadata, or as a reward
        text = json.dumps(_finite(record), allow_nan=False, separators=(",", ":"))
    file.write(text.encode() + b"\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
