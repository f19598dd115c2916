"""Many runs, one process a core."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from dppo_core.lab.settings import Run
from service.lab.execute import Options, execute
from service.lab.store import Store

__all__ = ["run_all"]

_steps: Any = None  # in a worker: the queue of (run, steps done)


def run_all(
    runs: Sequence[Run], options: Options, processes: int, on_progress: Callable[[int, int], None]
) -> list[str]:
    """Make those runs that are not stored, in order; returns their names. `on_progress` gets steps done and all steps.

    Raises what a run raises, after those that are going have ended; what is stored stays, and the same call goes on.
    """
    store = Store(options.folder)
    with store.writing():
        missing = [run for run in dict.fromkeys(runs) if run not in store]
        total = sum(run.settings.steps for run in missing)
        done: dict[str, int] = {}

        def heard(name: str, steps: int) -> None:
            done[name] = steps
            on_progress(sum(done.values()), total)

        if processes == 1 or len(missing) < 2:
            for run in missing:
                execute(run, options, lambda steps, name=run.name: heard(name, steps))  # type: ignore[misc]
        else:
            _in_processes(missing, options, processes, heard)
    return [run.name for run in missing]


def _in_processes(runs: Sequence[Run], options: Options, processes: int, heard: Callable[[str, int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()

    def listen() -> None:
        while (message := queue.get()) is not None:
            heard(*message)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(queue,)) as pool:
        try:
            for finished in as_completed([pool.submit(_execute, run, options) for run in runs]):
                finished.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            queue.put(None)
            listener.join()


def _begin(queue: Any) -> None:
    global _steps
    _steps = queue


def _execute(run: Run, options: Options) -> None:
    execute(run, options, lambda steps: _steps.put((run.name, steps)))
