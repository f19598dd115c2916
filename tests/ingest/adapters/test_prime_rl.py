"""prime-rl token exports, as `trainer/rl/token_export.py` writes them at 559b44772.

prime-rl-559b447-tokens.jsonl is the exporter's own, of the samples in tests/data/formats/write_prime_rl.py. `exported`
is a row by hand, for what they do not have: it works each derived column out as the writer does, k3 mismatch, ratio,
`prob_delta`, and the DPPO decision at the default thresholds of 0.2.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.files import Importing

TOKENS = Path(__file__).parents[2] / "data" / "formats" / "prime-rl-559b447-tokens.jsonl"
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


def test_as_prime_rl_writes_it(importing: Importing) -> None:
    """Two turns with a tool's answer between them; the first token and the prompt have ratios, which are not read."""
    manifest = importing(TOKENS)
    assert (manifest["format"], manifest["rollouts"], manifest["warnings"]) == ("prime-rl", 5, [])
    rows = importing.rows()
    assert [row["sample_id"] for row in rows] == ["r2/0", "r2/1", "r2/2", "r2/3", "r2/4"]
    assert {row["step"] for row in rows} == {3}
    first = rows[0]
    assert first["prompt_token_ids"] == [1, 4, 6, 10]
    assert first["response_token_ids"] == [11, 12, 30, 31, 2]
    assert first["response_mask"] == [True, True, False, False, True]
    assert first["rollout_logprobs"] == [-0.25, -2.0, None, None, -0.5]
    assert first["new_logprobs"] == [-0.125, -0.5, None, None, -2.0]
    assert first["advantage"] == [0.75, 0.75, None, None, 0.75]
    # A > 0: exp(−0.125) − exp(−0.25) = +0.10, exp(−0.5) − exp(−2) = +0.47 > 0.2, and −0.47
    assert first["trainer_keep"] == [True, False, None, None, True]
    assert json.loads(first["meta"]) == {
        "env_name": "calculator",
        "micro_step": 0,
        "micro_sequence_idx": 0,
        "entropy": [0.5, 0.5, None, None, 0.5],
        "is_masked_high": [False, True, None, None, False],
        "is_masked_low": [False, False, None, None, False],
    }
    absent = ("old_logprobs", "reward", "policy_version", "turn", "rollout_top_token_ids", "finish_reason")
    assert {first[name] for name in absent} == {None}
    groups = [row["group_id"] for row in rows]  # by the prompt: 1 4 6 10, 1 4 6, and 1 4 10
    assert groups[0] == groups[2] == groups[3]
    assert len({groups[0], groups[1], groups[4]}) == 3


def test_advantages_below_and_at_zero(importing: Importing) -> None:
    """A log-prob of −inf is written as null. At A = 0 the writer drops what fell, in `is_masked` alone."""
    importing(TOKENS)
    row = importing.rows()[1]
    assert row["response_token_ids"] == [13, 14, 15, 2]
    assert row["response_mask"] == [True] * 4
    assert row["rollout_logprobs"] == [-0.5, -2.0, -3.0, -0.5]
    assert row["new_logprobs"] == [-2.0, -0.5, None, -2.0]
    assert row["advantage"] == [-0.5, -0.5, -0.5, 0.0]
    assert row["trainer_keep"] == [False, True, True, False]  # −0.47, +0.47, −0.05, −0.47
    meta = json.loads(row["meta"])
    assert meta["is_masked_low"] == [True, False, False, False]
    assert meta["is_masked_high"] == [False] * 4


def test_tokens_that_the_policy_did_not_sample(importing: Importing) -> None:
    """The cross-entropy part of the loss trains tokens of another model: μ is 0.0 there, and the mask is none of its.

    A sample packed with such a one has its weights spelled out, and an empty env_name; padding is not in the file.
    """
    importing(TOKENS)
    mixed, beside, alone = importing.rows()[2:]
    assert mixed["response_token_ids"] == [20, 21, 22, 2]
    assert mixed["response_mask"] == [True] * 4
    assert (mixed["rollout_logprobs"], mixed["trainer_keep"]) == (None, None)
    assert mixed["new_logprobs"] == [-1.0, -2.0, -0.125, -0.5]
    assert mixed["advantage"] == [0.0] * 4
    meta = json.loads(mixed["meta"])
    assert (meta["env_name"], meta["micro_step"]) == ("distill", 1)
    assert (meta["ce_weights"], meta["rl_weights"]) == ([1] * 4, [0] * 4)
    assert beside["response_token_ids"] == [16, 2]
    assert (beside["rollout_logprobs"], beside["new_logprobs"]) == ([-1.0, -1.5], [-1.25, -1.5])
    assert (beside["advantage"], beside["trainer_keep"]) == ([0.25, 0.25], [True, True])
    assert json.loads(beside["meta"]) == {
        "micro_step": 1,
        "micro_sequence_idx": 1,
        "entropy": [0.5, 0.5],
        "is_masked_high": [False, False],
        "is_masked_low": [False, False],
        "ce_weights": [0, 0],
        "rl_weights": [1, 1],
    }
    assert (alone["prompt_token_ids"], alone["response_token_ids"]) == ([1, 4, 10], [23, 2])
    assert (alone["rollout_logprobs"], alone["trainer_keep"]) == (None, None)
    assert alone["new_logprobs"] == [-0.25, -0.75]
    assert json.loads(alone["meta"]) == {
        "env_name": "distill",
        "micro_step": 2,
        "micro_sequence_idx": 0,
        "entropy": [0.5, 0.5],
        "ce_weights": [1, 1],
        "rl_weights": [0, 0],
    }


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


def test_a_part_of_the_tokens_is_of_another_model(importing: Importing) -> None:
    weights = {"ce_weights": [None, None, 0.0, 0.0, 0.0, 1.0], "rl_weights": [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]}
    row = _row(importing, inference_logprobs=[0, 0, -1.0, -0.5, 0, 0.0], **weights)
    assert row["rollout_logprobs"] == [-1.0, -0.5, None, None]
    assert row["trainer_keep"] == [True, False, None, None]
    assert row["new_logprobs"] == [-1.1, -2.0, None, -0.25]
    assert json.loads(row["meta"])["ce_weights"] == [0, 0, None, 1]


def test_null_is_not_known(importing: Importing) -> None:
    """Non-finite floats are written as null."""
    row = _row(importing, inference_logprobs=[0.0, 0.0, None, -0.5, 0.0, -2.0])
    assert row["rollout_logprobs"] == [None, -0.5, None, -2.0]


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
