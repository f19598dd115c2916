"""slime's two dumps as plain lists, and the join of them. The files themselves: tests/cli/test_convert.py."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from service.errors import BadRecord
from service.ingest.adapters import sample as words
from service.ingest.adapters import slime
from service.ingest.adapters.slime import slime_records
from tests.ingest.files import Importing

Fields = dict[str, Any]


def sampled(index: int | None, tokens: list[int], length: int = 2, **fields: Any) -> Fields:
    return {
        "index": index,
        "group_index": 5,
        "tokens": tokens,
        "response_length": length,
        "status": "completed",
        **fields,
    }


def trained(place: int | None, index: int | None, tokens: list[int], length: int = 2, **fields: Any) -> Fields:
    return {
        "data_parallel_rank": 0,
        "rollout_position": place,
        "sample_index": index,
        "tokens": tokens,
        "response_lengths": length,
        "loss_masks": [1] * length,
        **fields,
    }


def rollout_of(*samples: Fields) -> Fields:
    return {"rollout_id": 3, "samples": list(samples)}


def train_of(*samples: Fields, **top: Any) -> Fields:
    return {"format_version": 2, "rollout_id": 3, "rank": 0, "samples": list(samples), "dp_shards": [], **top}


def records(rollout: Fields | None, train: Fields | None = None) -> tuple[list[Fields], Counter[str]]:
    notes: Counter[str] = Counter()
    found = list(slime_records(3, rollout, train, notes))
    return found, +notes


def refused(rollout: Fields | None, train: Fields | None = None) -> tuple[int | None, str | None, str]:
    with pytest.raises(BadRecord) as caught:
        records(rollout, train)
    (error,) = caught.value.errors
    return error.line, error.field, error.message


def test_a_train_dump_alone() -> None:
    """No group and no text are in it: the prompt's tokens stand for the group."""
    one = trained(1, 41, [1, 2, 7, 8], log_probs=[-1.0, -2.0], rollout_log_probs=[-1.5, -2.5], advantages=[0.5, 0.5])
    two = trained(0, 40, [1, 2, 9, 6], truncated=1, loss_masks=[1, 0], log_probs=[-1.0, -9.0], rewards=0.7)
    (first, second), notes = records(None, train_of(one, two, raw_reward=[0.25, 1.0]))
    assert (first["sample_id"], first["step"], first["reward"]) == ("41", 3, 1.0)  # its rollout_position is 1
    assert (first["rollout_logprobs"], first["old_logprobs"], first["advantage"]) == (
        [-1.5, -2.5],
        [-1, -2],
        [0.5, 0.5],
    )
    assert first["group_id"] == second["group_id"]
    assert "finish_reason" not in first  # truncated = 0 does not say why it ended
    assert (second["finish_reason"], second["reward"], second["old_logprobs"]) == ("truncated", 0.25, [-1.0, None])
    assert second["meta"]["normalized_reward"] == 0.7
    assert notes == {}


def test_a_processed_reward_is_said_to_be_one() -> None:
    (record,), notes = records(None, train_of(trained(0, 40, [1, 2, 7, 8], rewards=-0.7)))
    assert record["reward"] == -0.7
    assert notes == {slime.NORMALIZED: 1}


def test_the_rollout_files_reward_is_no_group_norm() -> None:
    rollout = rollout_of(sampled(40, [1, 7, 8], reward=1.0))
    (record,), _ = records(rollout, train_of(trained(0, 40, [1, 7, 8], rewards=-0.7)))
    assert record["reward"] == 1.0


def test_a_reward_of_many_is_kept_and_not_chosen_from() -> None:
    (record,), _ = records(rollout_of(sampled(40, [1, 7, 8], reward={"a": 1.0, "b": 0.0})))
    assert "reward" not in record
    assert record["meta"]["reward"] == {"a": 1.0, "b": 0.0}


def test_the_join_is_by_position_then_by_index() -> None:
    rollout = rollout_of(sampled(40, [1, 7, 8]), sampled(41, [1, 7, 9]), sampled(42, [1, 7, 5]))
    swapped = trained(1, 40, [1, 7, 8], advantages=[0.1, 0.1]), trained(0, 41, [1, 7, 9], advantages=[0.2, 0.2])
    (first, second, third), notes = records(rollout, train_of(*swapped))
    assert (first["advantage"], second["advantage"]) == ([0.1, 0.1], [0.2, 0.2])
    assert "advantage" not in third  # the trainer drops what does not fill a batch
    assert notes == {slime.UNTRAINED: 1}


def test_two_files_of_different_batches() -> None:
    line, field, message = refused(rollout_of(sampled(40, [1, 7, 8])), train_of(trained(0, 40, [1, 7, 9])))
    assert (line, field) == (1, "tokens")
    assert "not of one batch" in message


