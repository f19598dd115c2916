"""verl's generations, as verl 0.9.1's trainers wrote them; and what holds of every text-only log.

tests/data/formats/verl-0.9.1-{legacy,v1}.jsonl are of the same four responses to two prompts: write_verl.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import Invalid
from tests.ingest.adapters.words import words
from tests.ingest.files import Importing, ndjson

FORMATS = Path(__file__).parents[2] / "data" / "formats"
FIRST, SECOND = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
SUM, FOUR = [1, 4, 6, 7, 8, 7, 9, 6, 5, 6], [1, 4, 6, 10, 9, 6, 5, 6]  # the prompts, with the <bos> they began with
CALL, CUT = [7, 8, 7, 11, 10], [11, 12, 13, 15, 14, 10]  # a response with a tool's token, and one that has no <eos>


def line(**fields: Any) -> dict[str, Any]:
    """A line as the legacy trainer's, for what its own file does not show."""
    return {"input": "user\n2+2?\nassistant\n", "output": "4", "gts": "4", "score": 1.0, "step": 1, **fields}


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return words(tmp_path / "words")


def test_the_v1_trainer(importing: Importing, tmp_path: Path) -> None:
    """A uid is {prompt}_{rollout}_{output}; the last rollout has two outputs, the third only an <eos>."""
    manifest = importing(FORMATS / "verl-0.9.1-v1.jsonl", tokenizer=words(tmp_path / "words", bos=True))
    assert (manifest["format"], manifest["rollouts"]) == ("verl", 4)
    rows = importing.rows()
    assert [(row["group_id"], row["sample_id"]) for row in rows] == [
        (FIRST, f"{FIRST}_0_0"),
        (FIRST, f"{FIRST}_1_0"),
        (SECOND, f"{SECOND}_1_0"),
        (SECOND, f"{SECOND}_1_1"),
    ]
    assert [row["prompt_token_ids"] for row in rows] == [SUM, SUM, FOUR, FOUR]
    assert [row["response_token_ids"] for row in rows] == [[10], CALL, [11], CUT]
    assert [row["reward"] for row in rows] == [1.0, 0.5, 0.25, 0.25]
    assert {row["step"] for row in rows} == {3}
    assert (rows[0]["prompt_text"], rows[0]["response_text"]) == ("user\n2+2?\nassistant\n", "4")
    assert {row["meta"] for row in rows} == {'{"approximate_token_ids":["prompt","response"],"gts":"4"}'}
    assert all(row["logprobs_approximate"] is True and all(row["response_mask"]) for row in rows)
    for name in ("rollout_logprobs", "old_logprobs", "advantage"):
        assert [row[name] for row in rows] == [None] * 4


def test_what_the_v1_trainer_fills_its_batch_with(importing: Importing, tmp_path: Path) -> None:
    manifest = importing(FORMATS / "verl-0.9.1-v1.jsonl", tokenizer=words(tmp_path / "words", bos=True))
    without_text, padding = (warning for warning in manifest["warnings"] if warning["code"] == "left_out")
    assert (without_text["count"], without_text["examples"][0]["line"]) == (1, 3)
    assert padding["message"] == "3 responses were left out: the trainer made them up to fill its batch."
    assert [one["line"] for one in padding["examples"]] == [6, 7, 8]


def test_the_legacy_trainer(importing: Importing, tmp_path: Path) -> None:
    """Rows in the balanced batch's order, and the prompt is all that names the group."""
    manifest = importing(FORMATS / "verl-0.9.1-legacy.jsonl", tokenizer=words(tmp_path / "words", bos=True))
    assert (manifest["format"], manifest["rollouts"]) == ("verl", 3)
    rows = importing.rows()
    assert [row["sample_id"] for row in rows] == ["2", "3", "4"]  # 1 is only an <eos>
    assert rows[0]["group_id"] == rows[2]["group_id"] != rows[1]["group_id"]
    assert [row["prompt_token_ids"] for row in rows] == [SUM, FOUR, SUM]
    assert [row["response_token_ids"] for row in rows] == [[10], CUT, CALL]
    assert [row["reward"] for row in rows] == [1.0, 0.25, 0.5]
    assert {row["step"] for row in rows} == {3}
    assert json.loads(rows[1]["meta"]) == {
        "gts": "4",
        "pred": "é4",  # `acc` is NaN, so not known
        "approximate_token_ids": ["prompt", "response"],
    }


