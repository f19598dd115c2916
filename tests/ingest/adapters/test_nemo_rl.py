"""NeMo-RL train_data_step{N}.jsonl, as `algorithms/grpo.py` and `utils/logger.py` write it at 7ea279abf.

nemo-rl-7ea279a-{grpo,on-policy}.jsonl are its own, of the responses in tests/data/formats/write_nemo_rl.py. `logged` is
a batch by hand, for what they do not have: `log_batched_dict_as_jsonl` slices it to batches of one, which keep the
batch's axis, and adds `idx`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.files import Importing

FORMATS = Path(__file__).parents[2] / "data" / "formats"
PAD = 0
BATCH = {
    "agent_ref": [{"name": "calculator"}, {"name": "calculator"}],
    "content": [["2+2?", "call", "4", "four"], ["2+2?", "5"]],
    "rewards": [1.0, -0.5],
    "input_lengths": [7, 4],
    "token_ids": [[5, 9, 11, 12, 30, 31, 13], [5, 9, 11, 2, PAD, PAD, PAD]],
    "token_loss_mask": [[0, 0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 0, 0, 0]],
    "sample_loss_mask": [1.0, 1.0],
    "advantages": [[0.7] * 7, [-0.7] * 7],
    "generation_logprobs": [[0.0, 0.0, -0.1, -0.02, 0.0, 0.0, -1.5], [0.0, 0.0, -0.3, -0.4, 0.0, 0.0, 0.0]],
    "prev_logprobs": [[0.0, -3.1, -0.11, -0.02, -9.0, -8.0, -1.25], [0.0, -3.1, -0.33, -0.41, -7.0, 0.0, 0.0]],
}


def logged(**changes: Any) -> list[dict[str, Any]]:
    """The lines of a batch, in the writer's shape: batches of one."""
    batch = {**BATCH, **changes}
    return [{**{name: values[i : i + 1] for name, values in batch.items()}, "idx": i} for i in range(2)]


def test_as_nemo_rl_writes_it(importing: Importing) -> None:
    """Two turns with a tool between them; padding and the figures of prompt and tool tokens are not read."""
    manifest = importing(FORMATS / "nemo-rl-7ea279a-grpo.jsonl", step=8)
    assert (manifest["format"], manifest["rollouts"], manifest["warnings"]) == ("nemo-rl", 4, [])
    first, second, *_ = rows = importing.rows()
    assert [(row["step"], row["sample_id"]) for row in rows] == [(8, "0"), (8, "1"), (8, "2"), (8, "3")]
    assert first["prompt_token_ids"] == [5, 9]
    assert first["response_token_ids"] == [11, 12, 30, 31, 13, 2]
    assert first["response_mask"] == [True, True, False, False, True, True]
    assert first["turn"] == [0, 0, 1, 1, 1, 1]  # what the tool said leads up to the second turn
    assert first["rollout_logprobs"] == [-0.25, -2.0, None, None, -0.5, -0.5]
    assert first["old_logprobs"] == [-0.125, -1.5, None, None, -0.75, -0.5]
    assert (first["reward"], first["advantage"]) == (1.0, [0.5, 0.5, None, None, 0.5, 0.5])  # 1 − (1 + 0) / 2
    assert json.loads(first["meta"]) == {
        "content": ["user [5, 9]", "assistant [11, 12]", "environment [30, 31]", "assistant [13, 2]"],
        "agent_ref": {"name": "calculator"},
    }
    absent = ("new_logprobs", "policy_version", "trainer_keep", "finish_reason", "rollout_top_token_ids")
    assert {first[name] for name in absent} == {None}
    assert second["response_token_ids"] == [14, 2]  # four tokens of padding follow
    assert (second["response_mask"], second["turn"]) == ([True, True], None)
    assert (second["rollout_logprobs"], second["old_logprobs"]) == ([-1.75, -0.25], [-2.0, -0.5])
    assert (second["reward"], second["advantage"]) == (0.0, [-0.5, -0.5])
    groups = [row["group_id"] for row in rows]
    assert groups == [groups[0], groups[0], groups[2], groups[2]]
    assert groups[0] != groups[2]


def test_responses_left_out_of_the_loss(importing: Importing) -> None:
    """Overlong filtering, or too large an error of the log-probs. An answer within the prompt is no response."""
    importing(FORMATS / "nemo-rl-7ea279a-grpo.jsonl", step=8)
    *_, third, fourth = importing.rows()
    assert third["prompt_token_ids"] == fourth["prompt_token_ids"] == [5, 9, 11, 2, 6]
    assert (third["response_token_ids"], fourth["response_token_ids"]) == ([17, 15, 2], [16])
    assert (third["response_mask"], fourth["response_mask"]) == ([False] * 3, [False])
    assert (third["reward"], fourth["reward"]) == (0.5, -0.5)
    for row in (third, fourth):
        assert (row["rollout_logprobs"], row["old_logprobs"], row["advantage"]) == (None, None, None)


