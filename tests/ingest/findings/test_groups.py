"""What makes a group: its size, its prompt, its advantages, each response once."""

from __future__ import annotations

from typing import Any

import pytest

from service.ingest.findings import responses
from tests.ingest.files import Importing
from tests.ingest.findings.cases import TOKENS, findings, healthy, note, response, warning


def group(rewards: list[float], advantages: list[Any], number: int = 0) -> list[dict[str, Any]]:
    return [
        response(0, number, sample, reward=reward, advantage=advantage)
        for sample, (reward, advantage) in enumerate(zip(rewards, advantages, strict=True))
    ]


def test_groups_of_other_sizes(importing: Importing) -> None:
    """Of the second step's three groups, one has lost 1 of its 4 responses and one 3."""
    records = [one for one in healthy() if one["sample_id"] not in ("1/1/0", "1/2/0", "1/2/1", "1/2/2")]
    for one in records:
        del one["advantage"]
    found = note(importing, records, "uneven_groups")
    assert found["count"] == 2
    assert found["message"].startswith(
        "2 of 6 groups hold another number of responses than is usual in their step: 1 to 3 instead of 4, 1 of them a "
        "single response. "
    )
    assert found["examples"] == [{"line": line, "field": "group_id", "step": 1} for line in (17, 20)]


def test_a_step_without_one_of_its_groups(importing: Importing) -> None:
    """3 groups in each of four steps; the second has lost one, the last two."""
    gone = ("1/2/", "3/0/", "3/2/")
    records = [one for one in healthy(steps=5) if not one["sample_id"].startswith(gone)]
    found = note(importing, records, "missing_groups")
    assert found["count"] == 2
    assert found["message"].startswith("step 1 holds 2 groups, step 3 holds 1 group, where 3 are usual in this file: ")
    assert found["examples"] == [{"line": line, "field": "group_id", "step": step} for line, step in ((13, 1), (33, 3))]


def test_steps_of_which_none_is_usual(importing: Importing) -> None:
    """A batch that grows, and two steps that differ: nothing says which is whole. More groups than usual are none
    missing."""
    records = healthy(steps=3)
    growing = [one for one in records if int(one["sample_id"][2]) <= one["step"]]
    assert findings(importing, growing) == {}
    assert findings(importing, [one for one in healthy() if not one["sample_id"].startswith("1/2/")]) == {}
    more = [one for one in records if one["step"] == 2 or not one["sample_id"][2:].startswith("2/")]
    assert findings(importing, more) == {}


def test_the_usual_size_is_that_of_the_step(importing: Importing) -> None:
    """4 a group in the first step, 2 in the second; the most frequent one, and the larger of two."""
    records = healthy(1) + [one for one in healthy(2) if one["step"] == 1 and one["sample_id"][-1] in "01"]
    assert findings(importing, records) == {}
    records = [*group([0, 1], [-1, 1]), *group([0, 1, 0, 1], [-1, 1, -1, 1], 1)]
    assert note(importing, records, "uneven_groups")["message"].startswith("1 of 2 groups hold another number")
    assert note(importing, records, "uneven_groups")["examples"] == [{"line": 1, "field": "group_id", "step": 0}]
    records = [*group([0, 1, 0, 1], [-1, 1, -1, 1]), *group([0, 1], [-1, 1], 1), *group([0, 1], [-1, 1], 2)]
    assert ": 4 instead of 2. " in note(importing, records, "uneven_groups")["message"]


def test_members_far_apart_are_one_group(importing: Importing) -> None:
    records = sorted(healthy(), key=lambda one: one["sample_id"][::-1])
    assert set(findings(importing, records)) == {"steps_interleave"}


def test_every_response_a_group_of_its_own(importing: Importing) -> None:
    records = [one | {"group_id": one["sample_id"]} for one in healthy()]
    found = warning(importing, records, "ungrouped")
    assert found["count"] == 24
    assert "though 24 responses have only 6 prompts: " in found["message"]


