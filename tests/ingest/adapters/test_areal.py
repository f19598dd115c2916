"""AReaL's dump_to_file, as `_dump_trajectory` of areal/infra/workflow_executor.py writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import words
from tests.ingest.files import Importing


def line(**fields: Any) -> dict[str, Any]:
    written = {
        "task_id": 41,
        "sample_idx": 2,
        "seqlen": 6,
        "prompt_len": 4,
        "head_version": 7,
        "tail_version": 7,
        "reward": 1.0,
        "prompt": "2+2?",
        "completion": "4<eos>",
    }
    return {**written, **fields}


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return words(tmp_path / "words")


def test_every_field(importing: Importing, tokenizer: str) -> None:
    manifest = importing([line()], tokenizer=tokenizer)
    assert manifest["format"] == "areal"
    (row,) = importing.rows()
    assert (row["step"], row["group_id"], row["sample_id"]) == (7, "41", "41/2")
    assert row["prompt_token_ids"] == [7, 8, 7, 9]
    assert row["response_token_ids"] == [10, 2]  # the end of the text is kept, and is one token
    assert row["policy_version"] == [7, 7]
    assert row["reward"] == 1
    assert row["logprobs_approximate"] is True
    meta = {"seqlen": 6, "prompt_len": 4, "head_version": 7, "tail_version": 7}
    assert json.loads(row["meta"]) == {**meta, "approximate_token_ids": ["prompt", "response"]}


@pytest.mark.parametrize("head", [5, -1, None])
def test_several_policy_versions(importing: Importing, tokenizer: str, head: int | None) -> None:
    """Which token is whose is not in the file; −1 is the version of prompt tokens (areal/workflow/rlvr.py)."""
    manifest = importing([line(head_version=head)], tokenizer=tokenizer)
    (row,) = importing.rows()
    assert (row["step"], row["policy_version"]) == (7, None)
    found = [one["message"] for one in manifest["notes"] if one["code"] == "several_policy_versions"]
    assert len(found) == (head == 5)  # of the lowest one nothing is known where it is −1 or not there
    assert all("(up to 2 apart)" in message for message in found)
    assert json.loads(row["meta"]).get("head_version") == head


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({"tail_version": None}, "tail_version", "is required and missing"),
        ({"tail_version": -1}, "tail_version", "-1 is not a step"),
        ({"sample_idx": "0"}, "sample_idx", "'0' is not an integer"),
        ({"prompt": ["2"]}, "prompt", "expected a string, found a list"),
    ],
)
def test_bad_lines(importing: Importing, tokenizer: str, fields: dict[str, Any], name: str, message: str) -> None:
    ((number, field, words_),) = importing.errors([line(), line(**fields)], tokenizer=tokenizer)
    assert (number, field) == (2, name)
    assert words_.startswith(message)
