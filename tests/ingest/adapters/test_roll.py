"""ROLL: the columns of roll/pipeline/rlvr/utils.py, and the board of `save_metrics` in rlvr_pipeline.py.

roll-8eb27cc-{dump,board}.jsonl are its own, of the responses in tests/data/formats/write_roll.py. `columns` and `board`
are by hand, for what those do not have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import CHAT, words
from tests.ingest.files import Importing, ndjson

FORMATS = Path(__file__).parents[2] / "data" / "formats"
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


def test_columns_as_roll_writes_them(importing: Importing, tokenizer: str) -> None:
    """One object of columns. `messages` go through the chat template; where there are none, `prompt` as it is."""
    manifest = importing(FORMATS / "roll-8eb27cc-dump.jsonl", tokenizer=tokenizer)
    assert (manifest["format"], manifest["rollouts"]) == ("roll", 3)  # the fourth has no text
    first, second, third = importing.rows()
    assert [row["step"] for row in (first, second, third)] == [5, 5, 5]
    assert [row["sample_id"] for row in (first, second, third)] == ["q1/0", "q1/1", "q2/2"]
    assert [row["group_id"] for row in (first, second, third)] == ["q1", "q1", "q2"]
    assert first["prompt_token_ids"] == second["prompt_token_ids"] == [7, 8, 7, 9]
    assert third["prompt_token_ids"] == [4, 6, 10, 9, 6, 5, 6]  # "user\n4?\nassistant\n"
    responses = [[10], [11, 12, 13, 15], [14]]  # without the special tokens
    assert [row["response_token_ids"] for row in (first, second, third)] == responses
    assert [row["response_text"] for row in (first, second, third)] == ["4", "four is it0", "é"]
    assert [row["reward"] for row in (first, second, third)] == [1.0, 0.0, 0.5]
    absent = ("rollout_logprobs", "old_logprobs", "advantage", "policy_version", "finish_reason")
    assert {first[name] for name in absent} == {None}
    assert first["logprobs_approximate"] is True
    assert json.loads(first["meta"]) == {
        "source": "made",
        "difficulty": "1",
        "ground_truth": "4",
        "tag": "sum",
        "domain": "math",
        # what the run has to be given
        "sampling_params": '{"global_step": 5, "generation_config": {"temperature": 0.99, "top_p": 0.95}}',
        "approximate_token_ids": ["prompt", "response"],
    }


def test_without_ids_the_prompt_names_the_group(importing: Importing, tokenizer: str) -> None:
    importing([columns(id=None, prompt=["2+2?", "4?"])], tokenizer=tokenizer)
    first, second = importing.rows()
    assert first["group_id"] != second["group_id"]
    assert {row["sample_id"].rpartition("/")[2] for row in (first, second)} == {"0", "1"}


def test_the_board_as_roll_writes_it(importing: Importing, tokenizer: str) -> None:
    """A prompt padded on the left; lists that run on to the end of the sequence; a response without a token."""
    manifest = importing(FORMATS / "roll-8eb27cc-board.jsonl", tokenizer=tokenizer)
    assert (manifest["format"], manifest["rollouts"]) == ("roll-board", 3)
    assert [one["count"] for one in manifest["warnings"] if one["code"] == "left_out"] == [1]
    first, second, third = importing.rows()
    assert [(row["step"], row["sample_id"]) for row in (first, second, third)] == [(5, "1"), (5, "2"), (5, "3")]
    assert first["group_id"] == second["group_id"] != third["group_id"]
    assert first["prompt_token_ids"] == second["prompt_token_ids"] == [7, 8, 7, 9]
    assert third["prompt_token_ids"] == [10, 9]  # without the padding
    responses = [[10, 2], [11, 12, 13, 15], [14, 2]]  # entries of the vocabulary: the very ids
    assert [row["response_token_ids"] for row in (first, second, third)] == responses
    assert [row["response_mask"] for row in (first, second, third)] == [[True] * 2, [True] * 4, [True] * 2]
    old = [[-0.25, -0.125], [-0.5, -1.0, -2.0, -0.75], [-3.0, -0.5]]
    assert [row["old_logprobs"] for row in (first, second, third)] == old
    assert [row["reward"] for row in (first, second, third)] == [1.0, 0.0, 0.5]
    absent = ("rollout_logprobs", "new_logprobs", "advantage", "policy_version", "finish_reason")
    assert {first[name] for name in absent} == {None}
    assert first["logprobs_approximate"] is True  # the prompt is
    assert json.loads(third["meta"]) == {
        "ref_logprobs": [-2.5, -2.5],
        "log_probs2": [-3.0, -0.5],
        "old_log_probs2_entropy": [0.5, 0.5],
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
