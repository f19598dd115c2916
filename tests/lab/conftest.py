"""A small lab: a short warm-up, few prompts, few steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dppo_core.lab.settings import Settings
from dppo_core.lab.warmup import Start, warmed_up

SMALL = Settings(
    warmup_steps=400,
    warmup_batch=64,
    warmup_lr=5e-3,
    warmups=1,
    steps=6,
    prompts=8,
    group=4,
    pool=64,
    minibatches=2,
    staleness=2,
)
SET = [
    f"--set={name}={getattr(SMALL, name)}" for name in vars(SMALL) if getattr(SMALL, name) != getattr(Settings(), name)
]
"""The same settings on the command line."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a run of the lab has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def warmups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warmups")


@pytest.fixture(scope="session")
def start(warmups: Path) -> Start:
    return warmed_up(SMALL, 0, warmups)


def changed(**settings: object) -> Settings:
    return replace(SMALL, **settings)  # type: ignore[arg-type]
