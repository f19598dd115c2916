"""Stored runs: DIR/runs/NAME.json.gz, written once and whole; DIR/unfinished/NAME.pt while a run is going."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dppo_core.lab.settings import Run

__all__ = ["Store", "Stored", "code_hash"]

Stored = dict[str, Any]
"""A run: name, method, seed, warmup, settings, warmup_reward, columns (name → one number a step), weights (their hash
at the end), code, versions, seconds."""
DIGITS = 6  # significant ones of every column but the reward, which is kept exactly
CORE = Path(__file__).parents[2] / "dppo_core"
CODE = (
    *(
        f"lab/{name}.py"
        for name in ("language", "methods", "metrics", "policy", "sampler", "settings", "train", "warmup")
    ),
    *(f"losses/{name}.py" for name in ("aggregate", "clipping", "divergence", "registered", "surrogate", "weighting")),
    *(f"{name}.py" for name in ("divergence", "masks", "rate_match", "tokens", "topk", "methods/clipping")),
)


def code_hash() -> str:
    """Of the files that decide what a run does."""
    digest = hashlib.sha256()
    for name in sorted(CODE):
        digest.update(name.encode() + b"\0" + (CORE / name).read_bytes())
    return digest.hexdigest()[:16]


class Store:
    """The runs below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs, self.unfinished = folder / "runs", folder / "unfinished"

    def path(self, run: Run) -> Path:
        return self.runs / f"{run.name}.json.gz"

    def state(self, run: Run) -> Path:
        """Where an unfinished run's state lies."""
        return self.unfinished / f"{run.name}.pt"

    def __contains__(self, run: Run) -> bool:
        return self.path(run).exists()

    def names(self) -> list[str]:
        """All stored runs."""
        return sorted(path.name.removesuffix(".json.gz") for path in self.runs.glob("*.json.gz"))

    def load(self, run: Run | str) -> Stored:
        """A stored run. Raises FileNotFoundError, and ValueError where its settings are not those of its name: the
        defaults have changed since."""
        run = Run.parse(run) if isinstance(run, str) else run
        path = self.path(run)
        if not path.exists():
            raise FileNotFoundError(f"no run {run.name} in {self.runs}; `dppo lab run` makes it")
        found: Stored = json.loads(gzip.decompress(path.read_bytes()))
        if found["settings"] != asdict(run.settings):
            changed = [key for key, value in asdict(run.settings).items() if found["settings"].get(key) != value]
            raise ValueError(f"{path} was made with other defaults of {', '.join(changed)}; delete it to make it again")
        return found

    def save(self, run: Run, columns: dict[str, list[float]], about: Stored) -> Stored:
        """Write a run, once. Raises FileExistsError where it is stored already."""
        stored = {
            "run": run.name,
            "method": run.method,
            "seed": run.seed,
            "warmup": run.warmup,
            "settings": asdict(run.settings),
            **about,
            "columns": {name: [_short(name, value) for value in values] for name, values in columns.items()},
        }
        self.runs.mkdir(parents=True, exist_ok=True)
        part = self.path(run).with_suffix(f".{os.getpid()}")
        text = json.dumps(stored, separators=(",", ":"), allow_nan=False)
        part.write_bytes(gzip.compress(text.encode(), mtime=0))
        try:
            os.link(part, self.path(run))  # fails where the run exists, as a rename would not
        finally:
            part.unlink()
        self.state(run).unlink(missing_ok=True)
        return stored

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One command at a time adds runs to a folder. Raises BlockingIOError where another one does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(f"another `dppo lab run` is adding runs to {self.folder}") from None
            yield


def versions() -> dict[str, str]:
    """Of what the last bit of a run may depend on."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def _short(name: str, value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return value if name == "reward" else float(f"{value:.{DIGITS}g}")
