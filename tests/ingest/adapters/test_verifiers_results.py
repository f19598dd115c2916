"""Legacy verifiers results.jsonl, as verifiers 0.3.1 wrote it, and what its trajectories can hold besides.

tests/data/formats/verifiers-0.3.1-results.jsonl is of write_verifiers_results.py, beside it: two groups of two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.files import Importing

FORMATS = Path(__file__).parents[2] / "data" / "formats"
SAID = [("user", "2+2?"), ("assistant", "so"), ("user", "go on")]


def step(prompt: list[int], completion: list[int], logprobs: list[float], **fields: Any) -> dict[str, Any]:
    tokens = {
        "prompt_ids": prompt,
        "prompt_mask": [0] * len(prompt),
        "completion_ids": completion,
        "completion_mask": [1] * len(completion),
        "completion_logprobs": logprobs,
        "overlong_prompt": False,
        "is_truncated": False,
        "routed_experts": None,
    }
    return {
        "prompt": [],
        "completion": [],
        "tokens": tokens,
        "reward": None,
        "advantage": None,
        "is_truncated": False,
        "trajectory_id": "abc",
        "extras": {},
        **fields,
    }


def result(*steps: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "example_id": 7,
        "prompt": [{"role": "user", "content": "?"}],
        "completion": [{"role": "assistant", "content": "!"}],
        "reward": 0.5,
        "timing": {"total_ms": 1.0},
        "is_completed": True,
        "is_truncated": False,
        "stop_condition": "done",
        "metrics": {"right": 0.5},
        "right": 0.5,
        "trajectory": list(steps) or [step([1, 2], [3, 4], [-0.5, -0.25])],
        **changes,
    }


def test_results_as_verifiers_writes_them(importing: Importing) -> None:
    manifest = importing(FORMATS / "verifiers-0.3.1-results.jsonl", step=2)
    assert (manifest["format"], manifest["rollouts"]) == ("verifiers-results", 4)
    rows = importing.rows()
    names = [f"{number:032}" for number in range(3)]
    assert [row["sample_id"] for row in rows] == [names[0], f"{names[1]}/0", f"{names[1]}/1", names[2]]
    assert [row["group_id"] for row in rows] == ["7", "7", "7", "8"]
    assert [row["reward"] for row in rows] == [1.0, 0.0, 0.0, 0.5]  # right + quick / 2
    assert {row["step"] for row in rows} == {2}
    assert {row["finish_reason"] for row in rows} == {"stop"}
    for row in rows:
        assert {row[name] for name in ("old_logprobs", "new_logprobs", "policy_version", "trainer_keep")} == {None}
    left = [warning["message"] for warning in manifest["warnings"] if warning["code"] == "left_out"]
    assert left == ["1 response was left out: its trajectory holds no token ids."]  # the server was away


def test_two_turns(importing: Importing) -> None:
    """The second prompt is all that was, and the environment's 50 51. The advantage is 1.0 − (1.0 + 0.0) / 2."""
    importing(FORMATS / "verifiers-0.3.1-results.jsonl", step=2)
    row = importing.rows()[0]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([1, 2], [3, 4, 50, 51, 6])
    assert row["response_mask"] == [True, True, False, False, True]
    assert row["turn"] == [0, 0, 1, 1, 1]
    assert row["rollout_logprobs"] == [-0.5, -0.25, None, None, -1.0]
    assert row["advantage"] == [0.5, 0.5, None, None, 0.5]


def test_a_context_that_was_compacted(importing: Importing) -> None:
    """The second prompt does not begin with what was: it is another response, here cut to the trainer's limit."""
    importing(FORMATS / "verifiers-0.3.1-results.jsonl", step=2)
    first, second = importing.rows()[1:3]
    assert (first["prompt_token_ids"], first["response_token_ids"]) == ([1, 2], [7])
    assert (first["turn"], first["rollout_logprobs"], first["advantage"]) == ([0], [-0.75], [-0.5])
    assert second["prompt_token_ids"] == [1, 9, *range(20, 28)]
    assert (second["response_token_ids"], second["response_mask"]) == ([30, 31], [True, True])
    assert (second["turn"], second["rollout_logprobs"], second["advantage"]) == ([1, 1], [-2.0, -0.125], [-0.5, -0.5])
    assert len(json.loads(first["meta"])["trajectory"]) == 2  # of both steps, once
    assert "trajectory" not in json.loads(second["meta"])


def test_a_prompt_beyond_the_limit(importing: Importing) -> None:
    """No token of the second answer is kept: the response is the first alone."""
    importing(FORMATS / "verifiers-0.3.1-results.jsonl", step=2)
    row = importing.rows()[3]
    assert (row["prompt_token_ids"], row["response_token_ids"], row["turn"]) == ([5], [8], [0])
    assert (row["rollout_logprobs"], row["advantage"]) == ([0.0], [0.25])  # 0.5 − (0.5 + 0.0) / 2
    steps = json.loads(row["meta"])["trajectory"]
    assert [step["overlong_prompt"] for step in steps] == [False, True]


