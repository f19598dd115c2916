"""Executors run worker tasks somewhere else. `local` is a child process, so that torch never takes the API down."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from service.process import Child, Emit, Message

__all__ = ["Executor", "LocalExecutor"]


class Executor(Protocol):
    """Runs `service.worker` tasks. A task is JSON; its result too; events report progress meanwhile."""

    def submit(self, task: Message, on_event: Emit | None = None) -> Future[Message]:
        """Run a task; the future raises the task's own error, or `ChildDied` when its process dies."""
        ...

    def interrupt(self) -> None:
        """Kill what runs now. Shards are idempotent, so nothing is lost but time."""
        ...

    def close(self) -> None:
        """Stop for good."""
        ...


class LocalExecutor:
    """One worker process on this machine, started on first use and again after it died."""

    def __init__(self) -> None:
        # Passive: threads that spin while another process has their core make torch ten times slower.
        env = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "OMP_WAIT_POLICY": "PASSIVE"}
        self._child = Child("service.worker", env={name: os.environ.get(name, value) for name, value in env.items()})
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="executor")

    def submit(self, task: Message, on_event: Emit | None = None) -> Future[Message]:
        """Queue a task on the one child process."""
        return self._thread.submit(self._child.call, task, on_event)

    @property
    def pid(self) -> int | None:
        """The worker's process id, while it runs."""
        return self._child.pid

    def interrupt(self) -> None:
        """Kill the child; the next task starts a new one."""
        self._child.kill()

    def close(self) -> None:
        """Kill the child and its thread."""
        self._child.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._child.kill()
