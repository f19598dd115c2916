"""verl, as `_write_generations` (ray_trainer.py) and the v1 trainer write it; and what holds of every text-only log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import Invalid
from tests.ingest.adapters.words import words
from tests.ingest.files import Importing, ndjson


def line(**fields: Any) -> dict[str, Any]:
    """A line of the trainer: the template's special tokens are stripped from `input`, the end from `output`."""
    written = {"input": "user\n2+2?\nassistant\n", "output": "4", "gts": "4", "score": 1.0, "step": 1, "acc": 1.0}
    return {**written, **fields}


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return words(tmp_path / "words")


def test_every_field(importing: Importing, tokenizer: str) -> None:
    manifest = importing([line(uid="ab12_0_0"), line(uid="ab12_1_0", output="four", score=0)], tokenizer=tokenizer)
    assert manifest["format"] == "verl"
    first, second = importing.rows()
    assert first["sample_id"] == "ab12_0_0"
    assert {first["group_id"], second["group_id"]} == {"ab12"}
    assert first["step"] == 1
    assert first["prompt_token_ids"] == [4, 6, 7, 8, 7, 9, 6, 5, 6]
    assert (first["response_token_ids"], second["response_token_ids"]) == ([10], [11])
    assert (first["reward"], second["reward"]) == (1, 0)
    assert (first["prompt_text"], first["response_text"]) == ("user\n2+2?\nassistant\n", "4")
    assert json.loads(first["meta"]) == {"gts": "4", "acc": 1.0, "approximate_token_ids": ["prompt", "response"]}
    assert first["rollout_logprobs"] is first["old_logprobs"] is first["advantage"] is None
    assert first["logprobs_approximate"] is True


def test_it_is_said_to_be_approximate(importing: Importing, tokenizer: str) -> None:
    warnings = {warning["code"]: warning for warning in importing([line(), line()], tokenizer=tokenizer)["warnings"]}
    assert set(warnings) == {"approximate", "no_response_mask"}
    assert warnings["approximate"]["count"] == 2
    assert warnings["approximate"]["message"].startswith("2 records are approximate: token ids made from text")
    assert [one["line"] for one in warnings["approximate"]["examples"]] == [1, 2]


def test_groups_without_uid(importing: Importing, tokenizer: str) -> None:
    """The legacy trainer: rows in the batch's order, the prompt is all that names the group."""
    importing([line(), line(output="2"), line(input="2?", request_id="r7")], tokenizer=tokenizer)
    first, second, third = importing.rows()
    assert [row["sample_id"] for row in (first, second, third)] == ["1", "2", "3"]
    assert first["group_id"] == second["group_id"] != third["group_id"]
    assert json.loads(third["meta"])["request_id"] == "r7"


def test_a_uid_of_the_prompt(importing: Importing, tokenizer: str) -> None:
    """A uuid without a rollout's number belongs to the whole group."""
    importing([line(uid="ab-12"), line(uid="ab-12", output="2")], tokenizer=tokenizer)
    assert [(row["group_id"], row["sample_id"]) for row in importing.rows()] == [
        ("ab-12", "ab-12/1"),
        ("ab-12", "ab-12/2"),
    ]


def test_text_that_is_only_special_tokens(importing: Importing, tokenizer: str) -> None:
    """skip_special_tokens leaves nothing of a response that was only <eos>."""
    manifest = importing([line(), line(output="")], tokenizer=tokenizer)
    assert manifest["rollouts"] == 1
    (warning,) = [warning for warning in manifest["warnings"] if warning["code"] == "left_out"]
    assert (warning["count"], warning["examples"][0]["line"]) == (1, 2)
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