def test_siblings_of_one_execution_share_an_index() -> None:
    """A compact rollout's samples are copies; each keeps its own id, the same in either file."""
    rows = [sampled(40, [1, 7, 8]), sampled(40, [1, 7, 9]), sampled(None, [1, 7, 5])]
    ids = ["40/0", "40/1", "row-2"]
    assert [record["sample_id"] for record in records(rollout_of(*rows))[0]] == ids
    shards = [trained(2, None, [1, 7, 5]), trained(1, 40, [1, 7, 9]), trained(0, 40, [1, 7, 8])]
    assert [record["sample_id"] for record in records(None, train_of(*shards))[0]] == ids[::-1]


def test_which_optimizer_step_a_response_was_in() -> None:
    """Rank 0 has positions 3, 0 and 4 as its rows 0, 1 and 2; its first step took two micro-batches, rows 1 and 2."""
    samples = [trained(place, 40 + place, [1, 7, place]) for place in range(5)]
    shards = [
        {"partition": [3, 0, 4], "micro_batch_indices": [[1], [2], [0]], "num_microbatches": [2, 1]},
        {"partition": [1, 2], "micro_batch_indices": [[0], [], [1]], "num_microbatches": [2, 1]},
    ]
    found, _ = records(None, train_of(*samples, dp_shards=shards))
    assert [record["minibatch"] for record in found] == [0, 0, 1, 1, 0]
    shards[0]["num_microbatches"] = [2, 2]  # does not add up: nothing is claimed
    found, _ = records(None, train_of(*samples, dp_shards=shards))
    assert all("minibatch" not in record for record in found)


def test_empty_responses_are_left_out_and_counted() -> None:
    rows = [sampled(40, [1, 2], 0, status="aborted"), sampled(41, [1, 2], 2), sampled(42, [1, 7, 8])]
    found, notes = records(rollout_of(*rows))
    assert [record["sample_id"] for record in found] == ["42"]
    assert notes == {words.EMPTY: 2}


def test_what_is_not_finite_is_null() -> None:
    row = sampled(40, [1, 7, 8, 9], 3, rollout_log_probs=[float("-inf"), -1.0, float("nan")], loss_mask=[1, 1, 0])
    (record,), notes = records(rollout_of(row))
    assert record["rollout_logprobs"] == [None, -1.0, None]
    assert notes == {words.NOT_FINITE: 1}


@pytest.mark.parametrize(
    ("versions", "expected"), [(["3"], 3), (["3", "3"], 3), (["3", "4"], None), (["default"], None), ([], None)]
)
def test_weight_versions(versions: list[str], expected: int | None) -> None:
    (record,), notes = records(rollout_of(sampled(40, [1, 7, 8], weight_versions=versions)))
    assert record.get("policy_version") == expected
    assert record.get("meta", {}).get("weight_versions") == (versions if versions and expected is None else None)
    assert notes == ({words.SEVERAL_VERSIONS: 1} if versions == ["3", "4"] else {})


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"loss_mask": [1]}, "loss_mask", "has 1 entries, but the response has 2 tokens (one short: shifted?)"),
        (
            {"rollout_log_probs": [-1.0] * 3},
            "rollout_log_probs",
            "has 3 entries, but the response has 2 tokens (one more",
        ),
        ({"rollout_log_probs": [-1.0, "x"]}, "rollout_log_probs", "holds something that is no number"),
        ({"rollout_log_probs": "no"}, "rollout_log_probs", "expected a list"),
        ({"response_length": 4}, "response_length", "4 is not a length within the 3 tokens"),
        ({"response_length": None}, "response_length", "None is not a length"),
        ({"tokens": None}, "tokens", "is required and missing"),
    ],
)
def test_bad_samples(fields: Fields, field: str, says: str) -> None:
    line, name, message = refused(rollout_of(sampled(40, [1, 7, 9]), {**sampled(41, [1, 7, 8]), **fields}))
    assert (line, name) == (2, field)
    assert says in message


def test_a_bad_train_column() -> None:
    train = train_of(trained(0, 40, [1, 7, 8], log_probs=[-1.0]))
    assert refused(rollout_of(sampled(40, [1, 7, 8])), train)[:2] == (1, "log_probs")
    train = train_of(trained(3, 40, [1, 7, 8]), raw_reward=[1.0])
    assert refused(None, train)[:2] == (1, "rollout_position")


def test_zero_on_a_counted_token_stays_a_probability_of_one(importing: Importing) -> None:
    """It is for the import to say whether there are too many of them."""
    found, _ = records(rollout_of(sampled(40, [1, 7, 8], rollout_log_probs=[-0.5, 0.0], reward=1)))
    importing(found)
    assert importing.rows()[0]["rollout_logprobs"] == [-0.5, 0.0]
