r"""Writes the verl fixtures with verl 0.9.1's own code.

    python3.11 -m venv venv
    venv/bin/pip install verl==0.9.1 --no-deps
    venv/bin/pip install torch==2.13.0 tensordict==0.10.0 TransferQueue==0.1.11 ray "transformers<5.11" torchdata \
        codetiming hydra-core pandas accelerate datasets dill peft packaging cachetools msgspec pyzmq pillow pybind11 \
        pylatexenc tensorboard wandb uvicorn fastapi
    PYTHONPATH=. venv/bin/python tests/data/formats/write_verl.py

from the root of the repository. It writes

    verl-0.9.1-legacy.jsonl          `RayPPOTrainer._log_rollout_data` (trainer.rollout_data_dir, trainer.use_v1=False)
    verl-0.9.1-v1.jsonl              `PPOTrainer._log_rollout_data` (trainer.rollout_data_dir, the default trainer)
    verl-0.9.1-dataproto.jsonl       `RolloutSkip.prepare_data`'s gen_batch.dp, through `dppo convert verl`'s export
    verl-0.9.1-transfer-queue.jsonl  `RolloutTqSkip.prepare_data`'s tq_batch.pt, through the same

The batches are verl's too: `AgentLoopWorker.generate_sequences` pads and joins the responses into a `DataProto`; for
the default trainer `AgentLoopWorkerTQ` puts them into a real TransferQueue (on a Ray of this machine), whose batch
`upsample_batch_to_divisible_size` fills up as it does before every update. Stand-ins: the agent loops return ROLLOUTS
instead of asking an engine, and workers and trainers are made without their `__init__`, which wants GPUs. The
tokenizer is that of tests/ingest/adapters/words.py.
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.agent_loop import AgentLoopOutput, AgentLoopWorker
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
from verl.trainer.ppo import padding_utils
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.reward import extract_reward
from verl.trainer.ppo.v1 import AgentLoopWorkerTQ, PPOTrainerSync
from verl.utils.skip.config import RolloutSkipConfig, RolloutTqSkipConfig
from verl.utils.skip.rollout_skip import RolloutSkip, RolloutTqSkip

from service.cli.exports import DATAPROTO, TRANSFER_QUEUE
from tests.ingest.adapters.words import words

HERE = Path(__file__).parent
STEP = 3
FIRST, SECOND = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"  # of the two prompts
SUM = [1, 4, 6, 7, 8, 7, 9, 6, 5, 6]  # <bos>user\n2+2?\nassistant\n
FOUR = [1, 4, 6, 10, 9, 6, 5, 6]  # <bos>user\n4?\nassistant\n
ANSWER = {"style": "rule", "ground_truth": "4"}
UNSURE = {"acc": float("nan"), "pred": "é4"}  # what the reward function says besides


def output(
    prompt: list[int], response: list[int], mask: list[int], mu: list[float], score: float, **info: Any
) -> AgentLoopOutput:
    return AgentLoopOutput(
        prompt_ids=prompt,
        response_ids=response,
        response_mask=mask,
        response_logprobs=mu,
        reward_score=score,
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={  # the second prompt's while the weights changed
            "reward_extra_info": info,
            "min_global_steps": 2 if prompt == SUM else 1,
            "max_global_steps": 2,
        },
    )


# (uid, session) → the outputs of its agent loop
ROLLOUTS: dict[tuple[str, int], list[AgentLoopOutput]] = {
    (FIRST, 0): [output(SUM, [10, 2], [1, 1], [-0.25, -0.5], 1.0, acc=1.0, pred="4")],
    (FIRST, 1): [  # a tool's token, "four", in the middle
        output(
            SUM, [7, 8, 7, 11, 10, 2], [1, 1, 1, 0, 1, 1], [-0.25, -0.5, -0.75, 0.0, -1.0, -1.5], 0.5, acc=0.0, pred="4"
        )
    ],
    (SECOND, 0): [output(FOUR, [2], [1], [-2.0], 0.0, acc=0.0, pred=None)],  # nothing but <eos>
    (SECOND, 1): [  # cut at the limit: no <eos>
        output(FOUR, [11, 12, 13, 15, 14, 10], [1] * 6, [-0.125, -0.25, -0.375, -0.5, -0.625, -0.75], 0.25, **UNSURE)
    ],
}
SPLIT = output(FOUR, [11], [1], [-3.0], 0.25, **UNSURE)  # the v1 trainer knows several outputs a session


class Worker(AgentLoopWorker):
    """An agent loop worker whose loops have their responses already."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.processor = tokenizer, None
        self.reward_loop_worker_handles, self.distillation_enabled, self.mm_processor_kwargs = None, False, {}
        self.rollout_config = CONFIG.actor_rollout_ref.rollout

    async def _run_agent_loop(self, _: Any, trajectory: Any, **kwargs: Any) -> Any:
        (one,) = ROLLOUTS[kwargs["uid"], trajectory["rollout_n"]]
        return await self._agent_loop_postprocess(one, False, **{**kwargs, "raw_prompt": [{"role": "user"}]})


