"""Each field of a record: what it becomes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ingest.files import Importing, ndjson, record


def test_every_field_is_kept(importing: Importing) -> None:
    row = importing.row(
        sample_id="s/1",
        step=7,
        group_id="g/2",
        response_mask=[1, 0, 1],
        rollout_logprobs=[-0.5, None, -1.5],
        old_logprobs=[-0.25, -0.5, None],
        new_logprobs=[0.0, -1, -2],
        rollout_top_token_ids=[[3, 9], [8], [5, 6]],
        rollout_top_logprobs=[[-0.5, -1.0], [-0.1], [-0.2, None]],
        reward=1,
        advantage=[0.5, None, -0.5],
        trainer_keep=[True, None, False],
        policy_version=3,
        turn=[0, 0, 1],
        minibatch=[0, 1, -1],
        prompt_text="p",
        response_text="r",
        finish_reason="stop",
        logprobs_approximate=True,
        meta={"b": 1, "a": "x"},
    )
    row_hash = row.pop("row_hash")
    assert len(row_hash) == 32
    assert int(row_hash, 16) >= 0
    assert row == {
        "upload": "u1",
        "step": 7,
        "group_id": "g/2",
        "sample_id": "s/1",
        "prompt_token_ids": [1, 2],
        "response_token_ids": [3, 4, 5],
        "response_mask": [True, False, True],
        "rollout_logprobs": [-0.5, None, -1.5],
        "old_logprobs": [-0.25, None, None],
        "new_logprobs": [0.0, None, -2.0],
        "rollout_top_token_ids": [[3, 9], [8], [5, 6]],
        "rollout_top_logprobs": [[-0.5, -1.0], [None], [-0.2, None]],
        "reward": 1.0,
        "token_rewards": None,
        "advantage": [0.5, None, -0.5],
        "trainer_keep": [True, None, False],
        "policy_version": [3, 3, 3],
        "turn": [0, 0, 1],
        "minibatch": [0, 1, -1],
        "prompt_text": "p",
        "response_text": "r",
        "finish_reason": "stop",
        "logprobs_approximate": True,
        "meta": '{"a":"x","b":1}',
        "prompt_tokens": 2,
        "response_tokens": 3,
        "counted_tokens": 2,
    }


def test_fields_left_out_or_null_are_null(importing: Importing) -> None:
    names = (
        "rollout_logprobs",
        "rollout_top_token_ids",
        "rollout_top_logprobs",
        "old_logprobs",
        "new_logprobs",
        "reward",
        "advantage",
        "trainer_keep",
        "policy_version",
        "turn",
        "minibatch",
        "prompt_text",
        "response_text",
        "finish_reason",
        "logprobs_approximate",
        "meta",
    )
    row = importing.row()
    nulls = importing.row(**dict.fromkeys(names))
    assert all(row[name] is None for name in (*names, "token_rewards"))
    assert row == nulls


@pytest.mark.parametrize("name", ["step", "sample_id", "group_id", "prompt_token_ids", "response_token_ids"])
@pytest.mark.parametrize("value", [..., None])
def test_required_fields(importing: Importing, name: str, value: Any) -> None:
    field, message = importing.error(**{name: value})
    assert field == name
    assert message.startswith("is required and missing")


def test_step_beside_the_file(importing: Importing) -> None:
    importing([record("a", step=...), record("b", step=4)], step=4)
    assert [row["step"] for row in importing.rows()] == [4, 4]
    assert importing.errors([record(step=3)], step=4) == [
        (1, "step", "the record is of step 3, but the upload was given step=4")
    ]


@pytest.mark.parametrize("step", [0, 2**32 - 1, 5.0])
def test_good_steps(importing: Importing, step: float) -> None:
    assert importing.row(step=step)["step"] == step


@pytest.mark.parametrize("step", [-1, 2**32, 1.5, "1", True, [1], 10**400])
def test_bad_steps(importing: Importing, step: Any) -> None:
    assert importing.error(step=step)[0] == "step"


@pytest.mark.parametrize("name", ["sample_id", "group_id"])
@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (12, "12"),
        (-3, "-3"),
        (2**70, "1180591620717411303424"),
        ("12", "12"),
        ("é/ü 漢", "é/ü 漢"),
        ("x" * 200, "x" * 200),
        ("\u00a0", "\u00a0"),
    ],
)
def test_good_ids(importing: Importing, name: str, value: Any, kept: str) -> None:
    assert importing.row(**{name: value})[name] == kept


@pytest.mark.parametrize("name", ["sample_id", "group_id"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "is empty"),
        ("x" * 201, "longer than 200"),
        ("a\nb", "control character"),
        ("a\x7f", "control character"),
        ("a\x85", "control character"),
        (True, "found a boolean"),
        (1.0, "found a number"),
        ([1], "found a list"),
        (10**200, "200 digits"),
    ],
)
def test_bad_ids(importing: Importing, name: str, value: Any, says: str) -> None:
    field, message = importing.error(**{name: value})
    assert field == name
    assert says in message


@pytest.mark.parametrize("name", ["prompt_token_ids", "response_token_ids"])
def test_token_ids(importing: Importing, name: str) -> None:
    assert importing.row(**{name: [0, 2**31 - 1, 7.0]})[name] == [0, 2**31 - 1, 7]
    for bad in (-1, 2**31, 1.5, "3", None, True):
        field, message = importing.error(**{name: [1, bad, 2]})
        assert field == f"{name}[1]"
        assert "is not a token id (an integer from 0 to 2147483647)" in message
    assert importing.error(**{name: "12"}) == (name, "expected a list, found a string")


def test_several_bad_elements_are_one_error(importing: Importing) -> None:
    assert importing.error(prompt_token_ids=[1, -1, -2, -3]) == (
        "prompt_token_ids[1]",
        "-1 is not a token id (an integer from 0 to 2147483647) (and 2 more elements of the list)",
    )


def test_empty_prompt_and_response(importing: Importing) -> None:
    field, message = importing.error(prompt_token_ids=[])
    assert field == "prompt_token_ids"
    assert "the first of the response has no probability" in message
    assert importing.error(response_token_ids=[], response_mask=[]) == ("response_token_ids", "is empty")


@pytest.mark.parametrize("mask", [[1, 0, 1], [True, False, True], [1.0, 0.0, 1.0], [1, False, 1.0]])
def test_spellings_of_a_mask(importing: Importing, mask: list[Any]) -> None:
    assert importing.row(response_mask=mask)["response_mask"] == [True, False, True]


@pytest.mark.parametrize("bad", [2, -1, 0.5, "1", None, 300, 10**400])
def test_bad_masks(importing: Importing, bad: Any) -> None:
    field, message = importing.error(response_mask=[1, 1, bad])
    assert field == "response_mask[2]"
    assert "is not 0 or 1" in message


@pytest.mark.parametrize(
    "name",
    [
        "response_mask",
        "rollout_logprobs",
        "old_logprobs",
        "new_logprobs",
        "rollout_top_token_ids",
        "rollout_top_logprobs",
        "reward",
        "advantage",
        "trainer_keep",
        "policy_version",
        "turn",
        "minibatch",
    ],
)
@pytest.mark.parametrize(
    ("length", "says"),
    [
        (2, "has 2 entries, but response_token_ids has 3 (one short: shifted?)"),
        (4, "has 4 entries, but response_token_ids has 3 (one more: shifted?)"),
        (1, "has 1 entry, but response_token_ids has 3"),
        (0, "has 0 entries, but response_token_ids has 3"),
    ],
)
def test_lists_over_the_response_have_its_length(importing: Importing, name: str, length: int, says: str) -> None:
    element: Any = {"trainer_keep": True, "rollout_top_token_ids": [1], "rollout_top_logprobs": [-1.0]}.get(name, 0)
    both = {"rollout_top_token_ids": [[1]] * 3, "rollout_top_logprobs": [[-1.0]] * 3} if "top" in name else {}
    field, message = importing.error(**{**both, name: [element] * length})
    assert (field, message) == (name, says)


def test_number_for_the_whole_response(importing: Importing) -> None:
    row = importing.row(advantage=-0.5, policy_version=7.0, minibatch=-2)
    assert row["advantage"] == [-0.5, -0.5, -0.5]
    assert row["policy_version"] == [7, 7, 7]
    assert row["minibatch"] == [-2, -2, -2]


def test_numbers_and_lists_side_by_side(importing: Importing) -> None:
    importing(
        [
            record("a", advantage=1, minibatch=4),
            record("b"),
            record("c", advantage=[1, None, 3], minibatch=[1, 2, 3]),
            record("d", advantage=2.5, minibatch=5, response_token_ids=[9], response_mask=[1]),
        ]
    )
    assert [row["advantage"] for row in importing.rows()] == [[1, 1, 1], None, [1, None, 3], [2.5]]
    assert [row["minibatch"] for row in importing.rows()] == [[4, 4, 4], None, [1, 2, 3], [5]]


def test_reward_list_is_kept_with_its_sum(importing: Importing) -> None:
    row = importing.row(reward=[0.1, 0.2, 0.3])
    assert row["token_rewards"] == [0.1, 0.2, 0.3]
    assert row["reward"] == 0.6  # exactly rounded; 0.1 + 0.2 + 0.3 from left to right is 0.6000000000000001
    assert importing.error(reward=[1, None, 2]) == ("reward[1]", "null is not a number")


@pytest.mark.parametrize("name", ["policy_version", "minibatch"])
@pytest.mark.parametrize("bad", [1.5, "1", True, 2**63])
def test_bad_integers(importing: Importing, name: str, bad: Any) -> None:
    assert importing.error(**{name: bad})[0] == name
    assert importing.error(**{name: [1, bad, 2]})[0] == f"{name}[1]"


def test_64_bit_integers_are_exact(importing: Importing) -> None:
    row = importing.row(policy_version=2**63 - 1, minibatch=[-(2**63), 2**53 + 1, 4.0])
    assert row["policy_version"] == [2**63 - 1] * 3
    assert row["minibatch"] == [-(2**63), 2**53 + 1, 4]


def test_turns(importing: Importing) -> None:
    assert importing.row(turn=[0, 2**32 - 1, 2.0])["turn"] == [0, 2**32 - 1, 2]
    assert importing.error(turn=[0, -1, 0])[0] == "turn[1]"
    assert importing.error(turn=3) == ("turn", "expected a list, found a number")


@pytest.mark.parametrize("bad", [1, 0, "yes"])
def test_trainer_keep_is_boolean(importing: Importing, bad: Any) -> None:
    field, message = importing.error(trainer_keep=[True, bad, None])
    assert field == "trainer_keep[1]"
    assert "is not true or false" in message


@pytest.mark.parametrize("name", ["prompt_text", "response_text", "finish_reason"])
def test_texts(importing: Importing, name: str) -> None:
    assert importing.row(**{name: "é\n\x00"})[name] == "é\n\x00"
    assert importing.row(**{name: ""})[name] == ""
    assert importing.error(**{name: 3}) == (name, "expected a string, found a number")


def test_half_a_surrogate_pair(importing: Importing) -> None:
    assert importing.errors([record(prompt_text="\ud800")]) == [
        (1, "prompt_text", "has half a surrogate pair, which is no character")
    ]
    assert importing.row(prompt_text="\U0001f600")["prompt_text"] == "😀"  # json.dumps writes the pair as two escapes


def test_approximate_is_boolean(importing: Importing) -> None:
    assert importing.row(logprobs_approximate=False)["logprobs_approximate"] is False
    assert importing.error(logprobs_approximate=1) == ("logprobs_approximate", "1 is not true or false")


def test_all_problems_of_a_record_are_reported(importing: Importing) -> None:
    bad = record(
        sample_id="",
        response_mask=[1, 2, 1],
        rollout_logprobs=[-1, -1],
        advantage="high",
        rollout_logprob=[1],
        prompt_token_ids=...,
    )
    errors = importing.errors(ndjson(["", record("good"), bad]))
    assert [(line, field) for line, field, _ in errors] == [
        (3, "rollout_logprob"),
        (3, "prompt_token_ids"),
        (3, "sample_id"),
        (3, "response_mask[1]"),
        (3, "rollout_logprobs"),
        (3, "advantage"),
    ]
