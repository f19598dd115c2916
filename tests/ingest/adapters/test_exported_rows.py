"""Rows of class pickles as their exports write them: SkyRL's batch, and the two layouts of a DataProto.

That the exports write these rows: tests/cli/test_convert.py.
"""

from __future__ import annotations

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
