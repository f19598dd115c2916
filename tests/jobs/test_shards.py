"""How a step is cut into shards."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.jobs.shards import shards


def write(path: Path, rows: list[tuple[str, list[int], int]]) -> str:
    """A piece of (sample, prompt ids, response tokens); one token of every response does not count."""
    table = pa.table(
        {
            "sample_id": [sample for sample, _, _ in rows],
            "prompt_token_ids": pa.array([prompt for _, prompt, _ in rows], pa.list_(pa.uint32())),
            "prompt_tokens": pa.array([len(prompt) for _, prompt, _ in rows], pa.uint32()),
            "response_tokens": pa.array([response for _, _, response in rows], pa.uint32()),
            "counted_tokens": pa.array([response - 1 for _, _, response in rows], pa.uint32()),
        }
    )
    pq.write_table(table, path)
    return str(path)


def test_responses_to_one_prompt_stay_together(tmp_path: Path) -> None:
    names = itertools.product("abcdef", range(4))
    rows = [(f"{group}{sample}", [ord(group)] * 50, 30 + sample) for group, sample in names]
    one = write(tmp_path / "one.parquet", rows[::2])
    other = write(tmp_path / "other.parquet", rows[:0:-2])
    found = shards([one, other], 0)
    # a group is 50 + 30 + 31 + 32 + 33 = 176 tokens, all six are 1056; a shard has room for 12·83 = 996: two of 528
    assert [[sample[0] for sample in samples] for samples, _ in found] == [list("aaaabbbbcccc"), list("ddddeeeeffff")]
    assert [counted for _, counted in found] == [3 * (29 + 30 + 31 + 32)] * 2
    assert shards([other, one], 0) == found, "the order of pieces says nothing"


def test_short_prompts_do_not_keep_lengths_apart(tmp_path: Path) -> None:
    # 3 prompts of 9 tokens saved of 4·9 + 100 + 200 + 300 + 400 tokens: less than a tenth
    rows = [(f"{group}{sample}", [group] * 9, 100 + 100 * sample) for group in range(40) for sample in range(4)]
    found = shards([write(tmp_path / "piece.parquet", rows)], 0)
    longest = [max(int(sample[-1]) for sample in samples) for samples, _ in found]
    shortest = [min(int(sample[-1]) for sample in samples) for samples, _ in found]
    assert longest == sorted(longest)
    assert all(high - low <= 1 for low, high in zip(shortest, longest, strict=True))


def test_shards_are_balanced_and_complete(tmp_path: Path) -> None:
    rows = [(f"{group}/{sample}", [group] * 20, 5 + 7 * sample) for group in range(40) for sample in range(8)]
    found = shards([write(tmp_path / "piece.parquet", rows)], 2048)
    assert sorted(sample for samples, _ in found for sample in samples) == sorted(sample for sample, _, _ in rows)
    sizes = {sample: response - 1 for sample, _, response in rows}
    assert [counted for _, counted in found] == [sum(sizes[sample] for sample in samples) for samples, _ in found]
    # a group is 20 + Σ(5 + 7·s) = 256 tokens, 40 of them 10,240: five shards of 2,048 tokens, eight groups
    assert [len(samples) for samples, _ in found] == [64] * 5


def test_a_group_larger_than_a_shard_is_cut(tmp_path: Path) -> None:
    rows = [(f"{sample:02}", [7] * 30, 10) for sample in range(60)]
    found = shards([write(tmp_path / "piece.parquet", rows)], 0)
    # 30 + 600 tokens, a shard has room for 12·40 = 480: two parts of 30 responses
    assert [len(samples) for samples, _ in found] == [30, 30]


def test_one_long_response(tmp_path: Path) -> None:
    assert shards([write(tmp_path / "piece.parquet", [("a", [1], 5000)])], 2048) == [(["a"], 4999)]
