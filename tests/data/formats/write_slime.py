"""Write slime's rollout and train dumps of one rollout with slime's own `Sample`, batching and writers.

github.com/THUDM/slime at 624b824a898ab0ec1fcb4d373004c7f3852bf515 (2026-08-21), Python 3.12:

    git clone https://github.com/THUDM/slime && git -C slime checkout 624b824
    python3.12 -m venv venv && venv/bin/pip install torch==2.13.0 numpy ray httpx pyarrow
    venv/bin/python tests/data/formats/write_slime.py slime tests/data/formats

- slime-624b824-rollout.pt: `save_debug_rollout_data` (--save-debug-rollout-data) of `Sample`s, which
  `append_response_tokens` filled from an engine's meta_info, and from a tool with `trainable=False`.
- slime-624b824-train.pt: `save_debug_train_data` (--save-debug-train-data), called by two processes of data parallelism
  (gloo), of what `RolloutManager._convert_samples_to_train_data` and `_split_train_data_by_dp` make of the samples and
  `process_rollout_data` hands to a rank: two optimizer steps of two responses each.
Stand-ins: sglang and its engines, megatron's ranks (`mpu`: one pipeline stage, no tensor or context parallelism, so
that gathering over it gives the tensor itself), ray's object store, and the trainer's figures, which are by hand:
`log_probs`, `entropy` (0.5), `advantages` (the reward less its group's mean, broadcast) and their equal, `returns`.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

UNUSED = ("sglang", "sglang.srt", "sglang.srt.constants", "megatron", "megatron.core", "slime.backends.sglang_utils")
UNUSED += tuple(f"slime.backends.sglang_utils.{name}" for name in ("external", "sglang_config", "sglang_engine"))
UNUSED += ("slime.backends.megatron_utils", "slime.backends.megatron_utils.cp_utils")
ARGS = SimpleNamespace(
    advantage_estimator="grpo", rewards_normalization=True, grpo_std_normalization=False, reward_key=None,
    n_samples_per_prompt=2, rollout_batch_size=2, global_batch_size=2, micro_batch_size=1, balance_data=False,
    use_dynamic_batch_size=False, balance_by_flops=False, max_tokens_per_gpu=None, rollout_top_p=0.9,
    num_layers=1, moe_router_topk=1,
)  # fmt: skip
PARALLEL = {"dp_size": 2, "cp_size": 1, "vpp_size": 1, "microbatch_group_size_per_vp_stage": 1}
LOG_PROBS = {40: [-0.625, -0.375, -9.0, -8.0, -1.25], 41: [-0.5, -1.0], 42: [-0.25], 43: [-2.5, -3.5]}  # by index


def stand_in(checkout: Path) -> None:
    sys.path.insert(0, str(checkout))
    for name in UNUSED:
        sys.modules[name] = MagicMock(__name__=name, __path__=[], __spec__=ModuleSpec(name, None))


def main(checkout: Path, folder: Path) -> None:
    stand_in(checkout)
    from slime.observability.rollout_data_utils import save_debug_rollout_data

    samples = sampled()
    save_debug_rollout_data(str(folder / "slime-624b824-rollout.pt"), samples, rollout_id=7, evaluation=False)
    import torch.multiprocessing as processes

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512"}
    processes.spawn(train, (checkout, folder), nprocs=2)


def sampled() -> list[Any]:
    """Two groups of two: one calls a tool, one is cut, the prompt of one is chat, and one is removed from the loss."""
    from slime.utils.types import Sample

    def sample(index: int, prompt: Any, ids: list[int], reward: float, **fields: Any) -> Any:
        return Sample(group_index=index // 2, index=index, prompt=prompt, tokens=ids, reward=reward, **fields)

    def says(one: Any, ids: list[int], logprobs: list[float], text: str, end: str = "stop", version: str = "7") -> None:
        """One answer of the engine; its nucleus is the sampled token alone, and each layer's expert the first."""
        meta = {"finish_reason": {"type": end}, "weight_version": version, "top_p_token_ids": ids}
        meta |= {"top_p_token_offsets": [*range(len(ids) + 1)], "routed_experts": [0] * (len(one.tokens + ids) - 1)}
        one.append_response_tokens(ARGS, tokens=ids, log_probs=logprobs, text=text, meta_info=meta)

    first = sample(40, "2+2?", [5, 9], 1.0, label="4", metadata={"source_name": "math"}, session_id="s-40")
    says(first, [11, 12], [-0.5, -0.25], "call ")
    first.append_response_tokens(ARGS, tokens=[30, 31], trainable=False, text="4 ")
    says(first, [13], [-1.5], "four")
    second = sample(41, "2+2?", [5, 9], 0.0)
    says(second, [11], [-0.5], "5", "abort", "6")  # sampling went on with the next weights
    says(second, [2], [-0.75], "", "length")
    third = sample(42, [{"role": "user", "content": "3+3?"}], [6, 10], 1.0)
    says(third, [14], [-0.125], "6")
    fourth = sample(43, "3+3?", [6, 10], -1.0, remove_sample=True)
    says(fourth, [15, 2], [-2.0, -3.0], "7", version="default")
    fourth.status = Sample.Status.FAILED
    for one in (first, second, third, fourth):
        one.teacher_log_probs = [-1.0] * one.response_length
    return [first, second, third, fourth]


def train(rank: int, checkout: Path, folder: Path) -> None:
    """One data-parallel rank of the trainer; the first writes."""
    stand_in(checkout)
    import ray
    import torch

    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    mpu = sys.modules["megatron.core"].mpu
    for name in ("tensor_model_parallel", "context_parallel"):
        getattr(mpu, f"get_{name}_rank").return_value = 0
    mpu.get_data_parallel_rank.return_value = rank
    mpu.get_data_parallel_world_size.return_value = 2
    mpu.get_data_parallel_src_rank.return_value = 0
    mpu.get_data_parallel_group_gloo.return_value = None  # the default group
    sys.modules["slime.backends.megatron_utils.cp_utils"].all_gather_with_cp = lambda tensor, *_: tensor
    ray.put = ray.get = lambda value, **_: value
    from slime.observability.train_data_utils import save_debug_train_data
    from slime.ray.rollout import RolloutManager
    from slime.utils.data import process_rollout_data

    methods = RolloutManager.__ray_metadata__.modified_class
    manager = MagicMock(args=ARGS, train_parallel_config=PARALLEL, custom_reward_post_process_func=None)
    manager.custom_convert_samples_to_train_data_func = None
    manager._post_process_rewards = lambda samples: methods._post_process_rewards(manager, samples)
    data = methods._convert_samples_to_train_data(manager, sampled())
    rollout_data = process_rollout_data(ARGS, methods._split_train_data_by_dp(manager, data), rank, 2)
    indices = rollout_data["sample_indices"]
    rollout_data["log_probs"] = [torch.tensor(LOG_PROBS[index]) for index in indices]
    rollout_data["entropy"] = [torch.full((len(LOG_PROBS[index]),), 0.5) for index in indices]
    rewards = zip(rollout_data["rewards"], indices, strict=True)
    rollout_data["advantages"] = [torch.full((len(LOG_PROBS[index]),), reward) for reward, index in rewards]
    rollout_data["returns"] = rollout_data["advantages"]
    args = SimpleNamespace(save_debug_train_data=str(folder / "slime-624b824-train.pt"))
    save_debug_train_data(args, rollout_id=7, rollout_data=rollout_data)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
