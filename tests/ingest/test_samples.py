"""Samples that come twice, that are there already, and that are there with other content; errors by the dozen."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import duckdb
import pytest

from service.errors import BadRecord, Conflict, Invalid
from tests.ingest.files import Importing, ndjson, record


def test_twice_in_a_file(importing: Importing) -> None:
    records = [record("a"), record("b"), record("a", step=1), record("a", reward=1), record("b"), record("a")]
    assert importing.errors(records) == [
        (4, "sample_id", "line 4 has the same step and sample_id as line 1; a sample is one record"),
        (5, "sample_id", "line 5 has the same step and sample_id as line 2; a sample is one record"),
        (6, "sample_id", "line 6 has the same step and sample_id as line 1; a sample is one record"),
    ]


def test_twice_in_chunks_far_apart(importing: Importing) -> None:
    records = [record(str(index), prompt_text="x" * 1_000_000) for index in range(12)]
    assert [(line, field) for line, field, _ in importing.errors([*records, record("0")])] == [(13, "sample_id")]


def test_int_and_string_are_the_same_id(importing: Importing) -> None:
    assert len(importing.errors([record("7"), record(sample_id=7)])) == 1


def test_twice_beside_another_error(importing: Importing) -> None:
    records = [record("a"), record("b", step=-1), record("a")]
    assert [(line, field) for line, field, _ in importing.errors(records)] == [(2, "step"), (3, "sample_id")]


def test_errors_are_in_the_order_of_the_file(importing: Importing) -> None:
    records = [record("a"), record("a"), record("b", step=-1), record("a")]
    assert [line for line, _, _ in importing.errors(records)] == [2, 3, 4]


def test_the_same_again_is_skipped(importing: Importing) -> None:
    first = importing([record("a"), record("b"), record("a", step=1)])
    assert (first["rollouts"], first["skipped"], first["tokens"]) == (3, 0, 9)
    there = importing.pieces()
    manifest = importing([record("b"), record("a"), record("c"), record("a", step=1)], upload="u2", existing=there)
    assert (manifest["rollouts"], manifest["skipped"], manifest["tokens"]) == (4, 3, 3)
    assert [(step["step"], step["rollouts"], step["tokens"]) for step in manifest["steps"]] == [(0, 1, 3)]
    assert [(row["sample_id"], row["upload"]) for row in importing.rows()] == [("c", "u2")]
    manifest = importing([record("a"), record("b")], existing=there)
    assert (manifest["rollouts"], manifest["skipped"], manifest["steps"]) == (2, 2, [])
    assert list(importing.out.iterdir()) == []


def test_other_content_is_a_conflict(importing: Importing) -> None:
    importing([record(str(index)) for index in range(30)])
    there = importing.pieces()
    error = importing.refused([record("new"), record("3", reward=1), record("4")], existing=there)
    assert isinstance(error, Conflict)
    assert "1 record is already there with other content" in error.detail
    assert [(one.line, one.field, one.message) for one in error.errors] == [
        (2, "sample_id", "sample '3' of step 0 is there already, with other content")
    ]
    error = importing.refused([record(str(index), reward=1) for index in range(30)], existing=there)
    assert "30 records are already there with other content; the first 20 are shown, 10 are not" in error.detail
    assert len(error.errors) == 20
    assert importing([record("3", reward=1)], existing={"1": there["0"]})["rollouts"] == 1  # another step


def test_bad_record_goes_before_a_conflict(importing: Importing) -> None:
    importing([record("a")])
    error = importing.refused([record("a", reward=1), record("b", reward="x")], existing=importing.pieces())
    assert isinstance(error, BadRecord)
    assert [one.line for one in error.errors] == [2]


def test_replace_takes_no_notice_of_what_is_there(importing: Importing) -> None:
    importing([record("a"), record("b")])
    manifest = importing([record("a", reward=1), record("b")], existing=importing.pieces(), replace=True)
    assert (manifest["rollouts"], manifest["skipped"]) == (2, 0)
    assert [row["reward"] for row in importing.rows()] == [1, None]


def test_content_is_a_set(importing: Importing) -> None:
    def contents(*records: dict[str, Any]) -> list[str]:
        return [step["content"] for step in importing(list(records))["steps"]]

    a, b, c = record("a", reward=0.5), record("b"), record("c", step=1)
    assert contents(a, b, c) == contents(c, b, a)
    assert contents(a, b) == contents(a, b, c)[:1]
    assert len({*contents(a, b), *contents(a), *contents(record("a"), b), *contents(c)}) == 4


def test_content_as_sql(importing: Importing) -> None:
    """The formula that the docstring gives, computed by DuckDB from the pieces."""
    manifest = importing([record(str(index), step=index % 2, reward=index) for index in range(9)])
    query = """
        select step, left(sha256(string_agg(row_hash, '' order by row_hash)), 32)
        from read_parquet(?) group by step order by step
    """
    found = duckdb.execute(query, [str(importing.out / "*.parquet")]).fetchall()
    assert found == [(step["step"], step["content"]) for step in manifest["steps"]]


def test_first_twenty_errors(importing: Importing) -> None:
    records = [record(str(index), reward=[1, 2]) for index in range(100)]
    error = importing.refused(records)
    assert [one.line for one in error.errors] == list(range(1, 21))
    assert "The first 20 errors; reading stopped" in error.detail
    records = [record(str(index), reward="x" if index % 5 == 4 else 1) for index in range(50)]
    error = importing.refused(records)
    assert [one.line for one in error.errors] == list(range(5, 51, 5))
    assert error.detail == "10 errors."
    error = importing.refused([record("a", reward="x")])
    assert error.detail == "1 error: line 1: 'x' is not a number"


def test_no_more_than_twenty_errors(importing: Importing) -> None:
    bad = [record(str(index), reward="x", turn="x", advantage="x") for index in range(10)]
    error = importing.refused(bad)
    assert [one.line for one in error.errors] == [line for line in range(1, 8) for _ in range(3)][:20]
    twice = [record(str(index % 30)) for index in range(60)]
    error = importing.refused(twice)
    assert [one.line for one in error.errors] == list(range(31, 51))


def test_reading_stops_at_twenty_errors(importing: Importing) -> None:
    """The end of the file is cut off, far behind the errors."""
    records = [record(str(index), reward="x" if index < 20 else 1, prompt_text="x" * 300_000) for index in range(100)]
    error = importing.refused(gzip.compress(ndjson(records))[:-8])
    assert [one.line for one in error.errors] == list(range(1, 21))


def test_errors_in_several_chunks(importing: Importing) -> None:
    records = [record(str(index), prompt_text="x" * 1_000_000) for index in range(12)]
    records[1]["reward"] = records[6]["turn"] = records[11]["reward"] = "x"
    assert [line for line, _, _ in importing.errors(records)] == [2, 7, 12]


@pytest.mark.parametrize("change", [{"step": -1}, {"limits": {"line_bytes": 0}}, {"format": "nonsense"}, {"upload": 3}])
def test_task_that_is_none(importing: Importing, change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        importing([record()], **change)


def test_file_that_is_not_there(importing: Importing, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        importing(tmp_path / "nothing")
