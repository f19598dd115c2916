"""Which samples a file has named before, and which were imported before it. Memory: 32 bytes a record."""

from __future__ import annotations

import hashlib
from binascii import hexlify
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from service.errors import FieldError
from service.ingest.flat import Bools, Ints

__all__ = ["Existing", "Hashes", "Keys", "Seen", "hashes_of", "keys_of", "step_content"]

Keys = npt.NDArray[np.uint64]  # [rows] a hash of (step, sample_id); the same within this process only
Hashes = npt.NDArray[np.uint64]  # [rows, 2] row hashes, 128 bits


def keys_of(steps: Iterable[int], sample_ids: Iterable[str]) -> Keys:
    """[rows] 64 bits each: among a million samples, two share a key once in 37 million files."""
    return np.fromiter(map(hash, zip(steps, sample_ids, strict=True)), np.int64).view(np.uint64)


def hashes_of(digests: Iterable[bytes]) -> Hashes:
    """[rows, 2] from 16 bytes a row."""
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def step_content(hashes: Sequence[Hashes]) -> str:
    """What an upload adds to a step: 32 hex digits of the sha256 of its sorted row hashes (they cover the sample ids).

    In SQL: `left(sha256(string_agg(row_hash, '' order by row_hash)), 32)`.
    """
    text = np.frombuffer(hexlify(np.concatenate(hashes).tobytes()), "S32")
    return hashlib.sha256(np.sort(text).tobytes()).hexdigest()[:32]


class Seen:
    """The (step, sample_id) of every record of the file, to find those that come twice."""

    def __init__(self) -> None:
        self._keys: list[Keys] = []
        self._lines: list[Ints] = []

    def add(self, keys: Keys, lines: Ints) -> None:
        self._keys.append(keys)
        self._lines.append(lines)

    def duplicates(self, limit: int) -> list[FieldError]:
        """An error for each record that repeats an earlier one, at most `limit`, in the order of the file."""
        if not self._keys:
            return []
        keys = np.concatenate(self._keys)
        ordered = np.sort(keys)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not twice.size:
            return []
        suspects = np.isin(keys, twice)
        firsts: dict[int, int] = {}
        errors = []
        for key, line in zip(keys[suspects].tolist(), np.concatenate(self._lines)[suspects].tolist(), strict=True):
            first = firsts.setdefault(key, line)
            if first != line:
                message = f"line {line} has the same step and sample_id as line {first}; a sample is one record"
                errors.append(FieldError(message, line, "sample_id"))
        return errors[:limit]


@dataclass
class _Step:
    """The rows of a step that are already imported, sorted by their keys."""

    keys: Keys
    hashes: Hashes


class Existing:
    """The pieces that were imported before, read one step at a time when the file first names it."""

    def __init__(self, pieces: Mapping[str, Sequence[str]]) -> None:
        self._pieces = {int(step): paths for step, paths in pieces.items()}
        self._steps: dict[int, _Step | None] = {}

    def compare(self, step: int, keys: Keys, hashes: Hashes) -> tuple[Bools, Bools]:
        """[rows] which rows of one step are there already, and which of those have the same content."""
        there = np.zeros(len(keys), bool)
        known = self._load(step)
        if known is None:
            return there, there
        at = np.minimum(np.searchsorted(known.keys, keys), len(known.keys) - 1)
        there = known.keys[at] == keys
        return there, there & (known.hashes[at] == hashes).all(axis=1)

    def _load(self, step: int) -> _Step | None:
        if step not in self._steps:
            self._steps[step] = self._read(step, self._pieces.get(step, ()))
        return self._steps[step]

    def _read(self, step: int, paths: Sequence[str]) -> _Step | None:
        keys, hashes = [], []
        for path in paths:
            for batch in _batches(path):
                keys.append(keys_of([step] * batch.num_rows, batch["sample_id"].to_pylist()))
                hashes.append(hashes_of(map(bytes.fromhex, batch["row_hash"].to_pylist())))
        if not keys:
            return None
        all_keys = np.concatenate(keys)
        order = np.argsort(all_keys)
        return _Step(all_keys[order], np.concatenate(hashes)[order])


def _batches(path: str) -> Iterable[Any]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=8192, columns=["sample_id", "row_hash"], use_threads=False)