def test_meta(importing: Importing) -> None:
    """The server's response of a step is kept without the tokens that it repeats."""
    importing(FORMATS / "verifiers-0.3.1-results.jsonl", step=2)
    asked, said, more = ({"role": role, "content": content} for role, content in SAID)
    span = {"start": 1, "end": 1, "duration": 0}
    assert json.loads(importing.rows()[0]["meta"]) == {
        "prompt": [asked],
        "completion": [said, more, said],
        "info": {"seed": 0},
        "timing": {
            "start_time": 1,
            **dict.fromkeys(("setup", "generation", "scoring"), span),
            "model": {"spans": [span, span], "duration": 0},
            "env": {"spans": [span], "duration": 0},
            "total": 0,
            "overhead": 0,
        },
        "is_completed": True,
        "is_truncated": False,
        "stop_condition": "max_turns_reached",
        "metrics": {"right": 1, "quick": 0, "num_turns": 2},
        "right": 1,
        "quick": 0,
        "num_turns": 2,
        # the prompts' 2 + 6; of the last alone, those that it did not sample: 7 − 3
        "token_usage": {"input_tokens": 8, "output_tokens": 3, "final_input_tokens": 4, "final_output_tokens": 3},
        "trajectory": [_step([asked], said, 2, 2), _step([asked, said, more], said, 6, 1)],
    }


def _step(asked: list[Any], said: dict[str, str], prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "reasoning_tokens": 0}
    return {
        "prompt": asked,
        "completion": [said],
        "reward": 1,
        "is_truncated": False,
        "overlong_prompt": False,
        "response": {
            "id": "r",
            "created": 1,
            "model": "m",
            "usage": {**usage, "total_tokens": prompt + completion},
            "message": {**said, "finish_reason": "stop", "is_truncated": False},
        },
    }


def test_an_advantage_of_each_step(importing: Importing) -> None:
    """An environment's own, as `add_trajectory_step` can set it."""
    turns = [
        step([1, 2], [3, 4], [-0.5, -0.25], advantage=0.5),
        step([1, 2, 3, 4, 50, 51], [6], [-1.0], advantage=-0.5),
    ]
    importing([result(*turns)], step=2)
    assert importing.rows()[0]["advantage"] == [0.5, 0.5, None, None, -0.5]


def test_a_response_of_another_shape(importing: Importing) -> None:
    importing([result(step([1, 2], [3], [-0.5], response="text"))], step=2)
    (row,) = importing.rows()
    assert row["finish_reason"] is None
    assert json.loads(row["meta"])["trajectory"][0]["response"] == "text"


def test_what_is_masked_and_what_is_not_known(importing: Importing) -> None:
    masked = step([1, 2], [3, 4], [0.0, -0.25])
    masked["tokens"]["completion_mask"] = [0, 1]
    bare = step([1, 2], [5], [], trajectory_id="def")
    importing([result(masked, advantage=0.25), result(bare)], step=2)
    first, second = importing.rows()
    assert (first["rollout_logprobs"], first["advantage"]) == ([None, -0.25], [None, 0.25])
    assert (second["rollout_logprobs"], second["advantage"]) == (None, None)


def test_steps_without_tokens(importing: Importing) -> None:
    """A client that gives no ids, and a prompt that was too long."""
    overlong = step([1, 2], [], [])
    manifest = importing([result(), result(step([1], [2], [-1.0], tokens=None)), result(overlong)], step=2)
    assert manifest["rollouts"] == 1
    (warning,) = manifest["warnings"]
    assert warning["message"] == "2 responses were left out: its trajectory holds no token ids."


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"completion_logprobs": [-1.0]}, "tokens.completion_logprobs", "has 1 entry, expected 2 (one short"),
        ({"completion_logprobs": [-1.0, 1.0]}, "tokens.completion_logprobs[1]", "1.0 is a positive log-probability"),
        ({"completion_mask": [1, 2]}, "tokens.completion_mask[1]", "2 is not 0 or 1"),
        ({"completion_ids": [3, -4]}, "tokens.completion_ids[1]", "-4 is not a token id"),
        ({"prompt_ids": []}, "tokens.prompt_ids", "is missing or empty"),
    ],
)
def test_what_is_refused(importing: Importing, changes: dict[str, Any], field: str, message: str) -> None:
    bad = step([1, 2], [3, 4], [-0.5, -0.25])
    bad["tokens"] |= changes
    ((line, name, text),) = importing.errors([result(), result(bad)], step=2)
    assert (line, name) == (2, f"trajectory[0].{field}")
    assert message in text
