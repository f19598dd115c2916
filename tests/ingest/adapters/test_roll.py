"""ROLL: the columns of roll/pipeline/rlvr/utils.py, and the board of `save_metrics` in rlvr_pipeline.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import CHAT, words
from tests.ingest.files import Importing, ndjson

MESSAGES = json.dumps([{"role": "user", "content": "2+2?"}])


def columns(**fields: Any) -> dict[str, Any]:
    """A step of two responses to one prompt."""
    written = {
        "global_step": [5, 5],
        "id": ["q1", "q1"],
        "difficulty": ["1", "1"],
        "prompt": ["2+2?", "2+2?"],
        "ground_truth": ["4", "4"],
        "domain": ["math", "math"],
        "responses": ["4", "four"],
        "scores": [1.0, 0.0],
        "sampling_params": ['{"temperature": 0.99, "top_p": 0.95}'] * 2,
    }
    return {name: value for name, value in {**written, **fields}.items() if value is not None}


def board(**fields: Any) -> dict[str, Any]:
    """Prompt padded on the left, response on the right to 4 tokens; the lists run on to the end of the sequence."""
    written = {
        "log_probs2": [-0.1, -0.2, 0.0, 0.0, 0.0],
        "logprobs": [-0.11, -0.21, 0.0, 0.0, 0.0],
        "new_response_mask": [1, 1, 0, 0, 0],
        "prompt": "<pad><pad>2+2?",
        "response": "4<eos><pad><pad>",
        "old_log_probs2_entropy": [0.5, 0.4, 0.0, 0.0, 0.0],
        "ref_logprobs": [-0.3, -0.4, 0.0, 0.0, 0.0],
        "values": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "token_rewards": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "reward": 1.0,
        "step": 5,
        "response_tokens": ["4", "<eos>", "<pad>", "<pad>"],
    }
    return {**written, **fields}


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return words(tmp_path / "words", chat_template=CHAT)


def test_columns(importing: Importing, tokenizer: str) -> None:
    manifest = importing([columns()], tokenizer=tokenizer)
    assert (manifest["format"], manifest["rollouts"]) == ("roll", 2)
    first, second = importing.rows()
    assert (first["step"], first["group_id"]) == (5, "q1")
    assert (first["sample_id"], second["sample_id"]) == ("q1/0", "q1/1")
    assert first["prompt_token_ids"] == [7, 8, 7, 9]
    assert (first["response_token_ids"], second["response_token_ids"]) == ([10], [11])
    assert (first["reward"], second["reward"]) == (1, 0)
    assert first["logprobs_approximate"] is True
    meta = {"difficulty": "1", "ground_truth": "4", "domain": "math"}
    meta["sampling_params"] = '{"temperature": 0.99, "top_p": 0.95}'  # what the run has to be given
    assert json.loads(first["meta"]) == {**meta, "approximate_token_ids": ["prompt", "response"]}


def test_messages_go_through_the_template(importing: Importing, tokenizer: str) -> None:
    """ROLL encodes `messages` where the data has them, and `prompt` as it is where it has not."""
    importing([columns(messages=[MESSAGES, None])], tokenizer=tokenizer)
    first, second = importing.rows()
    assert first["prompt_token_ids"] == [4, 6, 7, 8, 7, 9, 6, 5, 6]  # "user\n2+2?\nassistant\n"
    assert second["prompt_token_ids"] == [7, 8, 7, 9]


def test_without_ids_the_prompt_names_the_group(importing: Importing, tokenizer: str) -> None:
    importing([columns(id=None, prompt=["2+2?", "4?"])], tokenizer=tokenizer)
    first, second = importing.rows()
    assert first["group_id"] != second["group_id"]
    assert {row["sample_id"].rpartition("/")[2] for row in (first, second)} == {"0", "1"}


def test_the_board(importing: Importing, tokenizer: str) -> None:
    manifest = importing([board()], tokenizer=tokenizer)
    assert manifest["format"] == "roll-board"
    (row,) = importing.rows()
    assert (row["step"], row["sample_id"], row["reward"]) == (5, "1", 1)
    assert row["prompt_token_ids"] == [7, 8, 7, 9]  # without the padding
    assert row["response_token_ids"] == [10, 2]  # entries of the vocabulary: the very ids
    assert row["response_mask"] == [True, True]
    assert row["old_logprobs"] == [-0.11, -0.21]
    assert row["rollout_logprobs"] is None
    assert row["logprobs_approximate"] is True  # the prompt is
    assert json.loads(row["meta"]) == {
        "ref_logprobs": [-0.3, -0.4],
        "log_probs2": [-0.1, -0.2],
        "old_log_probs2_entropy": [0.5, 0.4],
        "approximate_token_ids": ["prompt"],
    }


def test_masked_tokens_have_no_logprob(importing: Importing, tokenizer: str) -> None:
    """0.0 where the mask is 0 is a sentinel."""
    tokens = ["4", "2", "<eos>", "<pad>"]
    line = board(new_response_mask=[1, 0, 1, 0, 0], logprobs=[-0.1, 0.0, -0.3, 0.0, 0.0], response_tokens=tokens)
    importing([line], tokenizer=tokenizer)
    (row,) = importing.rows()
    assert row["response_mask"] == [True, False, True]
    assert row["old_logprobs"] == [-0.1, None, -0.3]


def test_logprobs_that_were_not_recomputed(importing: Importing, tokenizer: str) -> None:
    """Without enable_old_logprobs_recompute the trainer's are zeros: that is warned of."""
    warnings = importing([board(logprobs=[0.0] * 5)], tokenizer=tokenizer)["warnings"]
    assert "zero_logprobs" in {warning["code"] for warning in warnings}


def test_a_response_without_tokens(importing: Importing, tokenizer: str) -> None:
    lists = ("logprobs", "new_response_mask", "ref_logprobs", "log_probs2", "old_log_probs2_entropy")
    empty: dict[str, list[float]] = {name: [] for name in lists}
    manifest = importing([board(), board(**empty)], tokenizer=tokenizer)
    assert manifest["rollouts"] == 1
    assert [one["count"] for one in manifest["warnings"] if one["code"] == "left_out"] == [1]


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (columns(scores=[1.0]), "scores", "has 1 entry, expected 2 (one short: shifted?)"),
        (columns(global_step=[5, "x"]), "global_step[1]", "'x' is not a step"),
        (columns(responses=["4", None]), "responses[1]", "is required and missing"),
        (columns(messages=[MESSAGES, "2+2?"]), "messages[1]", "'2+2?' is not a JSON list of chat messages"),
        (columns(responses="4"), "responses", "expected a list, found a string"),
        (board(logprobs=[-0.1] * 4), "logprobs", "has 4 entries, expected 5 (one short: shifted?)"),
        (board(logprobs=[0.1] * 5), "logprobs[0]", "0.1 is a positive log-probability"),
        (board(new_response_mask=[1, 2, 0, 0, 0]), "new_response_mask[1]", "2 is not 0 or 1"),
        (board(response_tokens=["4"]), "response_tokens", "has 1 entries, but new_response_mask marks 2 tokens"),
        (board(response_tokens=["4", 2, "<pad>"]), "response_tokens", "expected entries of the vocabulary"),
        (board(response_tokens=["4", "five"]), None, "token 'five' is not in the vocabulary of the run's tokenizer"),
    ],
)
def test_bad_lines(importing: Importing, tokenizer: str, line: dict[str, Any], field: str | None, message: str) -> None:
    ((number, name, words_), *_) = importing.errors(ndjson([line]), tokenizer=tokenizer)
    assert (number, name) == (1, field)
    assert words_.startswith(message)
