"""Hand-made upload files, and what an import made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import LensError
from service.ingest.pipeline import ingest

LIMITS = {"line_bytes": 64 << 20, "expanded_bytes": 200 << 30, "expansion": 200, "memory_bytes": 2 << 30}


def record(sample: str = "a", /, **fields: Any) -> dict[str, Any]:
    """A valid record of three response tokens; a field given as `...` is left out."""
    whole: dict[str, Any] = {
        "step": 0,
        "sample_id": sample,
        "group_id": "g",
        "prompt_token_ids": [1, 2],
        "response_token_ids": [3, 4, 5],
        "response_mask": [1, 1, 1],
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def ndjson(records: Iterable[Mapping[str, Any] | str]) -> bytes:
    """One line each; a string is a line as it is."""
    return b"".join((line if isinstance(line, str) else json.dumps(line)).encode() + b"\n" for line in records)


@dataclass
class Importing:
    """Runs imports in a directory of its own."""

    folder: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    def task(self, content: bytes | Path, **changes: Any) -> dict[str, Any]:
        """The task message for a file of these bytes."""
        self.count += 1
        path = content
        if isinstance(content, bytes):
            path = self.folder / f"upload-{self.count}"
            path.write_bytes(content)
        self.out = self.folder / f"out-{self.count}"
        self.out.mkdir()
        limits = LIMITS | changes.pop("limits", {})
        return {
            "path": str(path),
            "out_dir": str(self.out),
            "upload": "u1",
            "format": "auto",
            "step": None,
            "existing": {},
            "replace": False,
            "limits": limits,
            **changes,
        }

    def __call__(self, content: bytes | Path | list[Any], **changes: Any) -> dict[str, Any]:
        """Import bytes, a file, or records as NDJSON; the manifest."""
        content = ndjson(content) if isinstance(content, list) else content
        return ingest(self.task(content, **changes), self.events.append)

    def rows(self) -> list[dict[str, Any]]:
        """All rows that the latest import wrote, by step and sample."""
        rows = [row for path in self.out.iterdir() for row in read_piece(path)]
        return sorted(rows, key=lambda row: (row["step"], row["sample_id"]))

    def pieces(self) -> dict[int, list[str]]:
        """The pieces of the latest import by step, as a later task's `existing`."""
        found: dict[int, list[str]] = {}
        for path in sorted(self.out.iterdir()):
            step = pq.read_table(path, columns=["step"])["step"][0].as_py()
            found.setdefault(step, []).append(str(path))
        return {str(step): paths for step, paths in found.items()}  # type: ignore[misc]

    def row(self, /, **fields: Any) -> dict[str, Any]:
        """The row that one record becomes."""
        return self.row_of(ndjson([record(**fields)]))

    def row_of(self, content: bytes) -> dict[str, Any]:
        """The row that a file of one record becomes."""
        self(content)
        (row,) = self.rows()
        return row

    def errors(self, content: bytes | Path | list[Any], **changes: Any) -> list[tuple[int | None, str | None, str]]:
        """(line, field, message) of each error of a file that is refused; nothing of it may be left."""
        return [(error.line, error.field, error.message) for error in self.refused(content, **changes).errors]

    def refused(self, content: bytes | Path | list[Any], **changes: Any) -> LensError:
        """The error of a file that is refused; nothing of it may be left."""
        with pytest.raises(LensError) as caught:
            self(content, **changes)
        assert list(self.out.iterdir()) == []
        return caught.value

    def error(self, /, **fields: Any) -> tuple[str | None, str]:
        """(field, message) of the one error of one record."""
        ((line, name, message),) = self.errors([record(**fields)])
        assert line == 1
        return name, message


def read_piece(path: Path) -> list[dict[str, Any]]:
    """All rows of a Parquet file."""
    with pq.ParquetFile(path) as file:
        return list(file.read(use_threads=False).to_pylist())


def parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """A Parquet file of these columns (lists or arrays)."""
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path
