"""Sends what waits in a spool until the service has it or refuses it.

A service imports a few uploads a second at best, so that steps which pile up go together: gzip files one after another
are a gzip file. Records are known by (run, step, sample_id), so that a step sent once alone and once with others is
still there once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from service.client.client import ApiError, Client
from service.client.spool import Spool, Unreadable

__all__ = ["NotNow", "Sender"]

REFUSALS = frozenset({400, 409, 413, 415, 422})  # said of the step itself; sending it again would change nothing
POLL_SECONDS = (0.05, 1.0)
BATCH_STEPS, BATCH_BYTES = 64, 64 << 20

log = logging.getLogger("dppo.logger")


class NotNow(Exception):
    """Nothing is wrong with the step: try again later."""


class Sender:
    """Takes steps from `spool` to `run`. Used by one thread."""

    def __init__(
        self, connect: Callable[[], Client], run: str, about: dict[str, Any], spool: Spool, replace: bool
    ) -> None:
        self._connect, self._run, self._about, self._spool, self._replace = connect, run, about, spool, replace
        self._client: Client | None = None
        self._run_exists = False
        self._alone: set[str] = set()  # steps that were refused in company
        self._crashed: set[str] = set()  # steps that the service could not import, for no fault of theirs that it knows
        self._warned_nulls = self._warned_refusal = False

    def seal(self) -> list[Path]:
        """All waiting steps, fsynced and ready to be sent."""
        ready = []
        for path in self._spool.pending():
            try:
                sealed, nulls = self._spool.seal(path)
            except Unreadable as error:
                self._refused(path, {"title": "Unreadable", "detail": str(error)})
                continue
            if nulls and not self._warned_nulls:
                self._warned_nulls = True
                log.warning("NaN or infinite numbers are logged as null, from %s on", sealed.name)
            if sealed not in ready:  # a crash between two renames leaves a step in both forms
                ready.append(sealed)
        return sorted(ready, key=lambda path: path.name in self._crashed)

    def send(self, waiting: list[Path], patience: Callable[[], bool]) -> None:
        """The first of these, or as many as go together; they have left the spool when this returns.

        Raises `NotNow`, also when `patience` is at its end.
        """
        batch = self._batch(waiting)
        try:
            job = self._upload(batch, patience)
        except ApiError as error:
            self._judge(batch, error.problem)
            return
        except httpx.HTTPError as error:
            self.close()
            raise NotNow(f"{type(error).__name__}: {error}") from error
        if job["state"] == "done":
            for path in batch:
                self._spool.done(path)
        elif job["state"] == "cancelled":
            self._judge(batch, {"title": "Cancelled", "status": 409, "detail": f"job {job['id']} was cancelled"})
        else:
            self._judge(batch, job["error"] or {"title": "Failed", "status": 500}, by_job=True)

    def _batch(self, waiting: list[Path]) -> list[Path]:
        batch, size = waiting[:1], waiting[0].stat().st_size
        if batch[0].name in self._alone:
            return batch
        for path in waiting[1:BATCH_STEPS]:
            size += path.stat().st_size
            if size > BATCH_BYTES or path.name in self._alone:
                break
            batch.append(path)
        return batch

    def _upload(self, batch: list[Path], patience: Callable[[], bool]) -> dict[str, Any]:
        """The finished import job."""
        client = self._connected()
        options: dict[str, Any] = {"format": "native", "replace": "step" if self._replace else None}
        options["filename"] = batch[0].name
        with self._spool.joined(batch) as file:
            job = client.upload(self._run, file, **options)
        pause = POLL_SECONDS[0]
        while job["state"] in ("queued", "running"):
            if not patience():
                raise NotNow("the service is still importing")
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
            job = client.job(job["id"])
        return job

    def close(self) -> None:
        """Drop the connection; the next step opens one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._connect()
        if not self._run_exists:
            try:
                self._client.run(self._run)
            except ApiError as error:
                if error.problem.get("status") != 404:
                    raise NotNow(str(error)) from error
                self._create(self._client)
            self._run_exists = True
        return self._client

    def _create(self, client: Client) -> None:
        try:
            client.create_run(self._run, **self._about)
        except ApiError as error:
            if error.problem.get("status") != 409:  # another process was first
                raise NotNow(f"the run cannot be created: {error}") from error

    def _judge(self, batch: list[Path], problem: dict[str, Any], by_job: bool = False) -> None:
        """Refuse a step for good, or see to it that it is tried again: alone, and after the others if it crashed."""
        status = problem.get("status", 500)
        if len(batch) > 1 and (by_job or status in REFUSALS):
            self._alone.update(path.name for path in batch)  # one of them it is
            return
        if status in REFUSALS:
            self._refused(batch[0], problem)
            return
        if status == 404:
            self._run_exists = False  # deleted in the meantime: create it again
        if by_job:
            self._crashed.update(path.name for path in batch)
        raise NotNow(str(ApiError(problem)))

    def _refused(self, path: Path, problem: dict[str, Any]) -> None:
        kept = self._spool.reject(path, problem)
        say = log.debug if self._warned_refusal else log.warning
        self._warned_refusal = True
        say("a step was refused and is kept in %s, as others may be from now on: %s", kept, ApiError(problem))
