"""Write ROLL's rollout dump and its logging board of one step with ROLL's own batching and writers.

github.com/alibaba/ROLL at 8eb27cc2dc34c4d1310b169d9b86d339004d811a (2026-08-19), Python 3.12:

    git clone https://github.com/alibaba/ROLL && git -C ROLL checkout 8eb27cc
    python3.12 -m venv venv && venv/bin/pip install torch==2.13.0 "transformers<5.12" tokenizers datasets accelerate \
        peft ray tensordict codetiming more-itertools hydra-core wandb swanlab tensorboard httpx
    venv/bin/python tests/data/formats/write_roll.py ROLL tests/data/formats

- roll-8eb27cc-dump.jsonl: rollout_dump_data.step_5.jsonl of `dump_rollout_to_specific_path` (rollout_dump_dir).
- roll-8eb27cc-board.jsonl: the file of `RLVRPipeline.save_metrics` (save_logging_board_dir), whose name is a time.
Both are of the batch that `postprocess_generate` makes of left-padded prompts and the engine's output, with the
tokenizer of tests/ingest/adapters/words.py. By hand are the output, rewards and the trainer's log-probs (−7.0 on
prompts, 0.0 on padding). Stand-ins: transfer_queue, opentelemetry and imageio, which the pipeline imports and the
writers do not use.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

PAD, EOS = 0, 2
PROMPTS = [[7, 8, 7, 9], [7, 8, 7, 9], [PAD, PAD, 10, 9], [PAD, PAD, 10, 9]]  # "2+2?" and "4?"
RESPONSES = [[10, EOS, PAD, PAD], [11, 12, 13, 15], [14, EOS, PAD, PAD], [PAD, PAD, PAD, PAD]]
OLD = [[-0.25, -0.125], [-0.5, -1.0, -2.0, -0.75], [-3.0, -0.5], []]
AGAIN = [[-0.25, -0.1875], [-0.5, -1.0, -2.0, -0.75], [-3.0, -0.5], []]
REFERENCE = [[-0.5, -0.5], [-1.5, -1.5, -1.5, -1.5], [-2.5, -2.5], []]
SCORES = [1.0, 0.0, 0.5, 0.0]
MESSAGES = json.dumps([{"role": "user", "content": "4?"}])
DATA = {
    "id": ["q1", "q1", "q2", "q2"],
    "source": ["made", "made", "made", "made"],
    "difficulty": ["1", "1", "2", "2"],
    "prompt": ["2+2?", "2+2?", "4?", "4?"],
    "messages": ["", "", MESSAGES, MESSAGES],
    "ground_truth": ["4", "4", "é", "é"],
    "tag": ["sum", "sum", "echo", "echo"],
    "domain": ["math", "math", "text", "text"],
    "sample_uuid": ["a", "b", "c", "d"],  # no column of the dump
}


class StandIn(MetaPathFinder, Loader):
    """Modules that are imported and not used."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        missing = name.split(".")[0] in ("transfer_queue", "opentelemetry", "imageio")
        return ModuleSpec(name, self, is_package=True) if missing else None

    def create_module(self, spec: ModuleSpec) -> Any:
        return MagicMock(__name__=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module: Any) -> None:
        pass


def main(checkout: Path, folder: Path) -> None:
    sys.path[:0] = [str(checkout), str(Path(__file__).resolve().parents[3])]
    sys.meta_path.append(StandIn())
    with TemporaryDirectory() as written:
        os.chdir(written)  # ROLL logs to ./output
        write(Path(written), folder)
        os.chdir("/")


def write(written: Path, folder: Path) -> None:
    import numpy as np
    import torch
    from roll.distributed.scheduler.protocol import DataProto
    from roll.pipeline.rlvr.rlvr_pipeline import RLVRPipeline
    from roll.pipeline.rlvr.utils import dump_rollout_to_specific_path
    from roll.utils.functionals import postprocess_generate
    from transformers import PreTrainedTokenizerFast

    from tests.ingest.adapters.words import words

    tokenizer = PreTrainedTokenizerFast.from_pretrained(words(written / "words"))
    input_ids = torch.tensor(PROMPTS)
    attention = (input_ids != PAD).long()
    asked = {"input_ids": input_ids, "attention_mask": attention, "position_ids": attention.cumsum(-1) - 1}
    prompts = DataProto.from_single_dict(asked)
    output = torch.cat((input_ids, torch.tensor(RESPONSES)), dim=1)
    batch = postprocess_generate(prompts, output, 1, 8, EOS, PAD, output_logprobs=OLD)
    batch.batch["scores"] = torch.tensor(SCORES)
    batch.non_tensor_batch = {name: np.array(values, dtype=object) for name, values in DATA.items()}
    batch.meta_info = {"global_step": 5, "generation_config": {"temperature": 0.99, "top_p": 0.95}}
    dump_rollout_to_specific_path(str(written / "dump"), 5, batch, tokenizer)
    for process in multiprocessing.active_children():
        process.join()
    shutil.copy(written / "dump/rollout_dump_data.step_5.jsonl", folder / "roll-8eb27cc-dump.jsonl")

    prompt_lengths = attention.sum(-1).tolist()
    for name, values in (("old_log_probs", OLD), ("old_log_probs2", AGAIN), ("ref_log_probs", REFERENCE)):
        column = torch.zeros(len(values), 7)
        for row, (length, known) in enumerate(zip(prompt_lengths, values, strict=True)):
            column[row, : length - 1 + len(known)] = torch.tensor([-7.0] * (length - 1) + known)
        batch.batch[name] = column
    batch.batch["old_log_probs2_entropy"] = torch.full((len(OLD), 7), 0.5)
    batch.batch["response_level_rewards"] = batch.batch["scores"]
    batch.batch["token_level_rewards"] = torch.zeros(len(OLD), 7)
    board = f"{written}/board/"
    pipeline = SimpleNamespace(tokenizer=tokenizer, pipeline_config=SimpleNamespace(save_logging_board_dir=board))
    RLVRPipeline.save_metrics(pipeline, batch)
    (file,) = Path(board).iterdir()
    shutil.copy(file, folder / "roll-8eb27cc-board.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
