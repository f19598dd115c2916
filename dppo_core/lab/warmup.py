"""Supervised warm-up: next-token training on noisy demonstrations, the policy that every run starts from."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from dppo_core.lab import language, policy, sampler
from dppo_core.lab.policy import Shape, initial, score
from dppo_core.lab.settings import Settings

__all__ = ["Start", "mean_reward", "warm_up", "warmed_up"]

FINGERPRINTED = (
    *("width", "layers", "heads", "warmup_steps", "warmup_batch", "warmup_lr", "max_norm"),
    *("pool", "mantissa", "logit_mantissa"),
)
EVALUATED = 8  # responses a problem
RISE = 20  # steps over which the learning rate rises; then it falls linearly to a tenth


def padded(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Prompt + response of each as tokens [B, T], and which places predict a response token [B, T−1]."""
    length = max(map(len, sequences))
    tokens = torch.tensor([row + [language.PAD] * (length - len(row)) for row in sequences])
    places = torch.arange(length - 1)
    ends = torch.tensor([len(row) - 1 for row in sequences]).unsqueeze(1)
    return tokens, (places >= language.PROMPT - 1) & (places < ends)


def warm_up(settings: Settings, number: int) -> Tensor:
    """The weights [P] of warm-up `number`: a function of the settings and the number alone."""
    shape = Shape.of(settings)
    rng = random.Random(f"demonstrations {number}")  # noqa: S311 a seeded experiment
    flat = initial(shape, seed=number).requires_grad_()
    optimizer = torch.optim.AdamW([flat], lr=settings.warmup_lr, weight_decay=0.01, fused=True)
    for step in range(settings.warmup_steps):
        sequences = []
        for _ in range(settings.warmup_batch):
            problem = language.Problem(rng.randrange(100), rng.randrange(100))
            sequences.append(problem.prompt + language.demonstration(problem, rng))
        tokens, counted = padded(sequences)
        optimizer.param_groups[0]["lr"] = settings.warmup_lr * min(
            (step + 1) / RISE, 1.0 - 0.9 * step / settings.warmup_steps
        )
        optimizer.zero_grad()
        logp, _ = score(shape.weights(flat), shape, tokens, counted)
        (-logp.mean()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([flat], settings.max_norm)
        optimizer.step()
    return flat.detach()


@dataclass(frozen=True)
class Start:
    """Where runs start: weights [P], and their mean reward when sampled as in training (without staleness)."""

    weights: Tensor
    reward: float


def warmed_up(settings: Settings, number: int, cache: Path) -> Start:
    """Warm-up `number`, kept in `cache` under a hash of what it depends on, the code that makes it included."""
    made_by = [Path(str(module.__file__)).read_bytes() for module in (language, policy, sampler)]
    what = json.dumps([{name: asdict(settings)[name] for name in FINGERPRINTED}, number, torch.__version__])
    digest = hashlib.sha256(b"\0".join([Path(__file__).read_bytes(), *made_by, what.encode()])).hexdigest()[:16]
    file = cache / f"warmup-{number}-{digest}.pt"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        weights = warm_up(settings, number)
        part = file.with_suffix(f".{os.getpid()}")
        torch.save({"weights": weights, "reward": mean_reward(weights, settings)}, part)
        part.replace(file)
    return Start(**torch.load(file, weights_only=True))


def mean_reward(flat_P: Tensor, settings: Settings) -> float:
    """Mean reward of `EVALUATED` responses to each problem of the pool, drawn at the settings' precision."""
    shape = Shape.of(settings)
    problems = language.pool(settings.pool, language.POOL_SEED)
    prompts = torch.tensor([problem.prompt for problem in problems])
    engine = sampler.Sampler(shape, mantissa=settings.mantissa, logit_mantissa=settings.logit_mantissa)
    generator = torch.Generator().manual_seed(0)
    rollouts = engine.sample(shape.weights(flat_P), prompts, EVALUATED, generator)
    each = [problem for problem in problems for _ in range(EVALUATED)]
    return float(rollouts.rewards(each).mean(dtype=torch.float64))
