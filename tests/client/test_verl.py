"""The verl hook on a batch as the trainers hold it before the update: the tensors' names and paddings are verl's.

Stand-ins for verl's classes; both ways were compared with verl 0.9.1's own, with a real TransferQueue.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from service.client.hooks.verl import rollouts_of

FIRST = {
    "group_id": "a",
    "prompt_token_ids": [5, 6],
    "response_token_ids": [7, 8, 9],
    "response_mask": [1, 0, 1],
    "advantage": [0.5, 0.0, 0.5],
    "reward": 1.5,
    "rollout_logprobs": [-0.75, None, -0.5],
}
"""Of the first response, what either batch says."""


def batch(**more: torch.Tensor) -> Any:
    """Two responses to one prompt: one with a tool's token in the middle, one of a single token."""
    held = {
        "prompts": torch.tensor([[0, 5, 6], [0, 5, 6]]),
        "responses": torch.tensor([[7, 8, 9, 0], [4, 0, 0, 0]]),
        "attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0, 0]]),
        "response_mask": torch.tensor([[1, 0, 1, 0], [1, 0, 0, 0]]),
        "token_level_scores": torch.tensor([[0.0, 0.0, 1.5, 0.0], [0.25, 0.0, 0.0, 0.0]]),
        "advantages": torch.tensor([[0.5, 0.0, 0.5, 0.0], [-0.5, 0.0, 0.0, 0.0]]),
        "old_log_probs": torch.tensor([[-0.5, -4.0, -0.25, 0.0], [-1.0, 0.0, 0.0, 0.0]]),
        **more,
    }
    return SimpleNamespace(batch=held, non_tensor_batch={"uid": np.array(["a", "a"], dtype=object)})


def test_every_field() -> None:
    mu = torch.tensor([[-0.75, 0.0, -0.5, 0.0], [-2.0, 0.0, 0.0, 0.0]])
    assert rollouts_of(batch(rollout_log_probs=mu)) == [
        {**FIRST, "sample_id": "0", "old_logprobs": [-0.5, None, -0.25]},
        {
            "sample_id": "1",
            "group_id": "a",
            "prompt_token_ids": [5, 6],
            "response_token_ids": [4],
            "response_mask": [1],
            "advantage": [-0.5],
            "reward": 0.25,
            "rollout_logprobs": [-2.0],
            "old_logprobs": [-1.0],
        },
    ]


def test_what_is_not_there_is_left_out() -> None:
    assert "rollout_logprobs" not in rollouts_of(batch())[0]
    bypassed = rollouts_of(batch(rollout_log_probs=batch().batch["old_log_probs"]))[0]
    assert "old_logprobs" not in bypassed
    assert bypassed["rollout_logprobs"] == [-0.5, None, -0.25]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The default trainer's batch: keys and tags; the rows, unpadded, are in a TransferQueue."""
    held = {
        "a_0_0": ([5, 6], [7, 8, 9], [1, 0, 1], [0.0, 0.0, 1.5], [-0.75, 0.0, -0.5]),
        "a_1_0": ([5, 6], [4], [1], [0.25], [-2.0]),
        "a_1_1": ([5, 6, 4], [3], [1], [0.25], [-1.0]),
        "pad07_0_0": ([2] * 127, [2], [0], [0.0], [0.0]),
    }
    names = ("prompts", "responses", "response_mask", "rm_scores", "rollout_log_probs")

    def kv_batch_get(keys: list[str], partition_id: str, select_fields: list[str]) -> list[dict[str, torch.Tensor]]:
        assert partition_id == "train"
        rows = [dict(zip(names, map(torch.tensor, held[key]), strict=True)) for key in keys]
        for row in rows:
            row["advantages"] = 0.5 * row["response_mask"]
            row["old_log_probs"] = row["rollout_log_probs"] - 0.25
        return [{name: value for name, value in row.items() if name in select_fields} for row in rows]

    monkeypatch.setitem(sys.modules, "transfer_queue", SimpleNamespace(kv_batch_get=kv_batch_get))
    versions = [(2, 2), (1, 2), (None, None), (2, 2)]
    tags = [{"min_global_steps": low, "max_global_steps": high} for low, high in versions]
    tags[3]["is_padding"] = True
    return SimpleNamespace(keys=list(held), tags=tags, partition_id="train")


def test_a_transfer_queue(queue: Any) -> None:
    first, second, third = rollouts_of(queue)
    assert first == {**FIRST, "sample_id": "a_0_0", "old_logprobs": [-1.0, None, -0.75], "policy_version": 3}
    assert (second["sample_id"], second["group_id"], second["response_token_ids"]) == ("a_1_0", "a", [4])
    assert second["meta"] == {"policy_versions": [2, 3]}
    assert (third["sample_id"], third["prompt_token_ids"], third["reward"]) == ("a_1_1", [5, 6, 4], 0.25)
    assert not {"policy_version", "meta"} & third.keys()
