"""The training loop: sample with stale, rounded weights, reward, take group advantages, and update by minibatch.

Random numbers are a function of (seed, step, purpose) alone, so that a resumed run goes on as it would have, and runs
of one seed meet the same prompts, uniforms and minibatches whatever their method.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from dppo_core.lab.language import POOL_SEED, PROMPT, Problem, pool
from dppo_core.lab.methods import METHODS, Minibatch
from dppo_core.lab.policy import Shape, Weights, score
from dppo_core.lab.sampler import Rollouts, Sampler
from dppo_core.lab.settings import Run
from dppo_core.losses import Aggregation

__all__ = ["Batch", "Step", "Trainer", "Watch"]

Watch = Callable[[Minibatch, Tensor], None]

MEASURED = 8  # of 8 responses one has its mismatch taken apart, in each minibatch, where the method needs no π_old
PROMPTS, UNIFORMS, ORDER = range(3)  # purposes of random numbers


@dataclass(frozen=True)
class Step:
    """One iteration: B responses, L response tokens.

    problems: one a response; tokens, counted, logp_*, keep: [B, L]; reward, advantage, minibatch: [B]. logp_new: at
    the moment of the token's gradient. logp_start and logp_behind: the trainer's at the iteration's start, and at the
    weights that sampled; NaN where they were not computed. coef [B, L] as `PolicyLoss` has it. entropy [B, L]:
    of μ, nats. top_ids, top_logp [B, L, K]: the sampler's lists, where they were kept. version: how many
    updates' iterations the sampler's weights had seen.
    """

    number: int
    version: int
    problems: list[Problem]
    tokens: Tensor
    counted: Tensor
    logp_rollout: Tensor
    logp_start: Tensor
    logp_behind: Tensor
    logp_new: Tensor
    logp_old: Tensor
    keep: Tensor
    coef: Tensor
    entropy: Tensor
    top_ids: Tensor | None
    top_logp: Tensor | None
    reward: Tensor
    advantage: Tensor
    minibatch: Tensor
    loss: list[float]
    grad_norm: list[float]


class Trainer:
    """A run in progress. `start` [P] are the warm-up's weights.

    whole: compute log π_start and log π_behind for every token; lists: keep the sampler's top-K lists; watch: gets
    each minibatch with its responses' places [b]. All cost time and change no update. Raises ValueError for a method
    that there is not.
    """

    def __init__(
        self, run: Run, start: Tensor, *, whole: bool = False, lists: bool = False, watch: Watch | None = None
    ) -> None:
        if run.method not in METHODS:
            raise ValueError(f"there is no method {run.method!r}; one of: {', '.join(METHODS)}")
        self.run, self.settings, self.method = run, run.settings, METHODS[run.method]
        self.shape = Shape.of(run.settings)
        self.flat = start.clone().requires_grad_()
        self.optimizer = torch.optim.AdamW(
            [self.flat], lr=self.settings.lr, weight_decay=self.settings.weight_decay, fused=True
        )
        self.past = deque([start.clone()], maxlen=self.settings.staleness + 1)
        self.number = 0
        self._whole, self._watch = whole, watch
        self._pool = pool(self.settings.pool, POOL_SEED)
        self._sampler = Sampler(
            self.shape,
            mantissa=self.settings.mantissa,
            logit_mantissa=self.settings.logit_mantissa,
            top_k=self.settings.top_k if lists or "top_k" in self.method.needs else 0,
            everything="everything" in self.method.needs,
        )

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, of tensors and numbers."""
        return {
            "number": self.number,
            "flat": self.flat.detach(),
            "past": list(self.past),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.number = state["number"]
        with torch.no_grad():
            self.flat.copy_(state["flat"])
        self.past = deque(state["past"], maxlen=self.settings.staleness + 1)
        self.optimizer.load_state_dict(state["optimizer"])

    def step(self) -> Step:
        """One iteration."""
        settings = self.settings
        chosen = torch.randperm(len(self._pool), generator=self._random(PROMPTS))[: settings.prompts]
        problems = [self._pool[index] for index in chosen.tolist()]
        prompts_GP = torch.tensor([problem.prompt for problem in problems])
        behind = self.shape.weights(self.past[0])
        rollouts = self._sampler.sample(behind, prompts_GP, settings.group, self._random(UNIFORMS))
        problems = [problem for problem in problems for _ in range(settings.group)]
        rewards = rollouts.rewards(problems)
        by_group = rewards.view(settings.prompts, settings.group)
        advantage = (by_group - by_group.mean(1, keepdim=True)).flatten()
        batch = Batch(torch.cat([prompts_GP.repeat_interleave(settings.group, 0), rollouts.tokens], 1), rollouts)
        done = self.update(batch, advantage, behind)
        self.past.append(self.flat.detach().clone())
        self.number += 1
        return Step(
            number=self.number - 1,
            version=max(0, self.number - 1 - settings.staleness),
            problems=problems,
            tokens=rollouts.tokens,
            counted=rollouts.counted,
            logp_rollout=rollouts.logp,
            entropy=rollouts.entropy,
            top_ids=rollouts.top_ids,
            top_logp=rollouts.top_logp,
            reward=rewards,
            advantage=advantage,
            **done,
        )

    def update(self, batch: Batch, advantage: Tensor, behind: Weights) -> dict[str, Any]:
        """One iteration's updates on a batch whose sampler had the weights `behind`; advantage [B]. Returns `Step`'s
        fields."""
        settings, needs_old = self.settings, "old" in self.method.needs
        count = len(advantage)
        order = torch.randperm(count, generator=self._random(ORDER)).view(settings.minibatches, -1)
        start, old_at_start = self.shape.weights(self.flat.detach().clone()), settings.old_policy == "current"
        some = order[:, : max(1, order.shape[1] // MEASURED)].flatten()
        everything = torch.arange(count)
        logp_start = batch.score(self.shape, start, everything if self._whole or (needs_old and old_at_start) else some)
        if settings.staleness == 0:
            logp_behind = logp_start
        else:
            rows = everything if self._whole or (needs_old and not old_at_start) else some
            logp_behind = batch.score(self.shape, behind, rows)
        logp_old = logp_start if old_at_start else logp_behind
        logp_new = torch.zeros_like(logp_start)
        keep, coef = torch.zeros_like(batch.counted), torch.zeros_like(logp_start, dtype=torch.float64)
        minibatch = torch.zeros(count, dtype=torch.int64)
        losses, norms = [], []
        self.optimizer.param_groups[0]["lr"] = settings.lr * min(1.0, (self.number + 1) / settings.lr_rise)
        for place, rows in enumerate(order):
            inputs = self.minibatch(batch, rows, advantage, logp_old if needs_old else None)
            result = self.method.loss(inputs, settings)
            self.optimizer.zero_grad()
            result.loss.backward()  # type: ignore[no-untyped-call]
            norms.append(float(torch.nn.utils.clip_grad_norm_([self.flat], settings.max_norm)))
            self.optimizer.step()
            losses.append(float(result.loss.detach()))
            minibatch[rows] = place
            width = inputs.counted.shape[1]
            logp_new[rows, :width] = inputs.logp.detach()
            keep[rows, :width], coef[rows, :width] = result.keep, result.coef
            if self._watch is not None:
                self._watch(inputs, rows)
        return {
            "logp_start": logp_start,
            "logp_behind": logp_behind,
            "logp_old": logp_old,
            "logp_new": logp_new,
            "keep": keep,
            "coef": coef,
            "minibatch": minibatch,
            "loss": losses,
            "grad_norm": norms,
        }

    def minibatch(self, batch: Batch, rows: Tensor, advantage: Tensor, logp_old: Tensor | None) -> Minibatch:
        """The minibatch of these responses [b] at the current weights, cut to its longest response."""
        counted = batch.counted[rows]
        width = int(counted.sum(1).max())
        counted = counted[:, :width]
        tokens = batch.tokens[rows, : PROMPT + width]
        logp_N, logits_NV = score(self.shape.weights(self.flat), self.shape, tokens, pad(counted, (PROMPT - 1, 0)))
        rollouts = batch.rollouts

        def cut(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows, :width]

        return Minibatch(
            logp=torch.zeros(counted.shape).masked_scatter(counted, logp_N),
            logits=logits_NV.detach(),
            sampled=tokens[:, PROMPT:][counted],
            logp_rollout=rollouts.logp[rows, :width],
            advantage=advantage[rows].unsqueeze(1),
            counted=counted,
            aggregation=Aggregation("seq-mean-token-sum-norm", sequences=len(rows), horizon=self.settings.length_norm),
            logp_old=cut(logp_old),
            top_ids=cut(rollouts.top_ids),
            top_logp=cut(rollouts.top_logp),
            logp_all=cut(rollouts.logp_all),
        )

    def _random(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.run.seed * 100_000 + self.number) * 10 + purpose)


@dataclass(frozen=True)
class Batch:
    """An iteration's sequences: tokens [B, PROMPT + L] and what the sampler said of the responses."""

    tokens: Tensor
    rollouts: Rollouts

    @property
    def counted(self) -> Tensor:
        return self.rollouts.counted

    @torch.no_grad()
    def score(self, shape: Shape, weights: Weights, rows: Tensor) -> Tensor:
        """log π(a) [B, L] under `weights` for these responses, NaN for the others and 0 where not counted."""
        counted = self.counted[rows]
        logp_N, _ = score(weights, shape, self.tokens[rows], pad(counted, (PROMPT - 1, 0)))
        scored = torch.full(self.counted.shape, torch.nan)
        scored[rows] = torch.zeros(counted.shape).masked_scatter(counted, logp_N)
        return scored
