"""The Parquet pieces an import leaves: schema, layout, names; and that a failed import leaves none."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from service.ingest.pieces import PieceWriter
from service.schemas.rollout import ROLLOUT_SCHEMA
from tests.ingest.files import Importing, record

REAL = Path(__file__).parent.parent / "data" / "smollm2-arith-rollouts.jsonl.gz"


def test_manifest(importing: Importing) -> None:
    records = [record("a", step=3, response_mask=[1, 0, 1]), record("b"), record("c", step=3)]
    manifest = importing(records)
    names = sorted(path.name for path in importing.out.iterdir())
    steps = manifest.pop("steps")
    assert [one["code"] for one in manifest.pop("notes")] == ["steps_interleave"]
    assert manifest == {
        "rollouts": 3,
        "tokens": 9,
        "counted_tokens": 8,
        "skipped": 0,
        "warnings": [],
        "format": "native",
    }
    assert [(one["step"], one["rollouts"], one["tokens"], one["counted_tokens"]) for one in steps] == [
        (0, 1, 3, 3),
        (3, 2, 6, 5),
    ]
    assert [[piece["rows"] for piece in one["pieces"]] for one in steps] == [[1], [2]]
    assert sorted(piece["file"] for one in steps for piece in one["pieces"]) == names


def test_schema_and_encoding(importing: Importing) -> None:
    importing([record(str(index), rollout_logprobs=[-1, None, -2]) for index in range(600)])
    (path,) = importing.out.iterdir()
    with pq.ParquetFile(path) as file:
        assert file.schema_arrow.equals(ROLLOUT_SCHEMA)
        assert [file.metadata.row_group(index).num_rows for index in range(3)] == [256, 256, 88]
        group = file.metadata.row_group(0)
        assert {group.column(index).compression for index in range(group.num_columns)} == {"ZSTD"}


def test_names_are_the_hash_of_upload_and_rows(importing: Importing) -> None:
    importing([record("b"), record("a")])
    (path,) = importing.out.iterdir()
    b, a = pq.read_table(path)["row_hash"].to_pylist()
    assert path.name == hashlib.sha256(f"u1{b}{a}".encode()).hexdigest()[:32] + ".parquet"
    first = path.read_bytes()
    importing([record("b"), record("a")])
    (path,) = importing.out.iterdir()
    assert path.read_bytes() == first
    importing([record("b"), record("a")], upload="u2")
    assert [other.name for other in importing.out.iterdir()] != [path.name]


def test_real_records(importing: Importing) -> None:
    """Four records of a real run; what a column holds is compared with the file itself, read by DuckDB."""
    manifest = importing(REAL)
    assert manifest["warnings"] == []
    assert [(one["step"], one["tokens"]) for one in manifest["steps"]] == [(0, 80), (1, 38), (2, 48), (4, 15)]
    written = {row["sample_id"]: row for row in importing.rows()}
    with gzip.open(REAL) as file:
        records = [json.loads(line) for line in file]
    assert len(written) == len(records) == 4
    for one in records:
        row = written[one["sample_id"]]
        for name, value in one.items():
            if name == "meta":
                assert json.loads(row[name]) == value
            elif name == "advantage":
                assert row[name] == [value] * len(one["response_token_ids"])
            else:
                assert row[name] == value, name
        assert row["counted_tokens"] == row["response_tokens"] == len(one["response_token_ids"])
    query = "select sum(len(rollout_logprobs)), sum(list_sum(old_logprobs)) from read_parquet(?)"
    tokens, total = duckdb.execute(query, [str(importing.out / "*.parquet")]).fetchall()[0]
    assert tokens == 181
    assert total == pytest.approx(sum(sum(one["old_logprobs"]) for one in records), rel=1e-12)


def big(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Records of 1 MB, in steps that alternate."""
    texts = [str(digit) * 1_000_000 for digit in range(10)]
    return [record(str(index), step=index % 2, prompt_text=texts[index % 10], **fields) for index in range(count)]


def test_long_files_make_several_pieces(importing: Importing) -> None:
    manifest = importing(big(50))
    assert [one["rollouts"] for one in manifest["steps"]] == [25, 25]
    assert all(len(one["pieces"]) > 1 for one in manifest["steps"])
    assert [sum(piece["rows"] for piece in one["pieces"]) for one in manifest["steps"]] == [25, 25]
    assert len(importing.rows()) == 50
    for one in manifest["steps"]:
        for piece in one["pieces"]:
            table = pq.read_table(importing.out / piece["file"], columns=["step"])
            assert set(table["step"].to_pylist()) == {one["step"]}


def test_error_at_the_end_leaves_nothing(importing: Importing) -> None:
    records = [*big(40), record("last", step=-1)]
    assert [line for line, _, _ in importing.errors(records)] == [41]
    assert list(importing.out.iterdir()) == []


def test_whatever_ends_the_writer_leaves_nothing(importing: Importing, tmp_path: Path) -> None:
    importing([record()])
    batch = pq.read_table(next(importing.out.iterdir())).to_batches()[0]
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt), PieceWriter(out, "u1") as writer:  # noqa: PT012 the context is the point
        writer.add(batch)
        writer.finish()
        assert len(list(out.iterdir())) == 1
        raise KeyboardInterrupt
    assert list(out.iterdir()) == []
