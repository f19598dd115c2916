"""One run: from its start, or from the state that an interrupted one left, to its file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dppo_core.lab.checkpoint import save_checkpoint
from dppo_core.lab.metrics import COLUMNS, measure
from dppo_core.lab.settings import Run
from dppo_core.lab.train import Trainer
from dppo_core.lab.warmup import warmed_up
from service.client import Client, RolloutLogger
from service.lab.logs import SAMPLING, Sink, describe, log_to_files, log_to_service, service_name
from service.lab.store import Store, Stored, code_hash, versions

__all__ = ["Options", "execute"]

SAVE_EVERY = 25  # steps between two states: half a megabyte each, and a few seconds of work to lose
FLUSH_SECONDS, CLOSING_SECONDS = 600.0, 1.0


@dataclass(frozen=True)
class Options:
    """Where runs are kept and what else they write.

    cache: of warm-ups. url: a service to log to; files: a folder to log to. checkpoints: a folder for a checkpoint
    every `checkpoint_every` steps, registered with the service where one is given. lists: log top-K lists too.
    """

    folder: Path
    cache: Path
    url: str | None = None
    files: Path | None = None
    checkpoints: Path | None = None
    checkpoint_every: int = 1
    lists: bool = False
    whole: bool = False


def execute(run: Run, options: Options, on_step: Callable[[int], None] = lambda _: None) -> Stored:
    """Make a run and store it; `on_step` gets the number of steps done. A stored run is returned as it is.

    One thread, so that the result is a function of the run on one machine.
    """
    store = Store(options.folder)
    if run in store:
        return store.load(run)
    torch.set_num_threads(1)
    start = warmed_up(run.settings, run.warmup, options.cache)
    whole = options.whole or options.url is not None or options.files is not None
    trainer = Trainer(run, start.weights, whole=whole, lists=options.lists)
    columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
    before = 0.0
    if (state := store.state(run)).exists():
        saved = torch.load(state, weights_only=True)
        if (saved["code"], saved.get("whole")) == (code_hash(), whole):  # nothing else may go on where this one stopped
            trainer.restore(saved["trainer"])
            columns, before = saved["columns"], saved["seconds"]
    began = time.perf_counter()
    with _sinks(run, options) as sinks, _checkpoints(run, options) as keep:
        while trainer.number < run.settings.steps:
            on_step(trainer.number)
            keep(trainer)
            step = trainer.step()
            for name, value in measure(step).items():
                columns[name].append(value)
            for sink in sinks:
                sink(step)
            if trainer.number % SAVE_EVERY == 0 and trainer.number < run.settings.steps:
                seconds = before + time.perf_counter() - began
                made_by = {"code": code_hash(), "whole": whole}
                _save(state, {"trainer": trainer.state(), "columns": columns, "seconds": seconds, **made_by})
        keep(trainer)
    about: Stored = {
        "warmup_reward": start.reward,
        "weights": hashlib.sha256(trainer.flat.detach().numpy().tobytes()).hexdigest()[:16],
        "code": code_hash(),
        "versions": versions(),
        "seconds": round(before + time.perf_counter() - began, 1),
        "whole": whole,
    }
    stored = store.save(run, columns, about)
    on_step(trainer.number)
    return stored


def _save(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    torch.save(state, part)
    part.replace(path)


@contextlib.contextmanager
def _sinks(run: Run, options: Options) -> Iterator[list[Sink]]:
    """Where each step is logged; on leaving, everything has reached the service. Raises RuntimeError where it has
    not."""
    sinks = [log_to_files(run, options.files)] if options.files else []
    if options.url is None:
        yield sinks
        return
    logger = RolloutLogger(
        options.url,
        service_name(run),
        token=os.environ.get("DPPO_TOKEN") or None,
        spool=options.folder / "spool" / service_name(run),
        replace=True,  # a run that resumes logs its last steps again
        sampling=SAMPLING,
        framework="dppo-lab",
        meta={"run": run.name},
    )
    try:
        yield [*sinks, log_to_service(run, logger)]
        if not logger.flush(FLUSH_SECONDS):
            where = logger.spool.folder
            raise RuntimeError(f"{options.url} has not taken all steps of {run.name}; they wait in {where}")
    finally:
        logger.close(CLOSING_SECONDS)  # what an interrupted run leaves waits for the next logger


@contextlib.contextmanager
def _checkpoints(run: Run, options: Options) -> Iterator[Callable[[Trainer], None]]:
    """Writes the policy before the trainer's next step, if its turn has come."""
    if options.checkpoints is None:
        yield lambda _: None
        return
    place = options.checkpoints / service_name(run)
    with contextlib.ExitStack() as stack:
        client = None
        if options.url is not None:
            client = stack.enter_context(Client(options.url, os.environ.get("DPPO_TOKEN") or None))
            describe(client, run)

        def keep(trainer: Trainer) -> None:
            number, last = trainer.number, trainer.number == run.settings.steps
            if number % options.checkpoint_every == 0 or last:
                path = save_checkpoint(trainer.flat, trainer.shape, place / f"step_{number:06d}")
                if client is not None:
                    client.add_checkpoint(service_name(run), number, str(path.resolve()))

        yield keep
