"""Tokens that count and that the policy did not sample."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ingest.files import Importing
from tests.ingest.findings.cases import TOKENS, findings, healthy, note, response, warning

TURNS = [0] * 5 + [1] * 7
TOOL = "<|im_end|>\n<|im_start|>user\n<tool_response>\n4\n</tool_response><|im_end|>\n<|im_start|>assistant\nIt is 4."


def test_turns_without_a_mask(importing: Importing) -> None:
    records = healthy()
    records[2] |= {"turn": TURNS}
    records[5] |= {"turn": TURNS}
    records[7] |= {"turn": TURNS, "response_mask": [1] * 5 + [0] * 2 + [1] * 5}
    found = warning(importing, records, "unmasked_turns")
    assert found["count"] == 2
    assert found["message"].startswith("2 responses have several turns, and every token of them counts. ")
    assert found["examples"][0] == {"line": 3, "field": "turn", "step": 0, "sample_id": "0/0/2"}
    del records[5]["response_mask"]
    found = findings(importing, records)
    assert set(found) == {"unmasked_turns", "no_response_mask"}
    assert "every token of them counts (1 without response_mask)." in found["unmasked_turns"]["message"]


def test_one_turn_each_is_as_it_should_be(importing: Importing) -> None:
    """Values that differ between responses, not within one."""
    assert findings(importing, [one | {"turn": [index % 3] * TOKENS} for index, one in enumerate(healthy())]) == {}


def gap(start: int, length: int) -> list[float | None]:
    return [None if start <= place < start + length else -2.0 for place in range(TOKENS)]


@pytest.mark.parametrize(("length", "warned"), [(7, False), (8, True)])
def test_runs_without_log_prob(importing: Importing, length: int, warned: bool) -> None:
    records = healthy()
    records[3]["rollout_logprobs"] = gap(2, length)
    if not warned:
        assert findings(importing, records) == {}
        return
    found = warning(importing, records, "unknown_runs")
    assert found["count"] == 1
    assert "(8 tokens)" in found["message"]
    assert found["examples"] == [
        {"line": 4, "field": "rollout_logprobs", "step": 0, "sample_id": "0/0/3", "position": 2}
    ]


def test_runs_do_not_go_on_in_the_next_response(importing: Importing) -> None:
    records = healthy()
    records[3]["rollout_logprobs"], records[4]["rollout_logprobs"] = gap(6, 6), gap(0, 6)
    assert findings(importing, records) == {}


def test_runs_that_are_masked_or_of_a_whole_response(importing: Importing) -> None:
    records: list[dict[str, Any]] = healthy()
    records[3] |= {"rollout_logprobs": gap(2, 9), "response_mask": [1] * 2 + [0] * 9 + [1]}
    records[4] |= {"rollout_logprobs": [None] * TOKENS}
    del records[5]["rollout_logprobs"]
    assert findings(importing, records) == {}


HEADERS = [
    TOOL,
    "Let me see.<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n4",
    "call<|call|><|start|>functions.add to=assistant<|channel|>commentary<|message|>4",
    "call[TOOL_RESULTS] 4[/TOOL_RESULTS]",
    "call<|im_end|><|im_system|>tool<|im_middle|>4",
    "call<end_of_turn>\n<start_of_turn>user\n4",
    "call<|observation|>\n4",
    "call<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>4",
]


@pytest.mark.parametrize("text", HEADERS)
def test_the_text_opens_a_message_of_another_role(importing: Importing, text: str) -> None:
    """2 of 24 responses are more than 5 %."""
    records = [one | {"response_text": "It is 4."} for one in healthy()]
    records[1]["response_text"] = records[6]["response_text"] = text
    found = warning(importing, records, "role_headers")
    assert found["count"] == 2
    assert found["message"].startswith("In 2 of 24 responses every token counts, and the text opens a message of ")
    assert found["examples"][0] == {"line": 2, "field": "response_text", "step": 0, "sample_id": "0/0/1"}


def test_a_policy_may_make_up_the_other_side(importing: Importing) -> None:
    records = [one | {"response_text": "It is 4."} for one in healthy()]
    records[1]["response_text"] = TOOL
    assert note(importing, records, "role_headers")["count"] == 1  # of 24: less than 5 %


def test_texts_that_open_nothing(importing: Importing) -> None:
    texts = ["It is 4.<|im_end|>", "<think>a <| b</think>", "call<|observation|>", "call<|observation|>\n", "<|user|>"]
    records = [one | {"response_text": texts[index % 5]} for index, one in enumerate(healthy())]
    assert findings(importing, records) == {}
    masked = [response(response_text=TOOL, response_mask=[1] * 5 + [0] * 2 + [1] * 5)]
    assert findings(importing, masked) == {}


@pytest.mark.parametrize(("echoes", "warned"), [(12, False), (16, True)])
def test_responses_that_hold_their_prompt(importing: Importing, echoes: int, warned: bool) -> None:
    """Three groups of six, then four."""
    records = healthy()
    for one in records[:echoes]:
        one["response_token_ids"][:7] = one["prompt_token_ids"]
    if not warned:
        assert findings(importing, records) == {}
        return
    found = warning(importing, records, "prompt_in_response")
    assert found["count"] == 16
    assert found["message"].startswith("16 of 24 responses begin with their whole prompt: ")


def test_a_short_prompt_comes_again_by_chance(importing: Importing) -> None:
    prompt = [4, 5, 6]
    records = [one | {"prompt_token_ids": prompt} for one in healthy(1)]
    for one in records:
        one["response_token_ids"][:3] = prompt
    assert findings(importing, records) == {}
