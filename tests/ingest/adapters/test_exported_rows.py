"""Rows of class pickles as their exports write them: SkyRL's batch, and the two layouts of a DataProto.

That the exports write these rows: tests/cli/test_convert.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ingest.files import Importing

Fields = dict[str, Any]

SKYRL: Fields = {  # two prompt tokens, three response tokens, padded on the left to 7 and 4
    "sequences": [0, 0, 5, 9, 11, 30, 2],
    "attention_mask": [0, 0, 1, 1, 1, 1, 1],
    "response_mask": [0, 1, 1, 1],
    "loss_mask": [0.0, 1.0, 0.0, 1.0],
    "rollout_logprobs": [0.0, -0.5, 0.0, -1.0],
    "action_log_probs": [-3.0, -0.75, -9.0, -1.25],
    "advantages": [0.0, 0.5, 0.5, 0.5],
    "base_action_log_probs": [0.0, -4.0, -4.0, -4.0],  # neither these nor the next are in the export's keys
    "values": [0.0, 1.0, 1.0, 1.0],
    "returns": [0.0, 1.0, 1.0, 1.0],
    "kl": [0.0, 0.1, 0.1, 0.1],
}
VERL: Fields = {  # RolloutSkip's batch, and what the trainer adds: the prompt padded left to 3, the response right to 4
    "input_ids": [0, 5, 9, 11, 30, 2, 0],
    "attention_mask": [0, 1, 1, 1, 1, 1, 0],
    "position_ids": [0, 0, 1, 2, 3, 4, 4],
    "prompts": [0, 5, 9],
    "responses": [11, 30, 2, 0],
    "response_mask": [1, 0, 1, 0],
    "rollout_log_probs": [-0.5, 0.0, -1.0, 0.0],
    "old_log_probs": [-0.75, -9.0, -1.25, -7.0],
    "advantages": [0.5, 0.0, 0.25, 0.0],
    "rm_scores": [0.0, 0.0, 1.0, 0.0],
    "rollout_topk_token_ids": [[11, 4], [30, 4], [2, 4], [0, 0]],
    "rollout_topk_logprobs": [[-0.5, -1.5], [0.0, 0.0], [-1.0, -2.0], [0.0, 0.0]],
    "uid": "ab12",
}
ROLL: Fields = {  # `utils/functionals.py:775`: all padded on the right; log-probs begin with the second token
    "input_ids": [5, 9, 11, 30, 2, 0],
    "attention_mask": [1, 1, 1, 1, 1, 0],
    "response_mask": [0, 0, 1, 0, 1, 0],
    "infer_logprobs": [0.0, -0.5, 0.0, -1.0, 0.0],
    "old_log_probs": [-8.0, -0.75, -9.0, -1.25, -7.0],
    "prompt_id": 4,
}


def test_skyrl(importing: Importing) -> None:
    manifest = importing([{**SKYRL, "step": 6}])
    (row,) = importing.rows()
    assert (manifest["format"], manifest["warnings"]) == ("skyrl", [])
    assert (row["step"], row["sample_id"]) == (6, "0")
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([5, 9], [11, 30, 2])
    assert row["response_mask"] == [True, False, True]
    assert row["rollout_logprobs"] == [-0.5, None, -1.0]
    assert row["old_logprobs"] == [-0.75, None, -1.25]
    assert [row["advantage"][place] for place in (0, 2)] == [0.5, 0.5]
    assert row["reward"] is None  # popped before the dump
    assert row["turn"] == [0, 1, 1]
    assert row["meta"] is None


def test_skyrl_without_a_recomputed_policy(importing: Importing) -> None:
    """`policy_loss_type` dppo and rollout_is skip the forward: `action_log_probs` is None."""
    row = importing.row_of([{**SKYRL, "step": 6, "action_log_probs": None, "is_last_step": True}])
    assert row["old_logprobs"] is None
    assert row["rollout_logprobs"] == [-0.5, None, -1.0]
    assert json.loads(row["meta"]) == {"is_last_step": True}


def test_verl(importing: Importing) -> None:
    manifest = importing([VERL], step=6)
    (row,) = importing.rows()
    assert (manifest["format"], manifest["warnings"]) == ("dataproto", [])
    assert (row["step"], row["group_id"], row["reward"]) == (6, "ab12", 1)
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([5, 9], [11, 30, 2])
    assert (row["response_mask"], row["turn"]) == ([True, False, True], [0, 1, 1])
    assert row["rollout_logprobs"] == [-0.5, None, -1.0]
    assert row["old_logprobs"] == [-0.75, None, -1.25]
    assert [row["advantage"][place] for place in (0, 2)] == [0.5, 0.25]
    assert row["rollout_top_token_ids"] == [[11, 4], [30, 4], [2, 4]]  # Stable-RL's
    assert row["rollout_top_logprobs"] == [[-0.5, -1.5], [None, None], [-1.0, -2.0]]
    assert row["meta"] is None


@pytest.mark.parametrize(
    ("row", "change", "says"),
    [
        (SKYRL, {"advantages": [0.0] * 5}, "has 5 entries, expected 4 (one more: shifted?)"),
        (SKYRL, {"rollout_logprobs": [0.0] * 3}, "has 3 entries, expected 4 (one short: shifted?)"),
        (VERL, {"old_log_probs": [-1.0] * 3}, "has 3 entries, expected 4 (one short: shifted?)"),
        (ROLL, {"infer_logprobs": [-1.0] * 6}, "has 6 entries, expected 5 (one more: shifted?)"),
    ],
)
def test_a_shift_by_one_is_named(importing: Importing, row: Fields, change: Fields, says: str) -> None:
    ((line, name, message),) = importing.errors([{**row, **change}], step=6)
    assert (line, [name], message) == (1, list(change), says)


def test_roll(importing: Importing) -> None:
    manifest = importing([ROLL], step=6)
    (row,) = importing.rows()
    assert (manifest["format"], manifest["warnings"]) == ("dataproto", [])
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([5, 9], [11, 30, 2])
    assert row["response_mask"] == [True, False, True]
    assert row["rollout_logprobs"] == [-0.5, None, -1.0]
    assert row["old_logprobs"] == [-0.75, None, -1.25]
    assert row["group_id"] == "4"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"response_mask": [1, 1, 0, 1]}, "response_mask"),  # not one run at the right
        ({"response_mask": [0] * 2 + [1] * 5}, "response_mask"),  # no prompt is left
        ({"attention_mask": [1]}, "attention_mask"),
        ({"loss_mask": None}, "loss_mask"),
        ({"rollout_logprobs": [-1.0]}, "rollout_logprobs"),
        ({"sequences": "x"}, "sequences"),
    ],
)
def test_bad_rows(importing: Importing, change: Fields, field: str) -> None:
    errors = importing.errors([SKYRL, {**SKYRL, **change}], step=6)
    assert [(line, name) for line, name, _ in errors] == [(2, field)]


@pytest.mark.parametrize(("row", "mask"), [(SKYRL, [0] * 4), (ROLL, [0] * 6)])
def test_a_row_without_a_response_is_left_out(importing: Importing, row: Fields, mask: list[int]) -> None:
    manifest = importing([row, {**row, "response_mask": mask}], step=6)
    assert manifest["rollouts"] == 1
    assert "no response token" in manifest["warnings"][0]["message"]
