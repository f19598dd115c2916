"""Legacy verifiers results.jsonl, as `legacy/utils/save_utils.py` (`state_to_output` with `trajectory`) makes its lines
at a60a606ec; the tokens of a step as `legacy/types.py` (`TrajectoryStepTokens`) names them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ingest.files import Importing


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


def test_every_field(importing: Importing) -> None:
    """Two turns: the second prompt is all that was, and a tool's 50 51."""
    turns = [
        step([1, 2], [3, 4], [-0.5, -0.25], advantage=0.5),
        step([1, 2, 3, 4, 50, 51], [6], [-1.0], advantage=-0.5, reward=0.25),
    ]
    turns[1]["tokens"]["is_truncated"] = True  # of the tokens, which is what the step's says too
    manifest = importing([result(*turns)], step=2)
    (row,) = importing.rows()
    assert (manifest["format"], manifest["warnings"]) == ("verifiers-results", [])
    assert (row["step"], row["sample_id"], row["group_id"], row["reward"]) == (2, "abc", "7", 0.5)
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([1, 2], [3, 4, 50, 51, 6])
    assert row["response_mask"] == [True, True, False, False, True]
    assert row["turn"] == [0, 0, 1, 1, 1]
    assert row["rollout_logprobs"] == [-0.5, -0.25, None, None, -1.0]
    assert row["advantage"] == [0.5, 0.5, None, None, -0.5]
    assert json.loads(row["meta"]) == {
        "stop_condition": "done",
        "is_completed": True,
        "is_truncated": False,
        "metrics": {"right": 0.5},
        "right": 0.5,
        "prompt": [{"role": "user", "content": "?"}],
        "completion": [{"role": "assistant", "content": "!"}],
        "timing": {"total_ms": 1},
        "trajectory": [
            {"is_truncated": False, "overlong_prompt": False},
            {"is_truncated": True, "overlong_prompt": False, "reward": 0.25},
        ],
    }


def test_a_context_that_was_compacted(importing: Importing) -> None:
    """The second prompt does not begin with what was: it is another response."""
    importing([result(step([1, 2], [3, 4], [-0.5, -0.25]), step([1, 9], [6], [-1.0]))], step=2)
    first, second = importing.rows()
    assert (first["sample_id"], second["sample_id"]) == ("abc/0", "abc/1")
    assert (second["prompt_token_ids"], second["response_token_ids"]) == ([1, 9], [6])
    assert second["turn"] == [1]
    assert len(json.loads(first["meta"])["trajectory"]) == 2  # of both steps, once
    assert "trajectory" not in json.loads(second["meta"])


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
