"""atropos groups, as atroposlib 0.4.0 wrote them, and what an environment's own can hold besides.

tests/data/formats/atropos-0.4.0-groups.jsonl is of write_atropos.py, beside it. The hand-made group is laid out as
`atroposlib/api/README.md` says: full sequences, −100 and 1.0 on what is masked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.files import Importing

FORMATS = Path(__file__).parents[2] / "data" / "formats"


def group(**changes: Any) -> dict[str, Any]:
    """Two responses of different length; the first has a tool's tokens in its middle."""
    return {
        "tokens": [[1, 2, 3, 40, 5, 6], [1, 2, 7]],
        "masks": [[-100, -100, 3, -100, 5, 6], [-100, -100, 7]],
        "scores": [1.0, -1.0],
        "advantages": [[0, 0, 0.5, 0, 0.25, 0.125], [0, 0, -0.5]],
        "ref_logprobs": [[0, 0, -9.0, 0, -9.0, -9.0], [0, 0, -9.0]],
        "messages": [[{"role": "user", "content": "?"}], [{"role": "user", "content": "!"}]],
        "generation_params": {"temperature": 0.8},
        "inference_logprobs": [[1.0, 1.0, -0.5, 1.0, -0.25, -2.0], [1.0, 1.0, -0.75]],
        "group_overrides": {"group_size": 2},
        "overrides": [{"set_advantage_to_zero": True}, {}],
        "images": ["iVBORw0KGgo", None],
        "distill_token_ids": [[[3, 4]] * 6, [[7, 8]] * 3],
        "distill_logprobs": [[[-0.1, -3.0]] * 6, [[-0.2, -2.0]] * 3],
        **changes,
    }


def test_groups_as_atropos_writes_them(importing: Importing) -> None:
    """A group of equal scores is not in the file, nor does it count: `ensure_scores_are_not_same`."""
    manifest = importing(FORMATS / "atropos-0.4.0-groups.jsonl", step=4)
    assert (manifest["format"], manifest["rollouts"]) == ("atropos", 5)
    rows = importing.rows()
    assert [row["sample_id"] for row in rows] == ["1/0", "1/1", "2/0", "3/0", "3/1"]
    assert [row["group_id"] for row in rows] == ["1", "1", "2", "3", "3"]
    assert [row["reward"] for row in rows] == [1.0, -1.0, 1.0, 0.5, 0.25]
    assert {row["step"] for row in rows} == {4}
    for row in rows:
        absent = ("old_logprobs", "new_logprobs", "turn", "policy_version", "finish_reason", "trainer_keep")
        assert {row[name] for name in absent} == {None}


def test_a_chat_of_two_turns(importing: Importing) -> None:
    """`ManagedServer`: 1.0 where masked, and on the last token too, whose log-prob the server did not give."""
    importing(FORMATS / "atropos-0.4.0-groups.jsonl", step=4)
    first, second = importing.rows()[:2]
    assert first["prompt_token_ids"] == second["prompt_token_ids"] == [1, 4, 6, 7, 8, 7, 9, 6, 5, 6]
    assert first["response_token_ids"] == [10, 6, 3, 3, 3, 3, 6, 15, 6, 5, 6, 13, 11]
    assert first["response_mask"] == [True] + [False] * 10 + [True, True]
    assert first["rollout_logprobs"] == [-0.5] + [None] * 10 + [-0.125, None]
    assert (second["response_token_ids"], second["response_mask"]) == ([11, 2], [True, True])
    assert second["rollout_logprobs"] == [-0.25, -2.0]
    assert [row["advantage"] for row in (first, second)] == [None, None]
    assert [row["meta"] for row in (first, second)] == [None, None]


def test_a_group_that_the_base_environment_gathers(importing: Importing) -> None:
    """It gathers no inference_logprobs, and an override of one response alone does not say of which."""
    manifest = importing(FORMATS / "atropos-0.4.0-groups.jsonl", step=4)
    row = importing.rows()[2]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([1, 7], [10, 2])
    assert row["response_mask"] == [True, True]
    assert (row["rollout_logprobs"], row["old_logprobs"]) == (None, None)  # the reference's are neither
    assert row["advantage"] == [0.5, 0.25]
    assert json.loads(row["meta"]) == {
        "messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": "4"}],
        "group_overrides": {"topic": "sums"},
        "overrides": [{"set_advantage_to_zero": True}],
    }
    (warning,) = manifest["warnings"]
    assert warning["message"] == "1 response was left out: their mask marks no token of the response."
    assert warning["examples"][0]["line"] == 2


