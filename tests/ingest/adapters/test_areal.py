"""AReaL's dump_to_file, as areal 1.0.4 wrote it, and what its lines can hold besides.

tests/data/formats/areal-1.0.4-rollout.jsonl is of write_areal.py, beside it: three tasks, one file after the other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import words
from tests.ingest.files import Importing

FORMATS = Path(__file__).parents[2] / "data" / "formats"


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
    return words(tmp_path / "words", bos=True)


def test_rollouts_as_areal_writes_them(importing: Importing, tokenizer: str) -> None:
    manifest = importing(FORMATS / "areal-1.0.4-rollout.jsonl", tokenizer=tokenizer)
    assert (manifest["format"], manifest["rollouts"]) == ("areal", 5)  # the one without a completion is not in the file
    rows = importing.rows()
    assert [row["step"] for row in rows] == [7, 7, 8, 9, 9]
    assert [row["sample_id"] for row in rows] == ["0/0", "0/1", "1/0", "2/0", "2/1"]
    assert [row["group_id"] for row in rows] == ["0", "0", "1", "2", "2"]
    assert [row["reward"] for row in rows] == [1.0, 0.0, 0.5, 0.25, None]  # the last is NaN in the file
    assert {row["logprobs_approximate"] for row in rows} == {True}
    for row in rows:
        absent = ("rollout_logprobs", "old_logprobs", "new_logprobs", "advantage", "turn", "finish_reason")
        assert {row[name] for name in absent} == {None}


def test_a_group(importing: Importing, tokenizer: str) -> None:
    """Special tokens are kept in the text, and are one token each, not doubled."""
    importing(FORMATS / "areal-1.0.4-rollout.jsonl", tokenizer=tokenizer)
    first, second = importing.rows()[:2]
    assert first["prompt_token_ids"] == second["prompt_token_ids"] == [1, 4, 6, 7, 8, 7, 9, 6, 5, 6]
    assert first["prompt_text"] == "<bos>user\n2+2?\nassistant\n"
    assert (first["response_token_ids"], first["response_text"]) == ([10, 2], "4<eos>")
    assert (second["response_token_ids"], second["response_text"]) == ([11, 12, 13], "four is it")
    assert json.loads(first["meta"]) == {
        "seqlen": 12,
        "prompt_len": 10,
        "head_version": -1,
        "tail_version": 7,
        "approximate_token_ids": ["prompt", "response"],
    }


def test_policy_versions_as_areal_writes_them(importing: Importing, tokenizer: str) -> None:
    """The workflows say −1 for a prompt, so that the lowest is not known; one that says none has the engine's."""
    manifest = importing(FORMATS / "areal-1.0.4-rollout.jsonl", tokenizer=tokenizer)
    rows = importing.rows()
    assert [row["policy_version"] for row in rows] == [None, None, None, [9, 9], [9]]
    assert [json.loads(row["meta"])["head_version"] for row in rows] == [-1, -1, -1, 9, 9]
    assert "several_policy_versions" not in {one["code"] for one in manifest["notes"]}


def test_two_turns_are_cut_by_their_number_of_tokens(importing: Importing, tokenizer: str) -> None:
    """A writer's fault that the file does not show: of `four<eos>`, a question and `4<eos>`, the three sampled tokens
    are `four` and `4<eos>`; the completion is the last three.
    """
    importing(FORMATS / "areal-1.0.4-rollout.jsonl", tokenizer=tokenizer)
    row = importing.rows()[2]
    assert row["prompt_text"] == "<bos>user\n2+2?\nassistant\nfour<eos>\nuser\n0?\nassistant"
    assert (row["response_text"], row["response_token_ids"]) == ("\n4<eos>", [6, 10, 2])


@pytest.mark.parametrize("head", [5, None])
def test_several_policy_versions(importing: Importing, tokenizer: str, head: int | None) -> None:
    """Of a workflow of one's own that has no −1. Which token is whose is not in the file."""
    manifest = importing([line(head_version=head)], tokenizer=tokenizer)
    (row,) = importing.rows()
    assert (row["step"], row["policy_version"]) == (7, None)
    found = [one["message"] for one in manifest["notes"] if one["code"] == "several_policy_versions"]
    assert len(found) == (head == 5)
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
