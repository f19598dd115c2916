"""Supervised warm-up: next-token training on noisy demonstrations, the policy that every run starts from."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from dppo_core.lab import language, policy
from dppo_core.lab.policy import Shape, initial, score
from dppo_core.lab.settings import Settings

__all__ = ["warm_up", "warmed_up"]

FINGERPRINTED = ("width", "layers", "heads", "warmup_steps", "warmup_batch", "warmup_lr")
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
        (-logp.mean()).backward()
        torch.nn.utils.clip_grad_norm_([flat], settings.max_norm)
        optimizer.step()
    return flat.detach()


def warmed_up(settings: Settings, number: int, cache: Path) -> Tensor:
    """The same, kept in `cache` under a hash of what it depends on, the code that made it included."""
    made_by = [Path(module).read_bytes() for module in (__file__, language.__file__, policy.__file__)]
    what = json.dumps([{name: asdict(settings)[name] for name in FINGERPRINTED}, number, torch.__version__])
    digest = hashlib.sha256(b"\0".join([*made_by, what.encode()])).hexdigest()[:16]
    file = cache / f"warmup-{number}-{digest}.pt"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        weights = warm_up(settings, number)
        part = file.with_suffix(f".{os.getpid()}")
        torch.save(weights, part)
        part.replace(file)
    loaded: Tensor = torch.load(file, weights_only=True)
    return loaded
