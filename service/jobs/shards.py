"""A step cut into shards: what one worker task scores, one file holds and one crash costs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

__all__ = ["shards"]

SEQUENCES = 12
"""A shard has room for that many of the longest sequences: each policy runs them all, and OLD one of them again."""


def shards(pieces: list[str], budget: int) -> list[tuple[list[str], int]]:
    """Samples of a step in shards of about equally many tokens: [(sample ids, counted tokens)]. Deterministic.

    Responses to one prompt stay together where it is a tenth of their tokens or more, and it counts once: so it is
    computed. Otherwise similar lengths are together. About `budget` tokens a shard, more where sequences are long.
    """
    rows = [row for piece in pieces for row in _rows(piece)]
    budget = max(budget, SEQUENCES * max((row.prompt + row.response for row in rows), default=0))
    prompts: dict[bytes, list[_Row]] = {}
    for row in rows:
        prompts.setdefault(row.prompt_ids, []).append(row)
    units = [unit for group in prompts.values() for unit in _units(group, budget)]
    units.sort(key=lambda unit: (max(row.prompt + row.response for row in unit), unit[0].sample))
    each = sum(map(_tokens, units)) / max(1, -(-sum(map(_tokens, units)) // budget))
    found: dict[int, list[_Row]] = {}
    before = 0
    for unit in units:
        found.setdefault(int(before / each), []).extend(unit)
        before += _tokens(unit)
    return [([row.sample for row in shard], sum(row.counted for row in shard)) for shard in found.values()]


@dataclass(frozen=True)
class _Row:
    """What a shard is cut by: a sample's prompt (ids, hashed) and its lengths."""

    sample: str
    prompt_ids: bytes
    prompt: int
    response: int
    counted: int


def _rows(piece: str) -> list[_Row]:
    names = ["sample_id", "prompt_tokens", "response_tokens", "counted_tokens"]
    table = pq.read_table(piece, partitioning=None, columns=[*names, "prompt_token_ids"])
    ids = table["prompt_token_ids"].combine_chunks()
    values, ends = ids.flatten().to_numpy(zero_copy_only=False), np.cumsum(table["prompt_tokens"].to_numpy())
    hashes = [hashlib.sha256(prompt.tobytes()).digest() for prompt in np.split(values, ends[:-1])]
    columns = [table[name].to_pylist() for name in names]
    return [_Row(sample, hashed, *rest) for sample, hashed, *rest in zip(columns[0], hashes, *columns[1:], strict=True)]


def _tokens(unit: list[_Row]) -> int:
    return unit[0].prompt + sum(row.response for row in unit)


def _units(group: list[_Row], budget: int) -> list[list[_Row]]:
    """Responses to one prompt that one shard takes as a whole, each part of a large group with the prompt again."""
    group = sorted(group, key=lambda row: (row.response, row.sample))
    if (len(group) - 1) * group[0].prompt * 10 < sum(row.prompt + row.response for row in group):
        return [[row] for row in group]
    parts = -(-_tokens(group) // budget)
    size = -(-len(group) // parts)
    return [group[start : start + size] for start in range(0, len(group), size)]