def test_dynamic_sampling_of_the_policy_itself(importing: Importing) -> None:
    """`rewards` is of the batch before it was filtered, not of these responses; `prev_logprobs` was not computed."""
    manifest = importing(FORMATS / "nemo-rl-7ea279a-on-policy.jsonl", step=9)
    assert (manifest["rollouts"], manifest["warnings"]) == (2, [])
    first, second = importing.rows()
    assert (first["response_token_ids"], second["response_token_ids"]) == ([13, 2], [14, 15])
    assert (first["reward"], second["reward"]) == (1.0, 0.0)
    assert (first["advantage"], second["advantage"]) == ([0.5, 0.5], [-0.5, -0.5])
    assert (first["rollout_logprobs"], second["rollout_logprobs"]) == ([-0.75, -0.5], [-2.0, -0.125])
    assert (first["old_logprobs"], second["old_logprobs"]) == (None, None)
    assert all("rewards" not in json.loads(row["meta"]) for row in (first, second))


def test_the_step_travels_beside_the_file(importing: Importing) -> None:
    errors = importing.errors(logged())
    assert {(line, field) for line, field, _ in errors} == {(1, "step"), (2, "step")}
    assert "give it in the record, or as step= beside the file" in errors[0][2]


def test_a_row_without_a_token_of_the_policy(importing: Importing) -> None:
    manifest = importing(logged(token_loss_mask=[BATCH["token_loss_mask"][0], [0] * 7]), step=1)
    assert manifest["rollouts"] == 1
    (warning,) = manifest["warnings"]
    assert (warning["code"], warning["examples"]) == ("left_out", [{"line": 2, "field": None}])
    assert "their mask marks no token of the response" in warning["message"]


def test_a_missing_logprob_stored_as_probability_1(importing: Importing) -> None:
    """NeMo-RL #4218: 0.0 on tokens that count is kept, and told."""
    zeros = [[0.0] * 7, BATCH["generation_logprobs"][1]]
    manifest = importing(logged(generation_logprobs=zeros), step=1)
    (warning,) = manifest["warnings"]
    assert (warning["code"], warning["count"]) == ("zero_logprobs", 3)
    assert warning["examples"] == [{"line": 1, "field": "rollout_logprobs", "step": 1, "sample_id": "0"}]


def test_a_batch_that_is_not_wrapped(importing: Importing) -> None:
    """The same lines without the batch's axis are the same records."""
    bare = [{name: value if name == "idx" else value[0] for name, value in line.items()} for line in logged()]
    importing(logged(), step=1)
    wrapped = [row["row_hash"] for row in importing.rows()]
    importing(bare, step=1)
    assert [row["row_hash"] for row in importing.rows()] == wrapped


def test_a_response_of_one_token_in_a_sequence_of_two(importing: Importing) -> None:
    """Rows of few tokens are not mistaken for the wrapping."""
    line = {"token_ids": [[5, 9]], "token_loss_mask": [[0, 1]], "input_lengths": [2], "idx": 0, "content": [["a"]]}
    importing([line], step=1)
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([5], [9])
    assert json.loads(row["meta"]) == {"content": ["a"]}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"token_loss_mask": [1, 0, 1, 1, 0, 0, 0]}, "token_loss_mask[0]", "marks the first token as the response"),
        ({"token_loss_mask": [0, 0, 1, 1, 1, 0, 0]}, "token_loss_mask", "beyond the first 4 (input_lengths)"),
        ({"input_lengths": 8}, "input_lengths", "is 8, but token_ids has 7 entries"),
        ({"prev_logprobs": [0, -3.1, -0.3, -0.4, 0, 0]}, "prev_logprobs", "has 6 entries, expected 7 (one short"),
        ({"generation_logprobs": [0, 0, 1.0, -0.4, 0, 0, 0]}, "generation_logprobs[2]", "1.0 is a sentinel"),
        ({"advantages": [0, 0, "x", 0, 0, 0, 0]}, "advantages[2]", "'x' is not a number"),
        ({"rewards": "high"}, "rewards", "'high' is not a number"),
        ({"token_ids": [5, 9, 1.5, 2, 0, 0, 0]}, "token_ids[2]", "1.5 is not a token id"),
        ({"idx": None}, "idx", "is required and missing"),
    ],
)
def test_what_is_refused(importing: Importing, changes: dict[str, Any], field: str, message: str) -> None:
    first, second = logged()
    second |= {name: value if name == "idx" else [value] for name, value in changes.items()}
    ((line, name, text),) = importing.errors([first, second], step=1)
    assert (line, name) == (2, field)
    assert message in text


def test_validation_data_has_no_tokens(importing: Importing) -> None:
    ((line, field, message),) = importing.errors([{"content": [["2+2?", "4"]], "rewards": [1.0], "idx": 0}], step=1)
    assert (line, field) == (1, "content")
    assert "val_data files hold no token ids; upload the train_data_step files" in message
