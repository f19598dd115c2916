"""prime-rl token exports, as `trainer/rl/token_export.py` writes them at 559b44772.

`exported` works each derived column out as the writer does: k3 mismatch, ratio, `prob_delta`, and the DPPO decision at
the default thresholds of 0.2.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from tests.ingest.files import Importing

MU = [0.0, 0.0, -1.0, -0.5, 0.0, -2.0]  # 0.0 on what the policy did not sample
PI = [-11.5, -3.0, -1.1, -2.0, -0.3, -0.25]
MASK = [False, False, True, True, False, True]
ADVANTAGES = [0.0, 0.0, 0.7, -0.7, 0.0, 0.7]


def exported(**changes: Any) -> dict[str, Any]:
    log_ratio = [new - old for new, old in zip(PI, MU, strict=True)]
    delta = [math.exp(new) - math.exp(old) for new, old in zip(PI, MU, strict=True)]
    high = [m and a > 0 and d > 0.2 for m, a, d in zip(MASK, ADVANTAGES, delta, strict=True)]
    low = [m and a < 0 and d < -0.2 for m, a, d in zip(MASK, ADVANTAGES, delta, strict=True)]
    return {
        "schema_version": 1,
        "step": 3,
        "rank": 2,
        "micro_step": 4,
        "micro_sequence_idx": 1,
        "export_sequence_idx": 17,
        "env_name": "reverse_text",
        "token_ids": [1, 9, 42, 43, 44, 2],
        "position_ids": [0, 1, 2, 3, 4, 5],
        "loss_mask": MASK,
        "advantages": ADVANTAGES,
        "inference_logprobs": MU,
        "trainer_logprobs": PI,
        "entropy": [11.5, 0.8, 1.1, 1.2, 1.3, 1.4],
        "mismatch_kl": [math.exp(r) - r - 1 for r in log_ratio],
        "log_importance_ratio": log_ratio,
        "importance_ratio": [math.exp(r) for r in log_ratio],
        "prob_delta": delta,
        "is_masked": [h or o for h, o in zip(high, low, strict=True)],
        "is_masked_high": high,
        "is_masked_low": low,
        "rl_weights": [None] * 6,
        "ce_weights": [None] * 6,
        "ref_kl_weights": [None] * 6,
        **changes,
    }


def test_every_field(importing: Importing) -> None:
    manifest = importing([exported()])
    (row,) = importing.rows()
    assert (manifest["format"], manifest["warnings"]) == ("prime-rl", [])
    assert (row["step"], row["sample_id"]) == (3, "r2/17")
    assert row["prompt_token_ids"] == [1, 9]
    assert row["response_token_ids"] == [42, 43, 44, 2]
    assert row["response_mask"] == [True, True, False, True]
    assert row["rollout_logprobs"] == [-1.0, -0.5, None, -2.0]
    assert row["new_logprobs"] == [-1.1, -2.0, None, -0.25]
    assert row["advantage"] == [0.7, -0.7, None, 0.7]
    # exp(−1.1)−exp(−1) = −0.04; exp(−2)−exp(−0.5) = −0.47 with A < 0; exp(−0.25)−exp(−2) = +0.64 with A > 0
    assert row["trainer_keep"] == [True, False, None, False]
    assert json.loads(row["meta"]) == {
        "env_name": "reverse_text",
        "micro_step": 4,
        "micro_sequence_idx": 1,
        "entropy": [1.1, 1.2, None, 1.4],
        "is_masked_high": [False, False, None, True],
        "is_masked_low": [False, True, None, False],
    }
    absent = ("old_logprobs", "reward", "policy_version", "turn", "rollout_top_token_ids", "finish_reason")
    assert {row[name] for name in absent} == {None}


def test_a_group_is_a_prompt(importing: Importing) -> None:
    """The file names no group: the same prompt is the same group, in every step and file."""
    other = exported(export_sequence_idx=18, token_ids=[1, 8, 42, 43, 44, 2])
    again = exported(export_sequence_idx=19, step=4, token_ids=[1, 9, 7, 7, 7, 7])
    importing([exported(), other, again])
    first, second, third = (row["group_id"] for row in importing.rows())
    assert first == third != second


def test_the_first_logprob_and_the_prompts_ratios_are_not_read(importing: Importing) -> None:
    """Index 0 is a dummy log(1/V), and μ is 0.0 on the prompt: whatever stands there, the record is the same."""
    wild = exported(
        inference_logprobs=[5.0, 1.0, *MU[2:4], 9.0, MU[5]],
        trainer_logprobs=[None, 7.0, *PI[2:4], 9.0, PI[5]],
        prob_delta=[None] * 6,
        mismatch_kl=[None] * 6,
    )
    importing([exported()])
    (plain,) = importing.rows()
    importing([wild])
    assert importing.rows()[0]["row_hash"] == plain["row_hash"]


def test_null_is_not_known(importing: Importing) -> None:
    """Non-finite floats are written as null; the decisions are null with another loss."""
    row = _row(importing, inference_logprobs=[0.0, 0.0, None, -0.5, 0.0, -2.0], is_masked=[None] * 6)
    assert row["rollout_logprobs"] == [None, -0.5, None, -2.0]
    assert row["trainer_keep"] is None


def test_tokens_that_the_policy_did_not_sample(importing: Importing) -> None:
    """The cross-entropy part of a loss trains tokens of another policy; μ is 0.0 there and means nothing."""
    weights = [None, None, 0.0, 0.0, 0.0, 1.0]
    row = _row(importing, inference_logprobs=[0, 0, -1.0, -0.5, 0, 0.0], ce_weights=weights)
    assert row["rollout_logprobs"] == [-1.0, -0.5, None, None]
    assert row["new_logprobs"] == [-1.1, -2.0, None, -0.25]
    assert json.loads(row["meta"])["ce_weights"] == [0, 0, None, 1]


def test_a_row_without_a_token_that_is_trained(importing: Importing) -> None:
    manifest = importing([exported(), exported(export_sequence_idx=18, loss_mask=[False] * 6)])
    assert [row["sample_id"] for row in importing.rows()] == ["r2/17"]
    (warning,) = manifest["warnings"]
    assert warning["message"] == "1 response was left out: their mask marks no token of the response."


def test_a_new_field_is_kept(importing: Importing) -> None:
    assert json.loads(_row(importing, cohort="c-7", loss_scale=0.5)["meta"])["cohort"] == "c-7"


def test_earlier_versions(importing: Importing) -> None:
    """The first exporter wrote the response's reward on every token; one for many runs wrote each run's own step."""
    row = _row(importing, rewards=[0.0, 0.0, 0.25, 0.25, 0.0, 0.25], run_id="run_a", export_step=1)
    assert (row["reward"], row["step"], json.loads(row["meta"])["run_id"]) == (0.25, 1, "run_a")


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"loss_mask": [True, *MASK[1:]]}, "loss_mask[0]", "marks the first token as the response"),
        ({"loss_mask": MASK[1:]}, "loss_mask", r"has 5 entries, expected 6 \(one short: shifted\?\)"),
        ({"trainer_logprobs": [*PI, -1.0]}, "trainer_logprobs", r"has 7 entries, expected 6 \(one more: shifted\?\)"),
        ({"advantages": 0.7}, "advantages", "expected a list, found a number"),
        ({"inference_logprobs": [0, 0, 0.5, -1, 0, 1.0]}, "inference_logprobs[2]", "0.5 is a positive log-probability"),
        ({"token_ids": [1, 9, -1, 2, 3, "x"]}, "token_ids[2]", r"-1 is not a token id .* \(and 1 more element"),
        ({"is_masked": [0, 0, 0, 2, 0, 0]}, "is_masked[3]", "2 is not 0 or 1"),
        ({"step": -3}, "step", "-3 is not a step"),
        ({"schema_version": 2}, "schema_version", "is not 1"),
        ({"rank": None}, "rank", "is required and missing"),
        ({"entropy": [None, "x", 1, 1, 1, 1]}, "entropy[1]", "'x' is not a number"),
        ({"env_name": ["x"]}, "env_name", "expected a string, found a list"),
    ],
)
def test_what_is_refused(importing: Importing, changes: dict[str, Any], field: str, message: str) -> None:
    """Every word is of the file's own fields."""
    ((line, name, text),) = importing.errors([exported(), exported(export_sequence_idx=1, **changes)])
    assert (line, name) == (2, field)
    assert re.search(message, text), text


def _row(importing: Importing, **changes: Any) -> dict[str, Any]:
    importing([exported(**changes)])
    (row,) = importing.rows()
    return row
