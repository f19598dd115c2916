"""A real RL run: nothing is wrong with it, and what is planted in it is found, alone."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

from tests.ingest.files import Importing
from tests.ingest.findings.cases import findings

Records = list[dict[str, Any]]
REAL = files("service.cli") / "demo_data" / "smollm2-arith" / "rollouts.jsonl.gz"


@pytest.fixture
def rollouts() -> Records:
    """The first of five steps: 6 groups of 8 responses of up to 80 tokens, with 20 top log-probs each."""
    lines = gzip.decompress(REAL.read_bytes()).splitlines()
    return [one for one in map(json.loads, lines) if one["step"] == 0]


def test_a_real_run_gives_no_warning(importing: Importing, tmp_path: Any) -> None:
    path = tmp_path / "rollouts.jsonl.gz"
    path.write_bytes(REAL.read_bytes())
    manifest = importing(path)
    assert (manifest["rollouts"], manifest["warnings"], manifest["notes"]) == (240, [], [])


def test_one_step_alone(importing: Importing, rollouts: Records) -> None:
    assert len(rollouts) == 48
    assert findings(importing, rollouts) == {}


def missing_as_zero(rollouts: Records) -> None:
    for one in rollouts:
        one["rollout_logprobs"][1::4] = [0.0] * len(one["rollout_logprobs"][1::4])
        del one["rollout_top_logprobs"], one["rollout_top_token_ids"]


def first_entry(rollouts: Records) -> None:
    for one in rollouts:
        one["rollout_logprobs"] = [entries[0] for entries in one["rollout_top_logprobs"]]


def lists_one_token_late(rollouts: Records) -> None:
    for one in rollouts:
        for name in ("rollout_top_token_ids", "rollout_top_logprobs"):
            one[name] = [one[name][0], *one[name][:-1]]


def lists_at_half_temperature(rollouts: Records) -> None:
    """Normalised over the list, which is most of it."""
    for one in rollouts:
        sharp = [[2 * logp for logp in entries] for entries in one["rollout_top_logprobs"]]
        one["rollout_top_logprobs"] = [
            [logp - math.log(sum(map(math.exp, entries)) + 1e-3) for logp in entries] for entries in sharp
        ]


def old_for_rollout(rollouts: Records) -> None:
    for one in rollouts:
        one["rollout_logprobs"] = one["old_logprobs"]
        del one["rollout_top_logprobs"], one["rollout_top_token_ids"]


def advantages_of_the_next_group_member(rollouts: Records) -> None:
    shifted = [one["advantage"] for one in rollouts]
    for place, one in enumerate(rollouts):
        group = place - place % 8
        one["advantage"] = shifted[group + (place + 1) % 8]


def prompts_of_the_next_response(rollouts: Records) -> None:
    prompts = [one["prompt_token_ids"] for one in rollouts]
    for place, one in enumerate(rollouts):
        one["prompt_token_ids"] = prompts[place - 1]


def prompt_left_in(rollouts: Records) -> None:
    for one in rollouts:
        prompt = one["prompt_token_ids"]
        one["response_token_ids"] = prompt + one["response_token_ids"]
        one["response_mask"] = [0] * len(prompt) + one["response_mask"]
        for name in ("rollout_logprobs", "old_logprobs", "rollout_top_token_ids", "rollout_top_logprobs"):
            one[name] = [None] * len(prompt) + one[name]


def one_twice(rollouts: Records) -> None:
    rollouts[20] = rollouts[16] | {"sample_id": rollouts[20]["sample_id"]}


def tool_output(rollouts: Records) -> None:
    for one in rollouts:
        if len(one["response_token_ids"]) > 60:
            one["rollout_logprobs"][5:25] = [None] * 20


PLANTED: list[tuple[Callable[[Records], None], str]] = [
    (missing_as_zero, "zero_logprobs"),
    (first_entry, "first_top_entry"),
    (lists_one_token_late, "top_lists_disagree"),
    (lists_at_half_temperature, "top_lists_disagree"),
    (old_for_rollout, "old_is_rollout"),
    (advantages_of_the_next_group_member, "advantage_sign"),
    (prompts_of_the_next_response, "group_prompts_differ"),
    (prompt_left_in, "prompt_in_response"),
    (one_twice, "copied_responses"),
    (tool_output, "unknown_runs"),
]


@pytest.mark.parametrize(("plant", "code"), PLANTED)
def test_what_is_planted_is_found(
    importing: Importing, rollouts: Records, plant: Callable[[Records], None], code: str
) -> None:
    plant(rollouts)
    found = findings(importing, rollouts)
    assert [one for one in found if found[one]["level"] == "warning"] == [code]


def test_a_real_nucleus(importing: Importing, rollouts: Records) -> None:
    """Top-p .9 of what was logged, where twenty entries reach it."""
    for one in rollouts:
        kept = [_nucleus(entries) for entries in one["rollout_top_logprobs"]]
        one["rollout_top_logprobs"] = kept
        one["rollout_top_token_ids"] = [
            ids[: len(entries)] for ids, entries in zip(one["rollout_top_token_ids"], kept, strict=True)
        ]
        del one["rollout_logprobs"]
    found = findings(importing, rollouts)
    assert set(found) == {"renormalised_lists"}
    assert found["renormalised_lists"]["level"] == "warning"


def _nucleus(entries: list[float]) -> list[float]:
    total, size = 0.0, 0
    while total < 0.9 and size < len(entries):
        total += math.exp(entries[size])
        size += 1
    return [min(0.0, logp - math.log(total)) for logp in entries[:size]] if total >= 0.9 else entries
