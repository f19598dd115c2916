"""verl: the records of a batch as the PPO trainer holds it before it updates the actor.

    from verl.trainer.ppo.v1 import PPOTrainerSync
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    logger = RolloutLogger("http://127.0.0.1:8000", "my-run", framework="verl")

    class LoggedTrainer(PPOTrainerSync):
        def _update_actor(self, batch, metrics):
            logger.log(self.global_steps, rollouts_of(batch))
            return super()._update_actor(batch, metrics)

    TRAINER_REGISTRY["sync"] = LoggedTrainer

in a module that VERL_USE_EXTERNAL_MODULES names. This trainer holds its batch in a TransferQueue. The one of before,
`RayPPOTrainer`, holds a `DataProto`: its `_update_actor` has no `metrics`, and where it has no `_update_actor`, `fit`
takes the same line after `compute_advantage`. μ is there with `actor_rollout_ref.rollout.calculate_log_probs=True`.
verl counts steps from 1 and `global_step_N` is the policy after step N: register it with
`dppo checkpoint RUN --after N`.
"""

from __future__ import annotations

from typing import Any

from service.client.hooks.masks import known

__all__ = ["rollouts_of"]

LOGPROBS = {"rollout_logprobs": "rollout_log_probs", "old_logprobs": "old_log_probs"}
COLUMNS = ("prompts", "responses", "attention_mask", "response_mask", "advantages", *LOGPROBS.values())
QUEUED = ("prompts", "responses", "response_mask", "advantages", "rm_scores", *LOGPROBS.values())


def rollouts_of(batch: Any) -> list[dict[str, Any]]:
    """One record a response of a `DataProto`, or of a TransferQueue's `KVBatchMeta`.

    Where verl bypasses the recomputation, its old log-probs are μ's own and say nothing new: they are left out.
    """
    return _of_queue(batch) if hasattr(batch, "partition_id") else _of_data_proto(batch)


def _of_data_proto(batch: Any) -> list[dict[str, Any]]:
    """Prompts are padded on the left, responses on the right."""
    held = batch.batch
    columns = {name: held[name].tolist() for name in COLUMNS if name in held.keys()}  # noqa: SIM118 a TensorDict
    scores = held["token_level_scores"].sum(-1).tolist()
    groups = batch.non_tensor_batch["uid"].tolist()
    rows = []
    for index, (prompt, response) in enumerate(zip(columns["prompts"], columns["responses"], strict=True)):
        attended = columns["attention_mask"][index]
        length = sum(map(bool, attended[len(prompt) :]))
        row = {
            "sample_id": str(index),
            "group_id": groups[index],
            "prompt_token_ids": [token for token, kept in zip(prompt, attended[: len(prompt)], strict=True) if kept],
            "response_token_ids": response[:length],
            "reward": scores[index],
        }
        rows.append({**row, **_lists({name: column[index][:length] for name, column in columns.items()})})
    return _without_bypassed(rows)


def _of_queue(batch: Any) -> list[dict[str, Any]]:
    """Rows without padding, of keys {prompt}_{rollout}_{output}; rows that fill the batch up are left out."""
    import transfer_queue

    held = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(QUEUED))
    rows = []
    for key, tag, tensors in zip(batch.keys, batch.tags, held, strict=True):
        if tag.get("is_padding"):
            continue
        columns = {name: tensors[name].tolist() for name in QUEUED if name in tensors.keys()}  # noqa: SIM118
        row = {
            "sample_id": key,
            "group_id": key.rsplit("_", 2)[0],
            "prompt_token_ids": columns["prompts"],
            "response_token_ids": columns["responses"],
            "reward": sum(columns["rm_scores"]),
        }
        rows.append({**row, **_lists(columns), **_version(tag)})
    return _without_bypassed(rows)


def _version(tag: dict[str, Any]) -> dict[str, Any]:
    """The step whose policy sampled the response: the weights after N updates are those that step N + 1 begins with."""
    low, high = tag.get("min_global_steps"), tag.get("max_global_steps")
    if low is None or high is None:
        return {}
    return {"policy_version": low + 1} if low == high else {"meta": {"policy_versions": [low + 1, high + 1]}}


def _lists(columns: dict[str, Any]) -> dict[str, Any]:
    """What a record has for each token of its response."""
    mask = [int(bool(kept)) for kept in columns["response_mask"]]
    logprobs = {name: known(columns[source], mask) for name, source in LOGPROBS.items() if source in columns}
    return {"response_mask": mask, "advantage": columns["advantages"], **logprobs}


def _without_bypassed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if all("old_logprobs" in row and row["old_logprobs"] == row.get("rollout_logprobs") for row in rows):
        for row in rows:
            del row["old_logprobs"]
    return rows
