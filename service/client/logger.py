"""`RolloutLogger`: a training loop hands over each step's rollouts and forgets them.

    with RolloutLogger("http://127.0.0.1:8000", "my-run") as logger:
        for step in range(steps):
            ...
            logger.log(step, records)  # one dict a response

Needs httpx, nothing else; loads neither torch nor numpy nor duckdb.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import operator
import random
import re
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from service.client.client import Client
from service.client.sender import Sender
from service.client.spool import Spool

__all__ = ["RolloutLogger"]

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SPOOL_BYTES = 4 << 30
BACKOFF_SECONDS = (0.5, 30.0)
CLOSING_SECONDS = 0.2
IDLE_SECONDS = 2.0  # how often to look for steps of other processes
TIMEOUT = httpx.Timeout(60, connect=5)

log = logging.getLogger("dppo.logger")


class RolloutLogger:
    """Takes the rollouts of a training run to a service, without ever stopping the training.

    `log` writes the step to `spool` and returns; a thread sends it, again and again while the service is down. A step
    for which `log` returned True is lost neither by a killed trainer nor by a restarted service: the next logger on
    the same spool goes on. Sending a step twice is harmless, the same bytes are the same upload. Processes of one
    machine may share a run and a spool; one of them sends.

    spool: directory, default `dppo-spool/<run>` below the working directory. Keep it on a local disk.
    max_bytes: what may wait there; a step beyond it is dropped, with a warning.
    sync: fsync within `log`: True then also holds through a power cut. Without it that takes a moment longer.
    replace: a step that is logged again takes the place of what the service has of it, as when a trainer resumes from
        an earlier checkpoint. Not where several calls make up one step.
    sampling, framework, tokenizer, meta: of the run, if the service does not know it yet.

    Whatever goes wrong is said once, as a warning of the `dppo.logger` logger. What the service refuses is kept in
    `<spool>/rejected` with the problem document beside it.
    """

    def __init__(
        self,
        url: str,
        run: str,
        *,
        token: str | None = None,
        spool: Path | str | None = None,
        max_bytes: int = SPOOL_BYTES,
        sync: bool = False,
        replace: bool = False,
        **about: Any,
    ) -> None:
        if not RUN_NAME.fullmatch(run):
            raise ValueError(f"run names match {RUN_NAME.pattern}, {run!r} does not")
        if unknown := about.keys() - {"sampling", "framework", "tokenizer", "meta"}:
            raise TypeError(f"unexpected argument {sorted(unknown)[0]!r}")
        self.url, self.run = url, run
        self.about = {name: value for name, value in about.items() if value is not None}
        self.spool = Spool(Path(spool if spool is not None else f"dppo-spool/{run}").absolute())
        self._max_bytes, self._sync = max_bytes, sync
        self._sender = Sender(lambda: Client(url, token, TIMEOUT), run, self.about, self.spool, replace)
        self._wake, self._idle, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._changing = threading.Lock()  # of wake and idle together
        self._deadline: float | None = None
        self._measured = 0.0
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="dppo-logger", daemon=True)
        self._thread.start()
        atexit.register(self.close, 5)

    def log(self, step: int, records: Iterable[Mapping[str, Any]]) -> bool:
        """Hand over a step's rollouts, one mapping a response; True = they are on disk.

        Values may be tensors or arrays. `step` overrides the records' own. Raises ValueError where `step` is no whole
        number from 0 to 2³²−1 or `records` is no list of mappings, so that a mistake shows in the first step; whatever
        else is wrong becomes a warning and False. What the fields hold is checked by the service.
        """
        number = _step(step)
        rows = _rows(records)
        try:
            if self._closed.is_set():
                self._warn("closed", "the logger is closed; step %d is dropped", number)
                return False
            if self._full():
                text = "%s holds more than %d bytes; steps are dropped from step %d on, while it does"
                self._warn("full", text, self.spool.folder, self._max_bytes, number)
                return False
            if rows:
                self.spool.write(number, rows, self._sync)
                with self._changing:
                    self._idle.clear()
                    self._wake.set()
        except Exception as error:  # noqa: BLE001 a training run is worth more than its log
            self._warn(f"log {type(error)}", "step %d is not logged: %s: %s", number, type(error).__name__, error)
            return False
        return True

    def describe(self, **about: Any) -> None:
        """Set what is not set yet of sampling, framework, tokenizer and meta; counts until the run exists."""
        for name, value in about.items():
            self.about.setdefault(name, value)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far was sent or refused; False where `timeout` seconds do not suffice."""
        self._wake.set()
        return self._idle.wait(timeout)

    def close(self, timeout: float = 30) -> bool:
        """Send what waits, for `timeout` seconds at most, and stop. What is left is sent by the next logger."""
        if self._closed.is_set():
            return self._idle.is_set()
        self._deadline = time.monotonic() + timeout
        self._closed.set()
        self._wake.set()
        self._thread.join(timeout + 1)
        atexit.unregister(self.close)
        if not self._idle.is_set():
            log.warning("steps wait in %s; the next logger on it sends them", self.spool.folder)
        return self._idle.is_set()

    def __enter__(self) -> RolloutLogger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _full(self) -> bool:
        if self.spool.size >= self._max_bytes and time.monotonic() > self._measured + 1:
            self._measured = time.monotonic()
            self.spool.size = self.spool.measure()  # other processes send from it too
        return self.spool.size >= self._max_bytes

    def _warn(self, about: str, text: str, *values: object) -> None:
        if about not in self._said:
            self._said.add(about)
            log.warning(text, *values)

    def _in_time(self) -> bool:
        return self._deadline is None or time.monotonic() < self._deadline

    def _work(self) -> None:
        """The thread: seal and send, then sleep until there is more or the service may be back."""
        failures = 0
        while True:
            try:
                self._round()
                failures = 0
            except Exception as error:
                failures += 1
                text = "%s takes no steps at the moment; training goes on, steps wait in %s: %s"
                self._warn("away", text, self.url, self.spool.folder, error)
                log.debug("attempt %d failed", failures, exc_info=True)
            if self._closed.is_set() and (self._idle.is_set() or not self._in_time()):
                break
            self._pause(failures)
        self._sender.close()
        self.spool.give()

    def _round(self) -> None:
        """Send all that waits. Raises `NotNow`."""
        self._wake.clear()
        if not self.spool.take():
            self._rest(self.spool.pending())
            return
        while waiting := self._sender.seal():
            self._sender.send(waiting, self._in_time)
            if "away" in self._said:
                self._said.discard("away")
                log.info("%s takes steps again", self.url)
            if not self._in_time():
                return
        self._rest([])

    def _rest(self, waiting: list[Path]) -> None:
        """Nothing is left to do, unless a step came in just now."""
        with self._changing:
            if not waiting and not self._wake.is_set():
                self._idle.set()

    def _pause(self, failures: int) -> None:
        """Sleep; steps that arrive in an outage are sealed at once, and sent when the pause is over."""
        if not failures:
            self._wake.wait(CLOSING_SECONDS if self._closed.is_set() else IDLE_SECONDS)
            return
        low, high = BACKOFF_SECONDS
        seconds = min(high, low * 2 ** min(failures - 1, 20)) * random.uniform(0.7, 1.0)  # noqa: S311 jitter
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._closed.is_set() and left > CLOSING_SECONDS:
                until = time.monotonic() + CLOSING_SECONDS  # no time for patience
                continue
            if self._wake.wait(left):
                self._wake.clear()
                with contextlib.suppress(OSError):  # a full disk: the step waits as it is
                    self._sender.seal()


def _step(step: Any) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        raise ValueError(f"step is a whole number, not {step!r}") from None
    if isinstance(step, bool) or not 0 <= number < 2**32:
        raise ValueError(f"step is a whole number from 0 to 2**32 - 1, not {step!r}")
    return number


def _rows(records: Any) -> list[Mapping[str, Any]]:
    if isinstance(records, Mapping | str | bytes) or not isinstance(records, Iterable):
        raise ValueError(f"records are a list of dicts, one a response, not a {type(records).__name__}")
    rows = list(records)
    for row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"a record is a dict of the response's fields, not a {type(row).__name__}")
    return rows