def test_a_teachers_distribution_is_not_kept(importing: Importing) -> None:
    importing(FORMATS / "atropos-0.4.0-groups.jsonl", step=4)
    for row, token in zip(importing.rows()[3:], (10, 11), strict=True):
        assert (row["prompt_token_ids"], row["response_token_ids"]) == ([1, 7], [token])
        assert (row["rollout_top_token_ids"], row["rollout_top_logprobs"]) == (None, None)
        assert json.loads(row["meta"]) == {"generation_params": {"temperature": 0.5}}


def test_what_is_of_one_response_and_what_of_the_group(importing: Importing) -> None:
    importing([group()], step=4)
    first, second = (json.loads(row["meta"]) for row in importing.rows())
    assert first == {
        "generation_params": {"temperature": 0.8},
        "group_overrides": {"group_size": 2},
        "messages": [{"role": "user", "content": "?"}],
        "overrides": {"set_advantage_to_zero": True},
    }
    assert second["messages"] == [{"role": "user", "content": "!"}]
    assert "overrides" not in second


@pytest.mark.parametrize("empty", [None, []])
def test_what_no_response_had(importing: Importing, empty: Any) -> None:
    """`collect_trajectories` leaves an empty list where no response had the field."""
    names = ("advantages", "ref_logprobs", "inference_logprobs", "messages", "overrides")
    importing([group(**dict.fromkeys(names, empty), generation_params=None, group_overrides=None)], step=4)
    row = importing.rows()[0]
    assert (row["advantage"], row["rollout_logprobs"], row["meta"]) == (None, None, None)


def test_an_advantage_for_the_whole_response(importing: Importing) -> None:
    importing([group(advantages=[0.5, -0.5])], step=4)
    assert [row["advantage"] for row in importing.rows()] == [[0.5] * 4, [-0.5]]


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"masks": [[-100, -100, 3, -100, 5], [-100, -100, 7]]}, "masks[0]", "has 5 entries, expected 6 (one sh"),
        (
            {"masks": [[-100, -100, 40, 5, 6, 6], [-100] * 3]},
            "masks[0][2]",
            "neither −100 nor the token's id: shifted?",
        ),
        ({"masks": [[1, 2, 3, 40, 5, 6], [-100] * 3]}, "masks[0][0]", "marks the first token as the response"),
        ({"masks": [[-100, -100, 3, -100, 5, 6]]}, "masks", "has 1 entry, expected 2"),
        ({"scores": [1.0]}, "scores", "has 1 entry, expected 2"),
        ({"scores": [1.0, "x"]}, "scores[1]", "'x' is not a number"),
        ({"scores": None}, "scores", "is required and missing"),
        ({"tokens": [[1, 2, 3, 40, 5, 6], [1, 2, -7]]}, "tokens[1][2]", "-7 is not a token id"),
        ({"tokens": [[1, 2, 3, 40, 5, 6], None]}, "tokens[1]", "is required and missing"),
        ({"inference_logprobs": [[1] * 6, [1, 1, 0.25]]}, "inference_logprobs[1][2]", "0.25 is a positive"),
        ({"inference_logprobs": [[1] * 6, [1, 1]]}, "inference_logprobs[1]", "has 2 entries, expected 3 (one s"),
        ({"advantages": [[0] * 6, [0, 0, "x"]]}, "advantages[1][2]", "'x' is not a number"),
        ({"generation_params": "hot"}, "generation_params", "expected an object, found a string"),
    ],
)
def test_what_is_refused(importing: Importing, changes: dict[str, Any], field: str, message: str) -> None:
    ((line, name, text),) = importing.errors([group(), group(**changes)], step=4)
    assert (line, name) == (2, field)
    assert message in text
