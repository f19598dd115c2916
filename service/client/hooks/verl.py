"""verl: the records of a batch as the PPO trainer holds it before it updates the actor.

    class LoggedTrainer(RayPPOTrainer):
        logger = RolloutLogger("http://127.0.0.1:8000", "my-run", framework="verl")

        def _update_actor(self, batch):
            self.logger.log(self.global_steps, rollouts_of(batch))
            return super()._update_actor(batch)

A verl whose trainer has no `_update_actor` takes the same line in `fit`, after `compute_advantage`. μ is there with
`actor_rollout_ref.rollout.calculate_log_probs=True`. verl counts steps from 1 and `global_step_N` is the policy after
step N: register it with `dppo checkpoint RUN --after N`.
"""

from __future__ import annotations

from typing import Any

from service.client.hooks.masks import known

__all__ = ["rollouts_of"]

LOGPROBS = {"rollout_logprobs": "rollout_log_probs", "old_logprobs": "old_log_probs"}
COLUMNS = ("prompts", "responses", "attention_mask", "response_mask", "advantages", *LOGPROBS.values())


def rollouts_of(batch: Any) -> list[dict[str, Any]]:
    """One record a response of a `DataProto`: prompts are padded on the left, responses on the right.

    Where verl bypasses the recomputation, its old log-probs are μ's own and say nothing new: they are left out.
    """
    held = batch.batch
    columns = {name: held[name].tolist() for name in COLUMNS if name in held.keys()}  # noqa: SIM118 a TensorDict
    if columns.get("old_log_probs") == columns.get("rollout_log_probs"):
        columns.pop("old_log_probs", None)
    scores = held["token_level_scores"].sum(-1).tolist()
    groups = batch.non_tensor_batch["uid"].tolist()
    rows = []
    for index, (prompt, response) in enumerate(zip(columns["prompts"], columns["responses"], strict=True)):
        attended = columns["attention_mask"][index]
        length = sum(map(bool, attended[len(prompt) :]))
        mask = [int(bool(kept)) for kept in columns["response_mask"][index][:length]]
        row = {
            "sample_id": str(index),
            "group_id": groups[index],
            "prompt_token_ids": [token for token, kept in zip(prompt, attended[: len(prompt)], strict=True) if kept],
            "response_token_ids": response[:length],
            "response_mask": mask,
            "advantage": columns["advantages"][index][:length],
            "reward": scores[index],
        }
        for name, column in LOGPROBS.items():
            if column in columns:
                row[name] = known(columns[column][index][:length], mask)
        rows.append(row)
    return rows
