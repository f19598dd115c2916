"""What is scored: two checkpoints of a run and a few of its rollouts."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.sizes import REAL, Source
from service.worker.batches import Response
from service.worker.policies import Checkpoint, Policy, PolicyPool

__all__ = ["Workload", "full_logits", "load"]


@dataclass(frozen=True)
class Workload:
    """Two policies in memory and the responses to score with them, in the order of the log."""

    old: Policy
    new: Policy
    responses: list[Response]

    @property
    def tokens(self) -> int:
        return sum(int(item.counted.sum()) for item in self.responses)


def load(source: Source, dtype: torch.dtype) -> Workload:
    """OLD and NEW in `dtype`, and the group's responses."""
    if source == REAL:
        from service.worker.demo_base import build

        build(source.base)
    pool = PolicyPool(torch.device("cpu"), dtype)
    old, new = pool.get([Checkpoint(str(source.base), "", str(path), "") for path in (source.old, source.new)])
    with gzip.open(source.rollouts, "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["group_id"] == source.group]
    items = [
        Response(
            row=index,
            prompt=np.array(row["prompt_token_ids"], dtype=np.int64),
            response=np.array(row["response_token_ids"], dtype=np.int64),
            counted=np.array(row["response_mask"], dtype=np.bool_),
        )
        for index, row in enumerate(rows)
    ]
    return Workload(old, new, items)


def full_logits(policy: Policy, hidden_ND: Tensor) -> Tensor:
    """All of the float32 logits [N, V] at once."""
    logits = torch.empty(hidden_ND.shape[0], policy.vocab_size)
    policy.logits_of(hidden_ND)(0, hidden_ND.shape[0], logits)
    return logits
