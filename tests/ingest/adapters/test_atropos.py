"""atropos groups, as `atroposlib/envs/base.py` writes a `ScoredDataGroup` at 296a0bc5.

The values are laid out as `atroposlib/api/README.md` says: full sequences, −100 and 1.0 on what is masked.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ingest.files import Importing


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


def test_every_field(importing: Importing) -> None:
    manifest = importing([group(), group(scores=[0.5, 0.0])], step=4)
    first, second, third, fourth = importing.rows()
    assert (manifest["format"], manifest["rollouts"], manifest["warnings"]) == ("atropos", 4, [])
    assert [row["sample_id"] for row in importing.rows()] == ["1/0", "1/1", "2/0", "2/1"]
    assert [row["group_id"] for row in importing.rows()] == ["1", "1", "2", "2"]
    assert [row["reward"] for row in importing.rows()] == [1.0, -1.0, 0.5, 0.0]
    assert first["step"] == 4
    assert (first["prompt_token_ids"], first["response_token_ids"]) == ([1, 2], [3, 40, 5, 6])
    assert first["response_mask"] == [True, False, True, True]
    assert first["rollout_logprobs"] == [-0.5, None, -0.25, -2.0]
    assert first["advantage"] == [0.5, None, 0.25, 0.125]
    assert json.loads(first["meta"]) == {
        "generation_params": {"temperature": 0.8},
        "group_overrides": {"group_size": 2},
        "messages": [{"role": "user", "content": "?"}],
        "overrides": {"set_advantage_to_zero": True},
    }
    assert json.loads(second["meta"])["messages"] == [{"role": "user", "content": "!"}]
    assert "overrides" not in json.loads(second["meta"])
    assert (second["prompt_token_ids"], second["response_token_ids"]) == ([1, 2], [7])
    assert (second["rollout_logprobs"], second["advantage"]) == ([-0.75], [-0.5])
    assert third["response_token_ids"] == first["response_token_ids"]
    assert fourth["rollout_logprobs"] == [-0.75]


def test_a_teachers_top_and_a_references_logprobs_are_not_mus(importing: Importing) -> None:
    importing([group()], step=4)
    row = importing.rows()[0]
    absent = ("rollout_top_token_ids", "rollout_top_logprobs", "old_logprobs", "new_logprobs", "policy_version")
    assert {row[name] for name in absent} == {None}


@pytest.mark.parametrize("empty", [None, []])
def test_what_no_response_had(importing: Importing, empty: Any) -> None:
    """`collect_trajectories` leaves an empty list where no response had the field."""
    names = ("advantages", "ref_logprobs", "inference_logprobs", "messages", "overrides")
    importing([group(**dict.fromkeys(names, empty), generation_params=None, group_overrides=None)], step=4)
    row = importing.rows()[0]
    assert (row["advantage"], row["rollout_logprobs"], row["meta"]) == (None, None, None)


def test_a_sentinel_on_a_token_that_counts(importing: Importing) -> None:
    importing([group(inference_logprobs=[[1.0, 1.0, -0.5, 1.0, 1.0, -2.0], [1.0, 1.0, 1.0]])], step=4)
    first, second = importing.rows()
    assert first["rollout_logprobs"] == [-0.5, None, None, -2.0]
    assert second["rollout_logprobs"] is None


def test_an_advantage_for_the_whole_response(importing: Importing) -> None:
    importing([group(advantages=[0.5, -0.5])], step=4)
    assert [row["advantage"] for row in importing.rows()] == [[0.5] * 4, [-0.5]]


def test_a_response_that_is_not_trained(importing: Importing) -> None:
    """One row without a token that counts does not refuse the file."""
    manifest = importing([group(masks=[[-100, -100, 3, -100, 5, 6], [-100] * 3])], step=4)
    assert [row["sample_id"] for row in importing.rows()] == ["1/0"]
    (warning,) = manifest["warnings"]
    assert warning["message"] == "1 response was left out: their mask marks no token of the response."


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
