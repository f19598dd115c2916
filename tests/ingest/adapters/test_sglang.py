"""SGLang's /generate, as its tokenizer manager builds `text`, `output_ids` and `meta_info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import words
from tests.ingest.files import Importing, ndjson

TOP = [[[-0.1, 10, None], [-2.5, 11, None]], [[-0.2, 2, None], [-1.9, 6, None]]]


def line(meta: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A response of two tokens to a prompt of three, asked for with return_logprob and top_logprobs_num=2."""
    written = {
        "text": "4",
        "output_ids": [10, 2],
        "prompt_token_ids": [7, 8, 7],
        "meta_info": {
            "id": "r1",
            "finish_reason": {"type": "stop", "matched": 2},
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "weight_version": "12",
            "input_token_logprobs": [[None, 7, None], [-3.0, 8, None], [-1.0, 7, None]],
            "output_token_logprobs": [[-0.1, 10, None], [-0.2, 2, None]],
            "output_token_logprobs_length": 2,
            "input_top_logprobs": [None, [[-3.0, 8, None]], [[-1.0, 7, None]]],
            "output_top_logprobs": TOP,
            "output_token_ids_logprobs": [[[-5.0, 99, None]], [[-6.0, 99, None]]],
            **(meta or {}),
        },
        "step": 4,
        "reward": 1.0,
    }
    return {name: value for name, value in {**written, **fields}.items() if value is not ...}


def test_every_field(importing: Importing) -> None:
    manifest = importing([line()])
    assert manifest["format"] == "sglang"
    (row,) = importing.rows()
    assert (row["step"], row["sample_id"], row["reward"]) == (4, "r1", 1)
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([7, 8, 7], [10, 2])
    assert row["rollout_logprobs"] == [-0.1, -0.2]
    assert row["rollout_top_token_ids"] == [[10, 11], [2, 6]]
    assert row["rollout_top_logprobs"] == [[-0.1, -2.5], [-0.2, -1.9]]
    assert (row["finish_reason"], row["policy_version"]) == ("stop", [12, 12])
    assert row["response_text"] == "4"
    assert row["logprobs_approximate"] is None
    assert json.loads(row["meta"]) == {
        "finish_reason": {"type": "stop", "matched": 2},
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "output_token_logprobs_length": 2,
    }


def test_ids_out_of_the_triples(importing: Importing) -> None:
    """Older servers write neither `output_ids` nor `prompt_token_ids`."""
    importing([line(output_ids=..., prompt_token_ids=...)])
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([7, 8, 7], [10, 2])


def test_half_a_prompt_is_no_prompt(importing: Importing) -> None:
    """logprob_start_len > 0: the triples begin inside the prompt."""
    short = {"input_token_logprobs": [[None, 8, None], [-1.0, 7, None]]}
    ((number, field, message),) = importing.errors([line(short, prompt_token_ids=...)])
    assert (number, field) == (1, "prompt_token_ids")
    assert message.startswith("is required and missing; ask for return_prompt_token_ids, or return_logprob")


def test_the_same_prompt_is_the_same_group(importing: Importing) -> None:
    importing(
        [line(), line({"id": "r2"}), line({"id": "r3"}, prompt_token_ids=[8, 8, 8]), line({"id": "r4"}, group_id="g")]
    )
    groups = [row["group_id"] for row in importing.rows()]
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == "g"


def test_top_lists_are_sorted_and_may_lack_a_position(importing: Importing) -> None:
    importing([line({"output_top_logprobs": [None, [[-1.9, 6, "2"], [-0.2, 2, None], [None, 5, None]]]})])
    (row,) = importing.rows()
    assert row["rollout_top_token_ids"] == [None, [2, 6]]
    assert row["rollout_top_logprobs"] == [None, [-0.2, -1.9]]


def test_without_logprobs(importing: Importing) -> None:
    importing([without()])
    (row,) = importing.rows()
    assert row["rollout_logprobs"] is row["rollout_top_token_ids"] is row["policy_version"] is None
    assert json.loads(row["meta"]) == {"weight_version": "default", "finish_reason": {"type": "length", "length": 2}}


def without() -> dict[str, Any]:
    response = line()
    response["meta_info"] = {"id": "r1", "finish_reason": {"type": "length", "length": 2}, "weight_version": "default"}
    return response


def test_text_alone_is_approximate(importing: Importing, tmp_path: Path) -> None:
    response = {**without(), "prompt": "2+2?"}
    del response["output_ids"], response["prompt_token_ids"]
    importing([response], tokenizer=words(tmp_path / "words"))
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([7, 8, 7, 9], [10])
    assert row["logprobs_approximate"] is True
    assert json.loads(row["meta"])["approximate_token_ids"] == ["prompt", "response"]


def test_the_step_may_come_with_the_upload(importing: Importing) -> None:
    importing([line(step=...)], step=9)
    assert importing.rows()[0]["step"] == 9


def answered(*triples: list[Any], name: str = "output_token_logprobs") -> dict[str, Any]:
    return line({name: list(triples)})


GOOD = [-0.2, 2, None]


@pytest.mark.parametrize(
    ("response", "field", "message"),
    [
        (answered(GOOD), "output_token_logprobs", "is of 1 tokens, but output_ids has 2 (one short: shifted?)"),
        (answered(GOOD, [-0.1, 10, None]), "output_token_logprobs", "is of other tokens than output_ids"),
        (answered([-0.1], GOOD), "output_token_logprobs[0]", "a list is not [logprob, token id, text]"),
        (answered([0.5, 10, None], GOOD), "output_token_logprobs[0]", "0.5 is a positive log-probability"),
        (answered(["x", 10, None], GOOD), "output_token_logprobs[0]", "'x' is not a number"),
        (answered(TOP[0], name="output_top_logprobs"), "output_top_logprobs", "has 1 entry, expected 2 (one short"),
        (line({"output_top_logprobs": [1, 2]}), "output_top_logprobs[0]", "expected a list or null, found 1"),
    ],
)
def test_bad_logprobs(importing: Importing, response: dict[str, Any], field: str, message: str) -> None:
    ((number, name, words_), *_) = importing.errors(ndjson([response]))
    assert (number, name) == (1, f"meta_info.{field}")
    assert words_.startswith(message)


@pytest.mark.parametrize(
    ("response", "field", "message"),
    [
        (line(step=...), "step", "is required and missing; give it in the record, or as step= beside the file"),
        (line(meta_info=3), "meta_info", "expected an object, found a number"),
    ],
)
def test_bad_lines(importing: Importing, response: dict[str, Any], field: str, message: str) -> None:
    ((number, name, words_), *_) = importing.errors(ndjson([response]))
    assert (number, name) == (1, field)
    assert words_.startswith(message)
