"""TRL: log every rollout that a GRPO or RLOO trainer learns from.

    trainer = GRPOTrainer(...)
    log_rollouts(trainer, RolloutLogger("http://127.0.0.1:8000", "my-run"))
    trainer.train()

TRL's callbacks see no rollouts. What is wrapped instead is public: the trainer's `compute_loss(model, inputs)`, whose
inputs hold token ids, masks, advantages and log-probs as they are trained on, and its reward functions. Written
against TRL 1.16; what a version does not hand over is left out of the records.

A record's step is the trainer's `global_step` while it learns from it, so that `checkpoint-N` is the policy before
step N. Rollouts that several steps learn from (`num_iterations`, `steps_per_generation`) are logged with each.
`rollout_logprobs` exist where TRL samples with vLLM or a `rollout_func`; transformers' own generation reports none.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from service.client.hooks.masks import known
from service.client.logger import RolloutLogger

__all__ = ["log_rollouts"]

log = logging.getLogger("dppo.logger")

LOGPROBS = {"rollout_logprobs": "sampling_per_token_logps", "old_logprobs": "old_per_token_logps"}
COLUMNS = frozenset(
    {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages", *LOGPROBS.values()}
)


def log_rollouts(trainer: Any, logger: RolloutLogger, flush_seconds: float = 30) -> None:
    """Hand what `trainer` learns from to `logger`, once a step. Call it before `trainer.train()`.

    Waits up to `flush_seconds` at the end of training; closing the logger is the caller's.
    """
    from transformers import TrainerCallback

    collected = _Collector(trainer, logger)

    class LogRollouts(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            collected.flush()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            collected.flush()
            logger.flush(flush_seconds)

    logger.describe(framework="trl", sampling=_sampling(trainer))
    trainer.compute_loss = collected.watching(trainer.compute_loss)
    trainer.reward_funcs = [collected.rewarding(index, each) for index, each in enumerate(trainer.reward_funcs)]
    trainer.add_callback(LogRollouts())


class _Collector:
    """Records of the step that is being trained, until it ends."""

    def __init__(self, trainer: Any, logger: RolloutLogger) -> None:
        self._trainer, self._logger = trainer, logger
        self._records: list[dict[str, Any]] = []
        self._step = 0
        self._rewards: dict[tuple[int, ...], dict[int, set[float | None]]] = {}
        self._failed = False

    def watching(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        """`compute_loss`, and its inputs are collected. Evaluation is none of a run's steps."""

        @functools.wraps(compute_loss)
        def watched(model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            if model.training:
                self._quietly(self._take, inputs)
            return compute_loss(model, inputs, *arguments, **options)

        return watched

    def rewarding(self, index: int, reward: Any) -> Any:
        """A reward function whose results are remembered by what they reward; a reward model stays as it is."""
        if hasattr(reward, "parameters"):
            return reward
        if _is_async(reward):

            async def rewarded_later(*arguments: Any, **options: Any) -> Any:
                values = await reward(*arguments, **options)
                self._quietly(self._remember, index, values, options)
                return values

            return rewarded_later

        def rewarded(*arguments: Any, **options: Any) -> Any:
            values = reward(*arguments, **options)
            self._quietly(self._remember, index, values, options)
            return values

        return rewarded

    def flush(self) -> None:
        """Log what was collected."""
        records, self._records = self._records, []
        if records:
            self._logger.log(self._step, records)

    def _quietly(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception:  # a training run is worth more than its log
            if not self._failed:
                log.warning("rollouts are not logged: this TRL hands them over in another form", exc_info=True)
            self._failed = True

    def _remember(self, index: int, values: Sequence[float | None], options: dict[str, Any]) -> None:
        if not self._trainer.model.training:
            return
        if any(index in parts for parts in self._rewards.values()):
            self._rewards.clear()  # the next batch of rollouts
        for ids, value in zip(options["completion_ids"], values, strict=True):
            number = None if value is None or math.isnan(value) else float(value)
            self._rewards.setdefault(tuple(ids), {}).setdefault(index, set()).add(number)

    def _reward(self, response: list[int]) -> float | None:
        """The weighted sum, as TRL adds it up; None where a part is not known, or not which prompt it belongs to."""
        weights = self._trainer.reward_weights.tolist()
        parts = self._rewards.get(tuple(response), {})
        if len(parts) < len(weights) or any(len(values) != 1 for values in parts.values()):
            return None
        given = [(weight, value) for weight, (_, (value,)) in zip(weights, sorted(parts.items()), strict=True)]
        summands = [weight * value for weight, value in given if value is not None]
        return math.fsum(summands) if summands else None

    def _take(self, inputs: dict[str, Any]) -> None:
        step = self._trainer.state.global_step
        if step != self._step:
            self.flush()
            self._step = step
        rank = self._trainer.accelerator.process_index
        for row in _rows(inputs, self._trainer.processing_class):
            prompt, response = row["prompt_token_ids"], row["response_token_ids"]
            row["sample_id"] = f"{rank}/{len(self._records)}"
            row["group_id"] = hashlib.sha256(repr(prompt).encode()).hexdigest()[:16]
            row["reward"] = self._reward(response)
            self._records.append(row)


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _rows(inputs: dict[str, Any], processing: Any) -> list[dict[str, Any]]:
    """One record a response, without padding; what a masked position holds is no log-prob."""
    columns = {name: value.tolist() for name, value in inputs.items() if name in COLUMNS and value is not None}
    tokenizer = getattr(processing, "tokenizer", processing)
    rows = []
    for index, ids in enumerate(columns["completion_ids"]):
        mask = columns["completion_mask"][index]
        length = max((at + 1 for at, kept in enumerate(mask) if kept), default=0)
        if not length:  # mask_truncated_completions: not trained on, and only the padding says how long it is
            length = max((at + 1 for at, token in enumerate(ids) if token != tokenizer.pad_token_id), default=0)
        if "tool_mask" in columns:
            mask = [own and tool for own, tool in zip(mask, columns["tool_mask"][index], strict=True)]
        mask = [int(bool(kept)) for kept in mask[:length]]
        prompt = zip(columns["prompt_ids"][index], columns["prompt_mask"][index], strict=True)
        advantage = columns["advantages"][index]
        row = {
            "prompt_token_ids": [token for token, kept in prompt if kept],
            "response_token_ids": ids[:length],
            "response_mask": mask,
            "advantage": advantage[:length] if isinstance(advantage, list) else advantage,
        }
        for name, column in LOGPROBS.items():
            if column in columns:
                row[name] = known(columns[column][index][:length], mask)
        rows.append(row)
    return rows


def _sampling(trainer: Any) -> dict[str, Any]:
    """How the trainer samples, in the service's words."""
    given = {name: getattr(trainer.args, name, None) for name in ("temperature", "top_p", "top_k")}
    if getattr(trainer, "use_vllm", False):
        given["logprobs_mode"] = "processed"  # what TRL asks vLLM for
    return {name: value for name, value in given.items() if value is not None}
