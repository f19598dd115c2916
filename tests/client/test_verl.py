"""The verl hook on a batch as `RayPPOTrainer.fit` holds it: the tensors' names and paddings are verl's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from service.client.hooks.verl import rollouts_of


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
        {
            "sample_id": "0",
            "group_id": "a",
            "prompt_token_ids": [5, 6],
            "response_token_ids": [7, 8, 9],
            "response_mask": [1, 0, 1],
            "advantage": [0.5, 0.0, 0.5],
            "reward": 1.5,
            "rollout_logprobs": [-0.75, None, -0.5],
            "old_logprobs": [-0.5, None, -0.25],
        },
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