def test_it_is_said_to_be_approximate(importing: Importing, tokenizer: str) -> None:
    warnings = {warning["code"]: warning for warning in importing([line(), line()], tokenizer=tokenizer)["warnings"]}
    assert set(warnings) == {"approximate", "no_response_mask"}
    assert warnings["approximate"]["count"] == 2
    assert warnings["approximate"]["message"].startswith("2 records are approximate: token ids made from text")
    assert [one["line"] for one in warnings["approximate"]["examples"]] == [1, 2]


def test_a_uid_of_the_prompt(importing: Importing, tokenizer: str) -> None:
    """A uuid without a rollout's number belongs to the whole group."""
    importing([line(uid="ab-12"), line(uid="ab-12", output="2")], tokenizer=tokenizer)
    assert [(row["group_id"], row["sample_id"]) for row in importing.rows()] == [
        ("ab-12", "ab-12/1"),
        ("ab-12", "ab-12/2"),
    ]


def test_text_that_is_only_special_tokens(importing: Importing, tokenizer: str) -> None:
    """skip_special_tokens leaves nothing of a response that was only <eos>: one in each of verl's files above."""
    assert "no text is left of them" in importing.refused([line(output="")], tokenizer=tokenizer).detail


def test_without_a_tokenizer(importing: Importing) -> None:
    error = importing.refused([line()])
    assert isinstance(error, Invalid)
    assert error.detail.startswith("The file holds text, no token ids, and its run has no tokenizer")
    assert "--tokenizer DIR" in error.detail
    assert [(found.line, found.field) for found in error.errors] == [(None, "tokenizer")]


def test_tokenizers_that_cannot_be_read(importing: Importing, tmp_path: Path) -> None:
    assert "tokenizer.json is missing" in importing.refused([line()], tokenizer=str(tmp_path)).detail
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json cannot be read" in importing.refused([line()], tokenizer=str(tmp_path)).detail
    folder = Path(words(tmp_path / "words"))
    (folder / "tokenizer_config.json").write_text("{")
    assert "tokenizer_config.json is not JSON" in importing.refused([line()], tokenizer=str(folder)).detail


def test_the_prompt_gets_its_bos_back(importing: Importing, tmp_path: Path) -> None:
    """Decoding strips it, the policy saw it; where it is written out, there is one."""
    tokenizer = words(tmp_path / "words", bos=True)
    importing([line(input="2?"), line(input="<bos>2?"), line(input="<pad><pad>2?")], tokenizer=tokenizer)
    assert [row["prompt_token_ids"] for row in importing.rows()] == [[1, 7, 9]] * 3
    assert [row["response_token_ids"] for row in importing.rows()] == [[10]] * 3


def test_a_tokenizer_that_truncates_and_pads(importing: Importing, tmp_path: Path) -> None:
    folder = Path(words(tmp_path / "words"))
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    importing([line()], tokenizer=str(folder))
    assert importing.rows()[0]["prompt_tokens"] == 9


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({"input": None}, "input", "is required and missing"),
        ({"output": 4}, "output", "expected a string, found a number"),
        ({"score": "1"}, "score", "'1' is not a number"),
        ({"step": -1}, "step", "-1 is not a step"),
        ({"output": "\ud800"}, "output", "has half a surrogate pair"),
        ({"input": ""}, None, "its prompt has no token"),
    ],
)
def test_bad_lines(
    importing: Importing, tokenizer: str, fields: dict[str, Any], name: str | None, message: str
) -> None:
    ((number, field, words_),) = importing.errors([line(), line(**fields)], tokenizer=tokenizer)
    assert (number, field) == (2, name)
    assert words_.startswith(message)


def test_the_tokenizer_is_not_needed_for_ids(importing: Importing) -> None:
    """Native records are never tokenised, whatever they hold: `tokenise` is a field like any other."""
    native = {"step": 0, "sample_id": "a", "group_id": "g", "prompt_token_ids": [1], "response_token_ids": [2]}
    importing(ndjson([{**native, "tokenise": {"response": "4"}}]))
    assert importing.rows()[0]["response_token_ids"] == [2]
    assert importing.rows()[0]["logprobs_approximate"] is None
