"""open-instruct traces, as `open_instruct/rl_utils.py` writes them at e6c3044aa (`asdict(RolloutRecord)`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ingest.files import Importing


def saved(sample: int = 5, **changes: Any) -> dict[str, Any]:
    """A `RolloutRecord` of two samples a prompt."""
    return {
        "step": 12,
        "sample_idx": sample,
        "prompt_idx": sample // 2,
        "prompt_tokens": [1, 2],
        "response_tokens": [7, 8, 9],
        "reward": 10.0,
        "advantage": 0.5,
        "finish_reason": "stop",
        "dataset": "math",
        "ground_truth": [4],
        "request_info": {"num_calls": 1, "tool_errors": "", "tool_called": True},
        "logprobs": [-0.1, -0.02, -3.0],
        **changes,
    }


def test_every_field(importing: Importing) -> None:
    manifest = importing([saved()])
    (row,) = importing.rows()
    assert manifest["format"] == "open-instruct"
    assert (row["step"], row["sample_id"], row["group_id"]) == (12, "5", "12/2")
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([1, 2], [7, 8, 9])
    assert row["rollout_logprobs"] == [-0.1, -0.02, -3.0]
    assert (row["reward"], row["advantage"], row["finish_reason"]) == (10.0, [0.5, 0.5, 0.5], "stop")
    assert json.loads(row["meta"]) == {
        "dataset": "math",
        "ground_truth": [4],
        "request_info": {"num_calls": 1, "tool_errors": "", "tool_called": True},
    }
    absent = ("old_logprobs", "new_logprobs", "policy_version", "turn", "trainer_keep")
    assert {row[name] for name in absent} == {None}


def test_there_is_no_mask(importing: Importing) -> None:
    """Tool tokens cannot be told apart: all count, and the import says so."""
    manifest = importing([saved(4), saved(5)])
    assert [row["response_mask"] for row in importing.rows()] == [[True] * 3] * 2
    (warning,) = manifest["warnings"]
    assert (warning["code"], warning["count"]) == ("no_response_mask", 2)


def test_groups_of_steps_are_apart(importing: Importing) -> None:
    """`prompt_idx` starts again with every step."""
    importing([saved(0), saved(1), saved(2), saved(0, step=13)])
    assert [row["group_id"] for row in importing.rows()] == ["12/0", "12/0", "12/1", "13/0"]


@pytest.mark.parametrize("logprobs", ["[-0.1, 1.0, -3.0]", "[-0.1, null, -3.0]", "[-0.1, NaN, -3.0]"])
def test_a_logprob_that_is_not_known(importing: Importing, logprobs: str) -> None:
    """1.0 is `INVALID_LOGPROB` (utils.py:83)."""
    line = json.dumps(saved(logprobs="L")).replace('"L"', logprobs)
    importing(line.encode())
    assert importing.rows()[0]["rollout_logprobs"] == [-0.1, None, -3.0]


@pytest.mark.parametrize("logprobs", [None, [1.0, 1.0, 1.0]])
def test_no_logprobs_at_all(importing: Importing, logprobs: Any) -> None:
    importing([saved(logprobs=logprobs)])
    assert importing.rows()[0]["rollout_logprobs"] is None


def test_an_empty_response_is_left_out(importing: Importing) -> None:
    manifest = importing([saved(4), saved(5, response_tokens=[], logprobs=[])])
    assert [row["sample_id"] for row in importing.rows()] == ["4"]
    left_out = manifest["warnings"][0]
    assert left_out["message"] == "1 response was left out: the response has no token."
    assert left_out["examples"] == [{"line": 2, "field": None}]


def test_nothing_but_empty_responses(importing: Importing) -> None:
    refused = importing.refused([saved(response_tokens=[])])
    assert "no response to import: the response has no token" in refused.detail


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"logprobs": [-0.1, -0.2]}, "logprobs", "has 2 entries, expected 3 (one short: shifted?)"),
        ({"logprobs": [-0.1, 0.25, -1]}, "logprobs[1]", "0.25 is a positive log-probability"),
        ({"response_tokens": [7, None, 9]}, "response_tokens[1]", "null is not a token id"),
        ({"prompt_tokens": []}, "prompt_tokens", "is empty"),
        ({"prompt_idx": None}, "prompt_idx", "is required and missing"),
        ({"reward": "x"}, "reward", "'x' is not a number"),
        ({"advantage": float("inf")}, "advantage", "inf is not a finite number"),
        ({"finish_reason": 3}, "finish_reason", "expected a string, found a number"),
        ({"sample_idx": 1.5}, "sample_idx", "expected a string or an integer, found a number"),
    ],
)
def test_what_is_refused(importing: Importing, changes: dict[str, Any], field: str, message: str) -> None:
    ((line, name, text),) = importing.errors([saved(0), saved(1, **changes)])
    assert (line, name) == (2, field)
    assert message in text
