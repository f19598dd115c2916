"""The seam for other formats: what a new adapter has to bring, and how one is chosen."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import Invalid
from service.ingest.adapters import ADAPTERS, Adapter, choose
from service.ingest.adapters.native import NATIVE
from service.ingest.pipeline import ingest
from tests.ingest.files import Importing, ndjson, parquet, record


def convert(line: int, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A group a line, a sample for each score."""
    for index, score in enumerate(fields["scores"]):
        yield record(f"{line}/{index}", response_token_ids=fields["ids"], response_mask=None, reward=score)


GROUPS = Adapter("groups", lambda names: {"ids", "scores"} <= names, convert)


def test_choice() -> None:
    both = (GROUPS, NATIVE)
    assert choose("auto", frozenset({"ids", "scores", "x"}), both) is GROUPS
    assert choose("auto", frozenset(record()), both) is NATIVE
    assert choose("auto", frozenset({"nothing", "known"}), both) is NATIVE
    assert choose("groups", frozenset(), both) is GROUPS
    with pytest.raises(Invalid, match="There is no format 'lime'; the formats are auto, groups, native"):
        choose("lime", frozenset(), both)
    assert NATIVE in ADAPTERS


@pytest.mark.parametrize("chosen", ["auto", "groups"])
def test_lines(importing: Importing, chosen: str) -> None:
    content = ndjson(["", {"ids": [1, 2], "scores": [0.5, 1]}, {"ids": [3], "scores": [2]}])
    manifest = ingest(importing.task(gzip.compress(content), format=chosen), importing.events.append, (GROUPS, NATIVE))
    assert (manifest["format"], manifest["rollouts"]) == ("groups", 3)
    assert [(row["sample_id"], row["reward"], row["response_token_ids"]) for row in importing.rows()] == [
        ("2/0", 0.5, [1, 2]),
        ("2/1", 1, [1, 2]),
        ("3/0", 2, [3]),
    ]


def test_errors_name_the_line_of_the_file(importing: Importing) -> None:
    content = ndjson([{"ids": [1], "scores": [1]}, "{", {"ids": [1], "scores": [1, "x"]}])
    with pytest.raises(Exception) as caught:
        ingest(importing.task(content), importing.events.append, (GROUPS, NATIVE))
    assert [(error.line, error.field) for error in caught.value.errors] == [(2, None), (3, "reward")]  # type: ignore[attr-defined]


def test_parquet(importing: Importing) -> None:
    path = parquet(importing.folder / "in", {"ids": [[1, 2], [3]], "scores": [[0.5], [1.0, 2.0]]})
    manifest = ingest(importing.task(path), importing.events.append, (GROUPS, NATIVE))
    assert (manifest["format"], manifest["rollouts"]) == ("groups", 3)
    assert [row["sample_id"] for row in importing.rows()] == ["1/0", "2/0", "2/1"]