CONFIG = OmegaConf.create(
    {
        "actor_rollout_ref": {
            "rollout": {
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": -1,
                "calculate_log_probs": True,
                "n": 2,
                "prompt_length": 12,
                "response_length": 6,
                "agent": {"default_agent_loop": "single_turn_agent"},
            }
        },
        "trainer": {"project_name": "lens", "experiment_name": "fixtures", "v1": {"trainer_mode": "sync"}},
        "data": {"train_batch_size": 2, "max_prompt_length": 12, "max_response_length": 6},
    }
)


def trainer(kind: type, tokenizer: Any) -> Any:
    made = object.__new__(kind)
    made.tokenizer, made.global_steps = tokenizer, STEP
    made._init_dump_executor()
    return made


def dump(made: Any, name: str, *batch: Any) -> None:
    """What `trainer.rollout_data_dir` makes the trainer write."""
    with TemporaryDirectory() as folder:
        made._log_rollout_data(*batch, {}, folder)
        made._shutdown_dump_executor()
        (HERE / name).write_bytes((Path(folder) / f"{STEP}.jsonl").read_bytes())


def export(code: str) -> None:
    exec(code, {})  # as a user pastes it


def legacy(tokenizer: Any) -> None:
    uids = [uid for uid, _ in ROLLOUTS]
    prompts = DataProto.from_single_dict(
        {
            "uid": np.array(uids, dtype=object),
            "index": np.array([uids.index(uid) for uid in uids]),
            "reward_model": np.array([ANSWER] * len(uids), dtype=object),
        }
    )
    prompts.meta_info["global_steps"] = STEP
    batch = asyncio.run(Worker(tokenizer).generate_sequences(prompts))
    with TemporaryDirectory() as folder:
        skip = RolloutSkip(RolloutSkipConfig(enable=True, dump_dir=folder, steps=[STEP]), CONFIG)
        skip.prepare_data(STEP, batch)
        (made,) = Path(folder).rglob("gen_batch.dp")
        export(DATAPROTO.snippet(str(made), str(HERE / "verl-0.9.1-dataproto.jsonl")))
    batch.batch["token_level_scores"], extra = extract_reward(batch)
    batch.reorder(torch.tensor([2, 0, 3, 1]))  # as `_balance_batch` does
    extra = {key: batch.non_tensor_batch[key] for key in extra}
    dump(trainer(RayPPOTrainer, tokenizer), "verl-0.9.1-legacy.jsonl", batch, extra)


async def put(worker: Any) -> None:
    for (uid, session), outputs in ROLLOUTS.items():
        fields = {"uid": uid, "session_id": session, "global_steps": STEP, "reward_model": ANSWER}
        more = [SPLIT] if (uid, session) == (SECOND, 1) else []
        await worker._agent_loop_postprocess([*more, *outputs], False, **fields)


def v1(tokenizer: Any) -> None:
    kind = AgentLoopWorkerTQ.__ray_metadata__.modified_class  # the class under @ray.remote
    worker = object.__new__(kind)
    Worker.__init__(worker, tokenizer)
    asyncio.run(put(worker))
    tags = transfer_queue.kv_list(partition_id="train")["train"]
    order = sorted(tags, reverse=True)  # no order is promised
    batch = transfer_queue.KVBatchMeta(partition_id="train", keys=order, tags=[tags[key] for key in order])
    with TemporaryDirectory() as folder:
        skip = RolloutTqSkip(RolloutTqSkipConfig(enable=True, dump_dir=folder, steps=[STEP]), CONFIG)
        skip.prepare_data(STEP, batch, STEP)
        (made,) = Path(folder).rglob("tq_batch.pt")
        export(TRANSFER_QUEUE.snippet(str(made), str(HERE / "verl-0.9.1-transfer-queue.jsonl")))
    padding_utils.uuid.uuid4 = lambda: uuid.UUID(int=7)  # the same name of the padding every time
    batch = padding_utils.upsample_batch_to_divisible_size(batch, 4, tokenizer.eos_token_id)
    dump(trainer(PPOTrainerSync, tokenizer), "verl-0.9.1-v1.jsonl", batch)


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        made_of = words(Path(name), bos=True)
        loaded = PreTrainedTokenizerFast.from_pretrained(made_of)
    legacy(loaded)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    transfer_queue.init()
    v1(loaded)
    transfer_queue.close()
    ray.shutdown()
