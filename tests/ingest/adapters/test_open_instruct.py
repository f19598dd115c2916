"""open-instruct traces, as `open_instruct/rl_utils.py` writes them at e6c3044aa.

open-instruct-e6c3044-rollouts.jsonl is its own, of the responses in tests/data/formats/write_open_instruct.py. `saved`
is a `RolloutRecord` by hand, for what they do not have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.files import Importing

ROLLOUTS = Path(__file__).parents[2] / "data" / "formats" / "open-instruct-e6c3044-rollouts.jsonl"


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
        "request_info": None,
        "logprobs": [-0.1, -0.02, -3.0],
        **changes,
    }


def test_as_open_instruct_writes_it(importing: Importing) -> None:
    """The first response calls a tool, whose answer is the third and fourth token: their log-prob of 0.0 is none."""
    manifest = importing(ROLLOUTS)
    assert (manifest["format"], manifest["rollouts"]) == ("open-instruct", 4)
    first, second, third, fourth = rows = importing.rows()
    assert [(row["step"], row["sample_id"]) for row in rows] == [(12, "0"), (12, "1"), (12, "2"), (12, "3")]
    assert [row["group_id"] for row in rows] == ["12/0", "12/0", "12/1", "12/1"]
    assert (first["prompt_token_ids"], first["response_token_ids"]) == ([1, 4, 6], [10, 11, 30, 31, 12, 2])
    assert first["response_mask"] == [True] * 6
    assert first["rollout_logprobs"] == [-0.25, -1.5, None, None, -2.0, -0.125]
    assert (first["reward"], first["advantage"], first["finish_reason"]) == (10.0, [5.0] * 6, "stop")
    assert json.loads(first["meta"]) == {
        "dataset": "math",
        "ground_truth": ["4"],
        "request_info": {
            "num_calls": 1,
            "timeouts": False,
            "tool_errors": "",
            "tool_outputs": "4",
            "tool_runtimes": 0.5,
            "tool_calleds": True,
            "tool_call_stats": [{"tool_name": "python", "success": True, "runtime": 0.5}],
            "rollout_state": {"rewards": [0], "step_count": 1, "done": False, "info": {}},
        },
    }
    absent = ("old_logprobs", "new_logprobs", "policy_version", "turn", "trainer_keep")
    assert {first[name] for name in absent} == {None}
    assert (second["response_token_ids"], second["rollout_logprobs"]) == ([13, 2], [-0.5, 0.0])  # no tool: p = 1
    assert (second["reward"], second["advantage"]) == (0.0, [-5.0, -5.0])
    assert (third["prompt_token_ids"], third["response_token_ids"]) == ([1, 5], [14, 15, 16])
    assert third["rollout_logprobs"] == [-0.75, -1.0, -3.0]
    assert (third["reward"], third["advantage"], third["finish_reason"]) == (1.0, [0.5] * 3, "length")
    assert json.loads(third["meta"])["ground_truth"] == "short"
    assert (fourth["response_token_ids"], fourth["rollout_logprobs"]) == ([2], None)  # NaN: nothing was generated
    assert (fourth["reward"], fourth["advantage"]) == (0.0, [-0.5])


def test_there_is_no_mask(importing: Importing) -> None:
    """Tool tokens are not marked: all count, and the import says so."""
    manifest = importing(ROLLOUTS)
    found = {warning["code"]: warning["count"] for warning in manifest["warnings"]}
    assert found["no_response_mask"] == 4


def test_groups_of_steps_are_apart(importing: Importing) -> None:
    """`prompt_idx` starts again with every step."""
    importing([saved(0), saved(0, step=13)])
    assert [row["group_id"] for row in importing.rows()] == ["12/0", "13/0"]


@pytest.mark.parametrize("logprobs", ["[-0.1, 1.0, -3.0]", "[-0.1, null, -3.0]"])
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
