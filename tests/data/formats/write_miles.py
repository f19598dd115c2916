"""Write miles' rollout dump, its dashboard columns and its loss dumps with miles' own `Sample` and writers.

github.com/radixark/miles at 31f1ca961a94cb860cec3b2dea34ec332bfa8f76 (2026-08-21), Python 3.12:

    git clone https://github.com/radixark/miles && git -C miles checkout 31f1ca9
    python3.12 -m venv venv && venv/bin/pip install torch==2.13.0 numpy polars
    venv/bin/python tests/data/formats/write_miles.py miles tests/data/formats

- miles-31f1ca9-rollout.pt and miles-31f1ca9-columns.parquet are rollout_data/7.pt and
  dashboard_columns/rollout_7.parquet of `save_debug_rollout_data` (--dump-details).
- miles-31f1ca9-loss-{0,1}.pt are policy_loss_debug/rank_0_call_{0,1}.pt of `maybe_dump_policy_loss_debug`, which the
  loss calls for each micro-batch: samples 42 and 40, then 43 and 41.
There is no stand-in: what the engine and the trainer would give, samples and log-probs, is by hand.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

OLD = {40: [-0.625, -0.375, -9.0, -8.0, -1.25], 41: [-0.5, -1.0], 42: [-0.25], 43: [-2.5, -3.5]}  # by index
NEW = {40: [-0.75, -0.5, -9.5, -8.5, -1.75], 41: [-0.25, -1.25], 42: [-0.375], 43: [-2.25, -3.25]}
ADVANTAGES = {40: 0.5, 41: -0.5, 42: 1.0, 43: -1.0}


def main(checkout: Path, folder: Path) -> None:
    sys.path.insert(0, str(checkout))
    import torch
    from miles.backends.training_utils.debug_dump import maybe_dump_policy_loss_debug
    from miles.ray.rollout.debug_data import save_debug_rollout_data

    samples = {sample.index: sample for sample in sampled()}
    with TemporaryDirectory() as details:
        args = SimpleNamespace(
            dump_details=details,
            save_debug_rollout_data=f"{details}/rollout_data/{{rollout_id}}.pt",
            save_debug_trajectory_data=None,
        )
        save_debug_rollout_data(args, list(samples.values()), 7, evaluation=False)
        for indices in ([42, 40], [43, 41]):
            batch = [samples[index] for index in indices]
            lengths = [sample.response_length for sample in batch]
            masks = [[0] * one.response_length if one.remove_sample else one.loss_mask for one in batch]
            maybe_dump_policy_loss_debug(
                args=args,
                batch={"total_lengths": [len(sample.tokens) for sample in batch], "response_lengths": lengths},
                train_log_probs=[torch.tensor(NEW[index]) for index in indices],
                old_log_probs=[torch.tensor(OLD[index]) for index in indices],
                rollout_log_probs=[torch.tensor(sample.rollout_log_probs) for sample in batch],
                advantages=[
                    torch.full((length,), ADVANTAGES[index]) for index, length in zip(indices, lengths, strict=True)
                ],
                local_loss_masks=[
                    torch.tensor(mask or [1] * length) for mask, length in zip(masks, lengths, strict=True)
                ],
                ppo_kl=torch.zeros(sum(lengths)),
                pg_loss=torch.zeros(sum(lengths)),
            )
        shutil.copy(Path(details) / "rollout_data/7.pt", folder / "miles-31f1ca9-rollout.pt")
        shutil.copy(Path(details) / "dashboard_columns/rollout_7.parquet", folder / "miles-31f1ca9-columns.parquet")
        for call in (0, 1):
            loss = Path(details) / f"policy_loss_debug/rank_0_call_{call}.pt"
            shutil.copy(loss, folder / f"miles-31f1ca9-loss-{call}.pt")


def sampled() -> list[Any]:
    """Two groups of two: one calls a tool, one is cut, the prompt of one is chat, and one is removed from the loss."""
    import numpy as np
    from miles.utils.types import Sample

    def sample(index: int, prompt: Any, ids: list[int], logprobs: list[float], status: Any, **fields: Any) -> Any:
        fields = {"tokens": ids, "response_length": len(logprobs), "rollout_log_probs": logprobs, **fields}
        return Sample(group_index=index // 2, index=index, prompt=prompt, status=status, **fields)

    status = Sample.Status
    return [
        sample(
            *(40, "2+2?", [5, 9, 11, 12, 30, 31, 13], [-0.5, -0.25, 0.0, 0.0, -1.5], status.COMPLETED),
            response="call 4 four",
            label="4",
            reward=1.0,
            loss_mask=[1, 1, 0, 0, 1],
            weight_versions=["7", "7"],
            rollout_routed_experts=np.zeros((6, 1, 1), np.int32),
            routing_key="r-40",
        ),
        sample(
            *(41, "2+2?", [5, 9, 11, 2], [-0.5, -0.75], status.TRUNCATED),
            response="5",
            reward=0.0,
            weight_versions=["6", "7"],
        ),
        sample(
            *(42, [{"role": "user", "content": "3+3?"}], [6, 10, 14], [-0.125], status.COMPLETED),
            response="6",
            reward=1.0,
            loss_mask=[1],
            weight_versions=["7"],
        ),
        sample(
            *(43, "3+3?", [6, 10, 15, 2], [-2.0, -3.0], status.FAILED),
            response="7",
            reward=-1.0,
            loss_mask=[1, 1],
            weight_versions=["default"],
            remove_sample=True,
        ),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
