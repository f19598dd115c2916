"""Rows of class pickles as their exports write them: SkyRL's batch, a DataProto's two layouts, a TransferQueue's batch.

Those in tests/data/formats are what the exports of `dppo convert` made of SkyRL 0.3.0's and verl 0.9.1's own dumps
(write_skyrl.py, write_verl.py).
That the exports are printed and run: tests/cli/test_convert_pickles.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.files import Importing, ndjson

Fields = dict[str, Any]
FORMATS = Path(__file__).parents[2] / "data" / "formats"
FIRST, SECOND = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"  # verl's two prompts
SUM, FOUR = [1, 4, 6, 7, 8, 7, 9, 6, 5, 6], [1, 4, 6, 10, 9, 6, 5, 6]
CALL, CUT = [7, 8, 7, 11, 10, 2], [11, 12, 13, 15, 14, 10]  # 11 is a tool's token in the first, a policy's in the other
CALL_MASK, CALL_TURNS = [True, True, True, False, True, True], [0, 0, 0, 1, 1, 1]
CALL_MU, CUT_MU = [-0.25, -0.5, -0.75, None, -1.0, -1.5], [-0.125, -0.25, -0.375, -0.5, -0.625, -0.75]

SKYRL: Fields = {  # two prompt tokens, three response tokens, padded on the left to 7 and 4; for what may be wrong
    "sequences": [0, 0, 5, 9, 11, 30, 2],
    "attention_mask": [0, 0, 1, 1, 1, 1, 1],
    "response_mask": [0, 1, 1, 1],
    "loss_mask": [0.0, 1.0, 0.0, 1.0],
    "rollout_logprobs": [0.0, -0.5, 0.0, -1.0],
    "action_log_probs": [-3.0, -0.75, -9.0, -1.25],
    "advantages": [0.0, 0.5, 0.5, 0.5],
    "base_action_log_probs": [0.0, -4.0, -4.0, -4.0],  # neither these nor the next are in the export's keys
    "values": [0.0, 1.0, 1.0, 1.0],
}
VERL: Fields = {  # what the trainer adds to RolloutSkip's batch: the prompt padded left to 3, the response right to 4
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
    """Two responses to a prompt; a trajectory of two turns, each a row, and one that is masked, to another."""
    manifest = importing(FORMATS / "skyrl-0.3.0-batch.jsonl", step=3)
    assert (manifest["format"], manifest["rollouts"], manifest["warnings"]) == ("skyrl", 5, [])
    rows = importing.rows()
    assert [(row["step"], row["sample_id"]) for row in rows] == [(3, str(place)) for place in range(5)]
    assert [row["prompt_token_ids"] for row in rows] == [SUM[1:], SUM[1:], FOUR[1:], [*FOUR[1:], 11, 2, 6], FOUR[1:]]
    assert [row["response_token_ids"] for row in rows] == [[10, 2], CALL, [11, 2], [12, 10], [10, 10]]
    assert [row["response_mask"] for row in rows] == [[True] * 2, CALL_MASK, [True] * 2, [True] * 2, [False] * 2]
    assert [row["turn"] for row in rows] == [None, CALL_TURNS, None, None, None]
    assert [row["rollout_logprobs"] for row in rows] == [
        [-0.25, -0.5],
        CALL_MU,
        [-2.0, -0.125],
        [-0.5, -3.0],
        [None, None],
    ]
    assert [row["old_logprobs"] for row in rows] == [
        [-0.375, -0.625],
        [-1.0, -0.5, -0.75, None, -1.25, -2.0],
        *([-1.5, -0.25], [-0.625, -2.5], [None, None]),
    ]
    assert [row["advantage"] for row in rows] == [[0.5] * 2, [-0.5] * 6, [0.5] * 2, [0.5] * 2, [-0.5] * 2]
    groups = [row["group_id"] for row in rows]  # the uids are removed: a group is a prompt, also that of a later turn
    assert groups == [groups[0], groups[0], groups[2], groups[3], groups[2]]
    assert len(set(groups)) == 3
    assert all(row["reward"] is row["meta"] is None for row in rows)  # rewards are removed too


def test_skyrl_without_a_recomputed_policy(importing: Importing) -> None:
    """`policy_loss_type` dppo and rollout_is skip the forward."""
    importing(FORMATS / "skyrl-0.3.0-dppo.jsonl", step=3)
    rows = importing.rows()
    assert [row["rollout_logprobs"] for row in rows] == [[-0.25, -0.5], CALL_MU]
    assert [row["old_logprobs"] for row in rows] == [None, None]


def test_what_skyrl_may_add(importing: Importing) -> None:
    row = importing.row_of(ndjson([{**SKYRL, "step": 6, "action_log_probs": None, "is_last_step": True}]))
    assert (row["step"], row["old_logprobs"]) == (6, None)
    assert json.loads(row["meta"]) == {"is_last_step": True}


def test_verl_rollout_skip(importing: Importing) -> None:
    manifest = importing(FORMATS / "verl-0.9.1-dataproto.jsonl", step=3)
    assert (manifest["format"], manifest["rollouts"], manifest["warnings"]) == ("dataproto", 4, [])
    rows = importing.rows()
    assert [(row["step"], row["sample_id"], row["group_id"]) for row in rows] == [
        *((3, "0", FIRST), (3, "1", FIRST)),
        *((3, "2", SECOND), (3, "3", SECOND)),
    ]
    assert [row["prompt_token_ids"] for row in rows] == [SUM, SUM, FOUR, FOUR]
    assert [row["response_token_ids"] for row in rows] == [[10, 2], CALL, [2], CUT]
    assert [row["response_mask"] for row in rows] == [[True] * 2, CALL_MASK, [True], [True] * 6]
    assert [row["turn"] for row in rows] == [None, CALL_TURNS, None, None]
    assert [row["rollout_logprobs"] for row in rows] == [[-0.25, -0.5], CALL_MU, [-2.0], CUT_MU]
    assert [row["reward"] for row in rows] == [1.0, 0.5, 0.0, 0.25]
    for name in ("old_logprobs", "advantage", "policy_version", "meta"):
        assert [row[name] for row in rows] == [None] * 4


def test_verl_transfer_queue(importing: Importing) -> None:
    """The default trainer's batch, without padding. The last rollout has two outputs."""
    manifest = importing(FORMATS / "verl-0.9.1-transfer-queue.jsonl")
    assert (manifest["format"], manifest["rollouts"], manifest["warnings"]) == ("dataproto", 5, [])
    rows = importing.rows()
    assert [(row["step"], row["group_id"], row["sample_id"]) for row in rows] == [
        (3, FIRST, f"{FIRST}_0_0"),
        (3, FIRST, f"{FIRST}_1_0"),
        (3, SECOND, f"{SECOND}_0_0"),
        (3, SECOND, f"{SECOND}_1_0"),
        (3, SECOND, f"{SECOND}_1_1"),
    ]
    assert [row["prompt_token_ids"] for row in rows] == [SUM, SUM, FOUR, FOUR, FOUR]
    assert [row["response_token_ids"] for row in rows] == [[10, 2], CALL, [2], [11], CUT]
    assert [row["response_mask"] for row in rows] == [[True] * 2, CALL_MASK, [True], [True], [True] * 6]
    assert [row["turn"] for row in rows] == [None, CALL_TURNS, None, None, None]
    assert [row["rollout_logprobs"] for row in rows] == [[-0.25, -0.5], CALL_MU, [-2.0], [-3.0], CUT_MU]
    assert [row["reward"] for row in rows] == [1.0, 0.5, 0.0, 0.25, 0.25]
    # The weights after 2 updates, which step 3 begins with, sampled the first prompt's; the second's began with 1's.
    assert [row["policy_version"] for row in rows] == [[3] * 2, [3] * 6, None, None, None]
    assert [row["meta"] for row in rows] == [None, None, *['{"policy_versions":[2,3]}'] * 3]
    (note,) = (note for note in manifest["notes"] if note["code"] == "several_policy_versions")
    assert note["count"] == 3


@pytest.mark.parametrize("versions", [{"min_global_steps": None, "max_global_steps": None}, {"min_global_steps": 2}])
def test_verl_of_unknown_weights(importing: Importing, versions: Fields) -> None:
    row = importing.row_of(ndjson([{**VERL, "step": 6, **versions}]))
    assert row["policy_version"] is row["meta"] is None


def test_verl_of_weights_that_are_no_number(importing: Importing) -> None:
    errors = importing.errors([{**VERL, "min_global_steps": "x", "max_global_steps": 2}], step=6)
    assert errors == [(1, "min_global_steps", "'x' is not an integer of 64 bits")]


def test_what_verl_adds_after_the_rollout(importing: Importing) -> None:
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
