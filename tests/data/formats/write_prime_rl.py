"""Write prime-rl's token export of one step with prime-rl's own batching and exporter.

github.com/PrimeIntellect-ai/prime-rl at 559b44772e471d1538537b8805cc77f3824a5e64 (2026-08-21, version 0.4.0):

    git clone https://github.com/PrimeIntellect-ai/prime-rl && git -C prime-rl checkout 559b447
    python3.12 -m venv venv && venv/bin/pip install torch==2.13.0 verifiers==0.4.0 renderers prime-pydantic-config \
        beartype jaxtyping msgspec pyzmq orjson wandb
    venv/bin/python tests/data/formats/write_prime_rl.py prime-rl tests/data/formats

It calls what `trainer/rl/train.py` calls: `prepare_batch` packs the samples into micro batches of 16 tokens and pads
them to a multiple of 8, `DataLoader._micro_batch_to_tensor` makes tensors of them, and the `TokenExporter` of
`setup_token_exporter` writes `token_exports/step_3/rank_2.jsonl`, with the default loss and its thresholds of 0.2.
Stand-ins: the model, whose log-probs are those of `SAMPLES` (with the first token's log(1/V), as `shift_tensor_right`
puts it there, V = 64) and whose entropy is 0.5 everywhere, and the ranks of a cluster.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

F, T = False, True
FIRST = -math.log(64)
# As `trace_to_samples` makes them of a trace: μ and the advantages are 0.0 on what the policy did not sample.
SAMPLES: list[dict[str, Any]] = [
    {  # two turns with a tool's answer between them; p: 0.78 → 0.88, 0.14 → 0.61, 0.61 → 0.14
        "token_ids": [1, 4, 6, 10, 11, 12, 30, 31, 2],
        "mask": [F, F, F, F, T, T, F, F, T],
        "logprobs": [0.0, 0.0, 0.0, 0.0, -0.25, -2.0, 0.0, 0.0, -0.5],
        "trainer": [FIRST, -3.0, -3.0, -3.0, -0.125, -0.5, -4.0, -4.0, -2.0],
        "advantages": [0.0, 0.0, 0.0, 0.0, 0.75, 0.75, 0.0, 0.0, 0.75],
        "env_name": "calculator",
    },
    {  # frozen-model tokens: the cross-entropy part of the loss trains them, the RL part does not
        "token_ids": [1, 4, 6, 10, 20, 21, 22, 2],
        "mask": [F, F, F, F, T, T, T, T],
        "logprobs": [0.0] * 8,
        "trainer": [FIRST, -3.0, -3.0, -3.0, -1.0, -2.0, -0.125, -0.5],
        "advantages": [0.0] * 8,
        "rl_weights": [0.0] * 8,
        "ce_weights": [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0],
        "env_name": "distill",
    },
    {  # A < 0 and an A of 0; p: 0.61 → 0.14, 0.14 → 0.61, 0.05 → 0 (a log-prob of −inf), 0.61 → 0.14
        "token_ids": [1, 4, 6, 13, 14, 15, 2],
        "mask": [F, F, F, T, T, T, T],
        "logprobs": [0.0, 0.0, 0.0, -0.5, -2.0, -3.0, -0.5],
        "trainer": [FIRST, -3.0, -3.0, -2.0, -0.5, -math.inf, -2.0],
        "advantages": [0.0, 0.0, 0.0, -0.5, -0.5, -0.5, 0.0],
        "env_name": "calculator",
    },
    {  # packed with the frozen-model sample, and the last of its micro batch: two tokens of padding follow
        "token_ids": [1, 4, 6, 10, 16, 2],
        "mask": [F, F, F, F, T, T],
        "logprobs": [0.0, 0.0, 0.0, 0.0, -1.0, -1.5],
        "trainer": [FIRST, -3.0, -3.0, -3.0, -1.25, -1.5],
        "advantages": [0.0, 0.0, 0.0, 0.0, 0.25, 0.25],
        "env_name": "",
    },
    {  # alone in a micro batch without a token of the RL part: the exporter leaves ratios and masks null
        "token_ids": [1, 4, 10, 23, 2],
        "mask": [F, F, F, T, T],
        "logprobs": [0.0] * 5,
        "trainer": [FIRST, -3.0, -3.0, -0.25, -0.75],
        "rl_weights": [0.0] * 5,
        "ce_weights": [0.0, 0.0, 0.0, 1.0, 1.0],
        "env_name": "distill",
    },
]


def main(checkout: Path, folder: Path) -> None:
    sys.path[:0] = [str(checkout / "src"), str(checkout / "packages/prime-rl-configs/src")]
    import torch
    from prime_rl.configs.trainer import TrainerConfig
    from prime_rl.trainer.batch import build_bin_cost, prepare_batch
    from prime_rl.trainer.rl.data import DataLoader
    from prime_rl.trainer.rl.token_export import setup_token_exporter
    from prime_rl.transports.rollouts import TrainingSample

    trainer = {tuple(sample["token_ids"]): sample["trainer"] for sample in SAMPLES}
    samples = []
    for sample in SAMPLES:
        fields = {name: value for name, value in sample.items() if name != "trainer"}
        samples.append(TrainingSample(**fields, temperatures=[1.0] * len(sample["token_ids"])))
    (micro_batches,) = prepare_batch(samples, 16, 1, build_bin_cost(None), pad_to_multiple_of=8)
    with TemporaryDirectory() as output:
        config = TrainerConfig(enable_token_export=True, output_dir=Path(output))
        one_device = SimpleNamespace(cp_enabled=False)
        exporter = setup_token_exporter(config, one_device, SimpleNamespace(rank=2), logging.getLogger())
        for micro_step, micro_batch in enumerate(micro_batches):
            logprobs = torch.full((1, len(micro_batch.input_ids)), -5.0)
            start = 0
            for length in micro_batch.sequence_lengths:
                ids = tuple(micro_batch.input_ids[start : start + length])
                known = next(values for key, values in trainer.items() if ids[: len(key)] == key)
                logprobs[0, start : start + len(known)] = torch.tensor(known)
                start += length
            out = {"logprobs": logprobs, "entropy": torch.full_like(logprobs, 0.5)}
            batch = DataLoader._micro_batch_to_tensor(None, micro_batch)  # it asks nothing of its loader
            exporter.export(3, micro_step, batch, out, batch["sequence_lengths"], config.loss)
        exporter.mark_stable()
        assert (Path(output) / "token_exports/step_3/STABLE").exists()
        shutil.copy(Path(output) / "token_exports/step_3/rank_2.jsonl", folder / "prime-rl-559b447-tokens.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