def test_one_response_a_prompt(importing: Importing) -> None:
    assert findings(importing, healthy(size=1)) == {}


def test_a_group_of_two_prompts(importing: Importing) -> None:
    records = healthy()
    records[6]["prompt_token_ids"] = [9, 8, 7, 6, 5, 0, 77]
    found = warning(importing, records, "group_prompts_differ")
    assert found["count"] == 1
    assert found["message"].startswith("1 of 6 groups hold responses to different prompt_token_ids: group_id does not ")
    assert found["examples"] == [{"line": 7, "field": "prompt_token_ids", "step": 0}]


def test_agents_have_prompts_of_their_own(importing: Importing) -> None:
    records = healthy()
    records[6] |= {"prompt_token_ids": [9, 8, 7, 1], "response_mask": [1] * 5 + [0] * 2 + [1] * 5}
    assert "as where agents compact or branch" in note(importing, records, "group_prompts_differ")["message"]


def test_copies(importing: Importing) -> None:
    """12 tokens of −3 nats: another sample would be the same once in e^36."""
    records = healthy()
    for place in (8, 10, 11):
        records[place] |= {"response_token_ids": list(range(TOKENS)), "rollout_logprobs": [-3.0] * TOKENS}
    records[12] |= {"response_token_ids": list(range(TOKENS)), "rollout_logprobs": [-3.0] * TOKENS}  # another group
    found = warning(importing, records, "copied_responses")
    assert found["count"] == 2
    assert found["message"].startswith("2 responses repeat another of the same group under another sample_id: ")
    assert found["examples"] == [{"line": line, "field": "sample_id", "step": 0} for line in (11, 12)]


@pytest.mark.parametrize(
    ("ids", "logprobs"),
    [
        ([0] * TOKENS, [-2.4] * TOKENS),  # e^-28.8: short and likely answers come twice
        ([0] * TOKENS, None),  # the same text, sampled again: the log-probs differ
        (None, [-3.0] * TOKENS),  # other tokens
        ([0] * TOKENS, ...),  # nothing known of how it was sampled
    ],
)
def test_the_same_answer_again_is_no_copy(importing: Importing, ids: Any, logprobs: Any) -> None:
    records = healthy()
    for one in records[8:12]:
        if ids is not None:
            one["response_token_ids"] = ids
        if logprobs is ...:
            del one["rollout_logprobs"]
        elif logprobs is not None:
            one["rollout_logprobs"] = logprobs
    assert findings(importing, records) == {}


SUMS_TO_ZERO = [
    [0.75, -0.25, -0.25, -0.25],  # R − mean
    [1.5, -0.5, -0.5, -0.5],  # over the standard deviation
    [1.0, -1 / 3, -1 / 3, -1 / 3],  # leave one out
    [0.75, -0.249, -0.251, -0.2505],  # three digits
    [0.0, 0.0, 0.0, 0.0],  # a group that is not trained on
]


@pytest.mark.parametrize("advantages", SUMS_TO_ZERO)
def test_advantages_of_a_group_sum_to_zero(importing: Importing, advantages: list[float]) -> None:
    assert findings(importing, group([1, 0, 0, 0], advantages)) == {}
    per_token = group([1, 0, 0, 0], [[advantage] * TOKENS for advantage in advantages])
    per_token[0] |= {"advantage": [advantages[0]] * 8 + [0] * 4, "response_mask": [1] * 8 + [0] * 4}
    assert findings(importing, per_token) == {}


