"""Write NeMo-RL's train_data of two steps with NeMo-RL's own batching, advantages and logger.

github.com/NVIDIA-NeMo/RL at 7ea279abfbeb698b092856d0dab61e7cf39bc909 (2026-08-22, version 0.6.0), Python 3.12:

    git clone https://github.com/NVIDIA-NeMo/RL && git -C RL checkout 7ea279a
    python3.12 -m venv venv && venv/bin/pip install torch==2.13.0 "transformers<5.12" datasets torchdata hydra-core \
        soundfile scipy tensordict pyzmq aiohttp ray wandb swanlab mlflow-skinny tensorboard matplotlib \
        prometheus_client rich
    venv/bin/python tests/data/formats/write_nemo_rl.py RL tests/data/formats

It calls what `grpo_train` calls: `dynamic_sampling`, `add_grpo_token_loss_masks_and_generation_logprobs`,
`batched_message_log_to_flat_message` (rows padded with 0 to a multiple of 4), `_build_async_grpo_train_data`,
`compute_and_apply_seq_logprob_error_masking`, `GRPOAdvantageEstimator` (reward less the mean of its prompt's), and
`Logger.log_batched_dict_as_jsonl`, which writes the file. `log_data` is spelled out here as it is there, in the loop.
Stand-ins: the rollouts, whose messages are written by hand, and the policy's `prev_logprobs`: `PREV` by token id, 0.0
on the first token and on padding, as its workers give them.

- nemo-rl-7ea279a-grpo.jsonl: overlong filtering has set the sample mask of the fourth response to 0, and its log-prob
  error, above a threshold of 2, that of the third.
- nemo-rl-7ea279a-on-policy.jsonl: dynamic sampling drops the prompt whose two rewards are equal, and with
  `force_on_policy_ratio` there is no `prev_logprobs`: zeros stand there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

PREV = {11: -0.125, 12: -1.5, 13: -0.75, 14: -2.0, 15: -0.25, 16: -1.0, 17: -3.0, 2: -0.5}  # of all others: −7.0
ASKED = [("user", [5, 9])]
ASKED_LATER = [("user", [5, 9]), ("assistant", [11, 2]), ("user", [6])]  # its answer is of the data set, not sampled
GRPO: list[dict[str, Any]] = [
    {  # a call, the tool's answer, the rest
        "messages": [
            *ASKED,
            ("assistant", [11, 12], [-0.25, -2.0]),
            ("environment", [30, 31]),
            ("assistant", [13, 2], [-0.5, -0.5]),
        ],
        "reward": 1.0,
    },
    {"messages": [*ASKED, ("assistant", [14, 2], [-1.75, -0.25])], "reward": 0.0},
    {"messages": [*ASKED_LATER, ("assistant", [17, 15, 2], [-0.5, -0.5, -0.5])], "reward": 0.5},
    {"messages": [*ASKED_LATER, ("assistant", [16], [-1.25])], "reward": -0.5, "counts": 0.0},
]
ON_POLICY: list[dict[str, Any]] = [
    {"messages": [("user", [5, 8]), ("assistant", [11], [-0.5])], "reward": 0.25},
    {"messages": [("user", [5, 8]), ("assistant", [12], [-0.5])], "reward": 0.25},
    {"messages": [*ASKED, ("assistant", [13, 2], [-0.75, -0.5])], "reward": 1.0},
    {"messages": [*ASKED, ("assistant", [14, 15], [-2.0, -0.125])], "reward": 0.0},
]


def main(checkout: Path, folder: Path) -> None:
    sys.path.insert(0, str(checkout))
    with TemporaryDirectory() as logs:
        log(GRPO, logs, "train_data_step8.jsonl", threshold=2.0)
        log(ON_POLICY, logs, "train_data_step9.jsonl", filters=True)
        shutil.copy(Path(logs) / "train_data_step8.jsonl", folder / "nemo-rl-7ea279a-grpo.jsonl")
        shutil.copy(Path(logs) / "train_data_step9.jsonl", folder / "nemo-rl-7ea279a-on-policy.jsonl")


def log(
    responses: list[dict[str, Any]], logs: str, name: str, *, threshold: float | None = None, filters: bool = False
) -> None:
    import torch
    from nemo_rl.algorithms import grpo
    from nemo_rl.algorithms.advantage_estimator import AdvEstimatorConfig, GRPOAdvantageEstimator
    from nemo_rl.algorithms.utils import calculate_baseline_and_std_per_prompt
    from nemo_rl.data.llm_message_utils import batched_message_log_to_flat_message
    from nemo_rl.distributed.batched_data_dict import BatchedDataDict
    from nemo_rl.utils.logger import Logger
    from nemo_rl.utils.timer import Timer

    def message(role: str, ids: list[int], logprobs: list[float] | None = None) -> dict[str, Any]:
        said = {"role": role, "content": f"{role} {ids}", "token_ids": torch.tensor(ids)}
        return said if logprobs is None else {**said, "generation_logprobs": torch.tensor(logprobs)}

    messages = [[message(*one) for one in response["messages"]] for response in responses]
    prompts = [[one for one in messages_ if "generation_logprobs" not in one] for messages_ in messages]
    prompts = [prompt[:-1] if prompt[-1]["role"] == "environment" else prompt for prompt in prompts]
    prompt_ids = batched_message_log_to_flat_message(prompts, {"token_ids": 0})[0]["token_ids"]
    repeated_batch = BatchedDataDict(
        {
            "message_log": messages,
            "prompt_ids": prompt_ids,
            "total_reward": torch.tensor([response["reward"] for response in responses]),
            "loss_multiplier": torch.tensor([response.get("counts", 1.0) for response in responses]),
            "agent_ref": [{"name": "calculator"}] * len(responses),
        }
    )
    rewards = repeated_batch["total_reward"]
    baseline, std = calculate_baseline_and_std_per_prompt(prompt_ids, rewards, torch.ones_like(rewards), False)
    config = grpo.GRPOConfig(
        use_dynamic_sampling=filters, num_prompts_per_step=1 if filters else 2, num_generations_per_prompt=2
    )
    repeated_batch, complete, *_ = grpo.dynamic_sampling(
        repeated_batch, std, baseline, 1, SimpleNamespace(grpo=config), Timer()
    )
    assert complete
    rewards = repeated_batch["filtered_reward" if filters else "total_reward"]

    grpo.add_grpo_token_loss_masks_and_generation_logprobs(repeated_batch["message_log"])
    flat_messages, input_lengths = batched_message_log_to_flat_message(
        repeated_batch["message_log"], {"token_ids": 0}, make_sequence_length_divisible_by=4
    )
    train_data = grpo._build_async_grpo_train_data(
        flat_messages, input_lengths, repeated_batch, {"precision": "float32"}
    )
    train_data["prev_logprobs"] = torch.zeros_like(train_data["generation_logprobs"])
    if not filters:
        for row, length in enumerate(input_lengths.tolist()):
            ids = train_data["input_ids"][row, 1:length].tolist()
            train_data["prev_logprobs"][row, 1:length] = torch.tensor([PREV.get(token, -7.0) for token in ids])
        grpo.compute_and_apply_seq_logprob_error_masking(train_data, rewards, threshold)
    estimator = GRPOAdvantageEstimator(
        AdvEstimatorConfig(normalize_rewards=False, use_leave_one_out_baseline=False), loss_config=None
    )
    mask = train_data["token_mask"] * train_data["sample_mask"].unsqueeze(-1)
    train_data["advantages"] = estimator.compute_advantage(repeated_batch["prompt_ids"], rewards, mask)

    log_data = {"agent_ref": repeated_batch["agent_ref"], "content": flat_messages["content"]}
    log_data["rewards"] = rewards.tolist()
    if config.use_dynamic_sampling:
        log_data["filtered_rewards"] = rewards.tolist()
        log_data["rewards"] = repeated_batch["total_reward"].tolist()
    log_data["input_lengths"] = input_lengths.tolist()
    log_data["token_ids"] = train_data["input_ids"].tolist()
    log_data["token_loss_mask"] = train_data["token_mask"].tolist()
    log_data["sample_loss_mask"] = train_data["sample_mask"].tolist()
    log_data["advantages"] = train_data["advantages"].tolist()
    log_data["generation_logprobs"] = train_data["generation_logprobs"].tolist()
    log_data["prev_logprobs"] = train_data["prev_logprobs"].tolist()
    backends = dict.fromkeys(("wandb_enabled", "swanlab_enabled", "tensorboard_enabled", "mlflow_enabled"), False)
    Logger({"log_dir": logs, "monitor_gpus": False, **backends}).log_batched_dict_as_jsonl(log_data, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
