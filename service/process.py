"""Child processes that do what the API process must not: parse uploads, run models, run user SQL.

A child is `python -m MODULE`; parent and child exchange JSON messages over a socket pair. A child ends when its
parent does (the socket closes), whatever killed the parent. A child that dies mid-task raises `ChildDied`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from service.errors import LensError, WorkerFailed, from_problem

__all__ = ["Child", "ChildDied", "Emit", "Message", "serve"]

Message = dict[str, Any]
Emit = Callable[[Message], None]


class ChildDied(WorkerFailed):
    """The child process ended in the middle of a task (crash, kill, out of memory)."""


class Child:
    """One child process, started on first use. `call` may be used by one thread at a time, `kill` by any."""

    def __init__(self, module: str, env: dict[str, str] | None = None) -> None:
        self.module = module
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process if it is not running."""
        with self._lock:
            if self._process and self._process.poll() is None:
                return
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 our own module, no shell
                    [sys.executable, "-m", self.module, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **(self._env or {})},
                )
            self._connection = Connection(ours.detach())

    def call(self, task: Message, on_event: Emit | None = None, timeout: float | None = None) -> Message:
        """Run one task and return its result.

        `on_event` receives each message the child emits meanwhile. Raises the task's own `LensError`,
        `ChildDied` when the process ends first, and `TimeoutError` (after killing it) past `timeout` seconds.
        """
        self.start()
        connection = self._connection
        assert connection is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            connection.send_bytes(json.dumps(task).encode())
            while True:
                if deadline is not None and not connection.poll(max(0.0, deadline - time.monotonic())):
                    self.kill()
                    raise TimeoutError
                message = json.loads(connection.recv_bytes())
                if "result" in message:
                    return dict(message["result"])
                if "problem" in message:
                    raise from_problem(message["problem"])
                if on_event:
                    on_event(message)
        except (EOFError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise ChildDied(f"{self.module} {self._farewell()}") from error

    def kill(self) -> None:
        """End the process now, whatever it is doing."""
        with self._lock:
            if self._process:
                self._process.kill()
                self._process.wait()
            if self._connection:
                with contextlib.suppress(OSError):
                    self._connection.close()
            self._process = self._connection = None

    def _farewell(self) -> str:
        process = self._process
        self.kill()
        code = process.returncode if process else None
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def serve(handle: Callable[[Message, Emit], Message]) -> None:
    """The child's side: answer tasks until the parent goes away. Called by a module's `__main__`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    connection = Connection(int(sys.argv[1]))
    tasks, arrived = [], threading.Condition()

    def read() -> None:
        while True:
            try:
                task = json.loads(connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone
            with arrived:
                tasks.append(task)
                arrived.notify()

    def send(message: Message) -> None:
        try:
            connection.send_bytes(json.dumps(message).encode())
        except OSError:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        with arrived:
            while not tasks:
                arrived.wait()
            task = tasks.pop(0)
        try:
            reply: Message = {"result": handle(task, send)}
        except LensError as error:
            reply = {"problem": error.problem()}
        except Exception as error:  # noqa: BLE001 whatever it is belongs to the task, not to the loop
            traceback.print_exc()
            reply = {"problem": WorkerFailed(f"{type(error).__name__}: {error}").problem()}
        send(reply)