@pytest.mark.parametrize("advantages", [[1.0, 0.2, 0.2, 0.2], [0.9, -0.1, -0.1, -0.1], [0.77, -0.25, -0.25, -0.25]])
def test_advantages_that_do_not(importing: Importing, advantages: list[float]) -> None:
    records = [*group([1, 0, 0, 0], advantages), *group([1, 0, 1, 0], [0.5, -0.5, 0.5, -0.5], 1)]
    found = note(importing, records, "not_centred")
    assert found["count"] == 1
    assert found["message"].startswith("In 1 of 2 groups whose rewards vary, the advantages do not sum to zero. ")
    assert found["examples"] == [{"line": 1, "field": "advantage", "step": 0}]


@pytest.mark.parametrize(
    ("rewards", "advantages"),
    [
        ([1, 1, 1, 1], [0.5] * 4),  # no reward varies
        ([1, 0, 0, None], [0.9] * 4),  # a reward is not known
        ([1, 0, 0, 0], [0.9, 0.9, 0.9, [None] + [0.0] * 11]),  # nor an advantage
        ([1, 0, 0, 0], [[0.9] * 11 + [0.8]] * 4),  # one for each token, as a critic gives
    ],
)
def test_groups_that_cannot_be_compared(importing: Importing, rewards: list[Any], advantages: list[Any]) -> None:
    assert findings(importing, group(rewards, advantages)) == {}


def test_negated_advantages(importing: Importing) -> None:
    records = [one | {"advantage": -one["advantage"]} for one in healthy()]
    found = warning(importing, records, "advantage_sign")
    assert found["count"] == 24
    assert found["message"].startswith("The advantage has the wrong sign in 24 of 24 responses: opposite to reward ")
    assert found["examples"][0] == {"line": 1, "field": "advantage", "step": 0}


def test_advantages_of_the_response_before(importing: Importing) -> None:
    """[½, −½, ½, −½] for rewards [0, 1, 0, 1] in every group."""
    records = healthy()
    shifted = [records[-1]["advantage"], *(one["advantage"] for one in records[:-1])]
    records = [one | {"advantage": advantage} for one, advantage in zip(records, shifted, strict=True)]
    assert warning(importing, records, "advantage_sign")["count"] == 24


def test_one_advantage_of_the_wrong_sign(importing: Importing) -> None:
    """It has the group's highest reward, and others have more advantage."""
    found = findings(importing, group([1, 0, 0, 0], [-0.75, -0.25, -0.25, -0.25]))
    assert (found["advantage_sign"]["level"], found["advantage_sign"]["count"]) == ("warning", 1)
    assert set(found) == {"advantage_sign", "not_centred"}


def test_rarely_a_wrong_sign_is_a_note(importing: Importing) -> None:
    """1 of 120 responses is less than 1 %."""
    records = healthy(steps=10)
    records[5]["advantage"] = -0.5
    assert note(importing, records, "advantage_sign")["count"] == 1


def test_a_baseline_of_the_whole_batch_is_no_wrong_sign(importing: Importing) -> None:
    """A = R − ½ over both groups: negative above the first one's mean, positive below the second's; more is more."""
    records = [*group([0.4, 0, 0, 0], [-0.1, -0.5, -0.5, -0.5]), *group([1, 1, 1, 0.6], [0.5, 0.5, 0.5, 0.1], 1)]
    assert set(findings(importing, records)) == {"not_centred"}


def test_advantages_that_were_zeroed_contradict_nothing(importing: Importing) -> None:
    """The trainer does not train on the one that was cut off, though it was right."""
    found = findings(importing, group([1, 1, 0, 0], [0, 0.5, -0.5, -0.5]))
    assert set(found) == {"not_centred"}


def test_what_is_not_looked_at_is_said(importing: Importing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 MiB, 7 responses; the first has all that is remembered."""
    monkeypatch.setattr(responses, "_MOST", 3)
    records = healthy(1)
    for one in records:
        one["prompt_text"] = "x" * 1_200_000
    records[1]["prompt_token_ids"] = [1, 2]
    found = findings(importing, records)["group_prompts_differ"]
    assert found["message"].startswith("1 of 2 groups hold responses to different prompt_token_ids (of the first 7 ")
