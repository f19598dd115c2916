"""Parquet files of rollout records: the same names as columns, read a few rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import to_builtins

from service.errors import BadRecord, FieldError, TooLarge
from service.ingest.arrow import columns_of, expected, is_null
from service.ingest.examine import Examined, examine
from service.ingest.flat import NotFlat
from service.ingest.meta import Unkeepable, text_of
from service.ingest.names import KNOWN, REQUIRED, near_miss
from service.ingest.reading import Reading
from service.ingest.task import Limits
from service.ingest.values import clip

__all__ = ["ParquetRows", "ParquetSource"]

_BATCH = 4 << 20  # bytes of one batch, about
_MAX_BATCH_ROWS = 4096
_FREE_EXPANSION = 64 << 20
# What pyarrow raises for a damaged file; UnicodeDecodeError for the name of a column.
_UNREADABLE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OSError, UnicodeDecodeError)
_WIDTH = 8  # bytes a value has once it is read, however few bits it takes in the file


@dataclass
class ParquetRows:
    """Some rows of a file; `lines` are their 1-based numbers in it."""

    lines: list[int]
    columns: dict[str, Any]  # arrays by name, columns of nothing but nulls left out

    def read(self) -> Reading:
        """The rows as columns; all of them are in doubt if a value does not fit."""
        if not set(REQUIRED) <= set(self.columns):  # one of them is null throughout
            return Reading(None, list(range(len(self.lines))))
        extras = {name: array for name, array in self.columns.items() if name not in KNOWN}
        own = [name for name in extras if extras[name].null_count < len(self.lines)]
        try:
            meta, unknown = [], []
            for row in range(len(self.lines)):
                found = {name: value for name in own if (value := _plain(extras[name], row)) is not None}
                if found:
                    unknown.append((int(self.lines[row]), list(found)))
                meta.append(text_of(self._meta(row), found))
            return Reading(columns_of(np.array(self.lines), self.columns, meta), unknown=unknown)
        except (NotFlat, Unkeepable, TypeError, UnicodeError):
            return Reading(None, list(range(len(self.lines))))

    def raw(self, place: int) -> dict[str, Any]:
        """One row as plain JSON data."""
        return {name: _plain(array, place) for name, array in self.columns.items()}

    def examine(self, place: int, step: int | None) -> Examined:
        """One row, precisely."""
        raw = self.raw(place)
        if isinstance(raw.get("meta"), str):
            raw["meta"] = _object(raw["meta"])
        return examine(int(self.lines[place]), raw, step)

    def _meta(self, row: int) -> dict[str, Any]:
        if "meta" not in self.columns:
            return {}
        meta = _plain(self.columns["meta"], row)
        meta = _object(meta) if isinstance(meta, str) else meta
        if meta is not None and not isinstance(meta, dict):
            raise TypeError
        return meta or {}


def _plain(array: Any, row: int) -> Any:
    """One value as plain JSON data; text that is not UTF-8 as bytes, what JSON cannot hold as the exception."""
    scalar = array[row]
    if pa.types.is_time64(scalar.type) and scalar.type.unit == "ns":
        return scalar.cast(pa.string()).as_py()  # where pandas is installed, pyarrow would drop the nanoseconds
    try:
        value = scalar.as_py(maps_as_pydicts="strict")
        return value if value is None or isinstance(value, (str, int, float)) else to_builtins(value, str_keys=True)
    except UnicodeDecodeError:
        return b""
    except (KeyError, ValueError, TypeError) as error:  # nanoseconds, intervals; a map with the same key twice
        try:
            return scalar.cast(pa.string()).as_py()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return error


def _object(text: str) -> Any:
    """The object that a JSON text is; the text itself if it is none, for `examine` to refuse."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class ParquetSource:
    """An open file. Raises `BadRecord` (no Parquet, a wrong column) and `TooLarge` before any row is read."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.size = path.stat().st_size
        self._limits = limits
        self._expanded = 0
        try:
            self._file = pq.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False)
        except _UNREADABLE as error:
            raise BadRecord(f"The Parquet file cannot be read: {error}.") from error
        self.rows = int(self._file.metadata.num_rows)
        self._largest_row = self._check_sizes()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._file.schema_arrow.names)

    def close(self) -> None:
        self._file.close()

    def check_columns(self, step: int | None) -> None:
        """Raises `BadRecord` naming every column that a native file must not, or must, have."""
        schema = self._file.schema_arrow
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        errors = [FieldError("the file has two columns of this name", field=clip(name)) for name in twice]
        for field in schema:
            meant = None if field.name in KNOWN else near_miss(field.name)
            if meant:
                name = clip(field.name)
                errors.append(FieldError(f"unknown column {name!r}; did you mean {meant!r}?", field=name))
            words = expected(field.name, field.type) if field.name in KNOWN else None
            if words:
                errors.append(FieldError(f"the column is {field.type}; it should hold {words}", field=field.name))
        required = REQUIRED if step is not None else ("step", *REQUIRED)
        errors += [
            FieldError("the column is required and missing", field=name)
            for name in required
            if name not in schema.names
        ]
        if errors:
            raise BadRecord(f"{len(errors)} wrong column{'s' if len(errors) > 1 else ''}.", errors[:20])

    def chunks(self) -> Iterator[ParquetRows]:
        """All rows, in batches of about 4 MiB."""
        batch_rows = max(1, min(_MAX_BATCH_ROWS, _BATCH // max(1, self._largest_row)))
        start = 0
        try:
            for batch in self._file.iter_batches(batch_size=batch_rows, use_threads=False):
                self._check_expansion(batch.nbytes, start + 1)
                lines = np.arange(start + 1, start + 1 + batch.num_rows)
                names = [name for name in batch.schema.names if not is_null(batch.schema.field(name).type)]
                yield ParquetRows(lines.tolist(), {name: batch[name] for name in names})
                start += batch.num_rows
        except _UNREADABLE as error:
            message = f"the Parquet file is damaged at row {start + 1} or soon after: {error}"
            raise BadRecord(message[0].upper() + message[1:] + ".", [FieldError(message, start + 1)]) from error

    def bytes_done(self, rows: int) -> int:
        """About how much of the file `rows` rows are."""
        return self.size * rows // max(1, self.rows)

    def _check_sizes(self) -> int:
        """Hold what the file says of itself against the limits; the average row of its widest row group, in bytes."""
        metadata = self._file.metadata
        total = widest = 0
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            values = sum(group.column(column).num_values for column in range(group.num_columns))
            size = max(group.total_byte_size, _WIDTH * values)
            total += size
            widest = max(widest, size // max(1, group.num_rows))
        self._check_total(total, None)
        return widest

    def _check_expansion(self, size: int, row: int) -> None:
        self._expanded += size
        self._check_total(self._expanded, row)

    def _check_total(self, total: int, row: int | None) -> None:
        if total > self._limits.expanded_bytes:
            message = f"the file expands to more than {self._limits.expanded_bytes} bytes; split it"
        elif total > max(_FREE_EXPANSION, self._limits.expansion * self.size):
            message = f"the file expands more than {self._limits.expansion} times; upload it less compressed"
        else:
            return
        raise TooLarge(message[0].upper() + message[1:] + ".", [FieldError(message, row)])
