"""Real responses of a real model: what is shared, and how batches are cut, does not change what is scored."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dppo_core.two_policy import TwoPolicyScorer
from service.worker.batches import Response
from service.worker.pairs import lay_out, score_responses
from service.worker.policies import Checkpoint, PolicyPool
from tests.live import REPOSITORY

pytestmark = pytest.mark.model

RUN = REPOSITORY / "service" / "cli" / "demo_data" / "smollm2-arith"
RESPONSES = 16  # two prompts of the first step


def test_sharing_and_buckets_agree(base_checkpoint: Path) -> None:
    with gzip.open(RUN / "rollouts.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(next(file)) for _ in range(RESPONSES)]
    items = [
        Response(
            index,
            np.array(row["prompt_token_ids"]),
            np.array(row["response_token_ids"]),
            np.array(row["response_mask"], dtype=np.bool_),
        )
        for index, row in enumerate(rows)
    ]
    pair = [Checkpoint(str(base_checkpoint), "", str(RUN / "adapters" / f"step_00{step}")) for step in (0, 1)]
    old, new = PolicyPool(torch.device("cpu"), torch.float32).get(pair)
    scorer = TwoPolicyScorer(old.vocab_size)
    shared = score_responses(old, new, items, scorer)
    tokens = [
        sum(batch.token_ids_BT.numel() for batch in lay_out(items, [old, new], share_prompts=share_prompts))
        for share_prompts in (True, False)
    ]
    assert tokens[1] - tokens[0] == 7 * sum(len(items[at].prompt) for at in (0, 8)), "each prompt once for eight"
    ways = {"unshared": {"share_prompts": False}, "small": {"batch_tokens": 200}, "large": {"batch_tokens": 4096}}
    for name, options in ways.items():
        other = score_responses(old, new, items, scorer, **options)
        for policy in ("logp_old", "logp_new"):
            gap = (getattr(shared, policy) - getattr(other, policy)).abs().max()
            assert float(gap) < 1e-5, (name, policy)
        assert float((shared.tv_exact - other.tv_exact).abs().max()) < 1e-5, name
