"""The job queue: a thread per kind, state in memory while it runs and in the catalog across restarts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from service.errors import LensError, NotFound, TooMany, WorkerFailed
from service.ids import new_id
from service.store.catalog import Row, as_json, insert
from service.store.runs import now
from service.store.store import Store

__all__ = ["Cancelled", "Job", "Jobs"]

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    """Raised inside a job when it should stop; nothing else is wrong."""


@dataclass
class Job:
    """One job. `run` functions report through `progress`, `warn` and `checkpoint`."""

    job: str
    kind: str
    run_id: str | None
    run: str | None
    request: dict[str, Any]
    created_at: datetime
    state: State = "queued"
    finished_at: datetime | None = None
    tokens_done: int = 0
    tokens_total: int | None = None
    heartbeat: float | None = None  # time.time() of the last sign of life
    warnings: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    on_stop: Callable[[], None] | None = None  # kills the child that works for this job

    def progress(self, done: int, total: int | None = None) -> None:
        """Report progress in tokens (bytes for an import) and that the job is alive."""
        self.tokens_done = done
        self.tokens_total = self.tokens_total if total is None else total
        self.heartbeat = time.time()

    def warn(self, message: str) -> None:
        """Something the user should know; each message once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def checkpoint(self) -> None:
        """Stop here if asked to."""
        if self.stop.is_set():
            raise Cancelled

    @property
    def finished(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class Work(Protocol):
    """What does the jobs of one kind."""

    def run(self, job: Job) -> dict[str, Any]:
        """Do the job and return its result; may be called again for the same job after a crash."""
        ...

    def discard(self, job: Job) -> None:
        """The job failed or was cancelled for good: remove what it would have needed."""
        ...


class Jobs:
    """Runs jobs one after the other per kind. `work` maps a kind to what does it."""

    def __init__(self, store: Store, work: dict[str, Work], max_jobs: int) -> None:
        self._store, self._work, self._max = store, work, max_jobs
        self._threads = {kind: ThreadPoolExecutor(1, thread_name_prefix=kind) for kind in work}
        self._active: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._closing = False

    def submit(self, kind: str, run_id: str, run: str, request: dict[str, Any], job_id: str | None = None) -> Job:
        """Queue a job. It survives a restart from here on."""
        job = Job(job_id or new_id("j"), kind, run_id, run, request, created_at=now())
        with self._lock:
            if len(self._active) >= self._max:
                raise TooMany(f"{self._max} jobs wait already; try again when one is done (GET /api/v1/jobs/…)")
            self._active[job.job] = job
        self._store.catalog.write(
            lambda cursor: insert(
                cursor,
                "jobs",
                [
                    {
                        "job": job.job,
                        "kind": kind,
                        "run_id": run_id,
                        "state": job.state,
                        "created_at": job.created_at,
                        "request": as_json(request),
                        "tokens_done": 0,
                        "warnings": "[]",
                    }
                ],
            )
        )
        self._threads[kind].submit(self._run, job)
        return job

    def resume(self) -> None:
        """Queue again what an earlier process left unfinished."""
        for row in self._store.catalog.rows("jobs", job=None, run_id=None, unfinished=True):
            job = Job(row["job"], row["kind"], row["run_id"], row["run"], json.loads(row["request"]), row["created_at"])
            with self._lock:
                self._active[job.job] = job
            self._threads[job.kind].submit(self._run, job)

    def get(self, job_id: str) -> Job:
        """A job, running or finished."""
        with self._lock:
            if job_id in self._active:
                return self._active[job_id]
        rows = self._store.catalog.rows("jobs", job=job_id, run_id=None, unfinished=False)
        if not rows:
            raise NotFound(f"there is no job {job_id!r}")
        return _from_row(rows[0])

    def of_run(self, run_id: str) -> list[Job]:
        """A run's jobs, oldest first, as they are now."""
        rows = self._store.catalog.rows("jobs", job=None, run_id=run_id, unfinished=False)
        with self._lock:
            return [self._active.get(row["job"]) or _from_row(row) for row in rows]

    def active(self) -> list[Job]:
        """Jobs that wait or run."""
        with self._lock:
            return list(self._active.values())

    def cancel(self, job_id: str) -> Job:
        """Stop a job; what is finished stays finished. Cancelling a finished job changes nothing."""
        job = self.get(job_id)
        if not job.finished:
            job.stop.set()
            if job.on_stop:
                job.on_stop()
            elif job.state == "queued":
                self._finish(job, "cancelled")
        return job

    def cancel_run(self, run_id: str) -> None:
        """Cancel what works for a run and wait until it has stopped."""
        for job in self.active():
            if job.run_id == run_id:
                self.cancel(job.job)
        deadline = time.monotonic() + 30
        while any(job.run_id == run_id for job in self.active()) and time.monotonic() < deadline:
            time.sleep(0.02)

    def close(self) -> None:
        """Stop working. Unfinished jobs stay queued in the catalog and are resumed by the next process."""
        self._closing = True
        for job in self.active():
            job.stop.set()
            if job.on_stop:
                job.on_stop()
        for thread in self._threads.values():
            thread.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job) -> None:
        if job.finished or self._closing:
            return
        job.state = "running"
        job.progress(0)
        try:
            job.checkpoint()
            job.result = self._work[job.kind].run(job)
            self._finish(job, "done")
        except Cancelled:
            self._finish(job, "cancelled")
        except LensError as error:
            if job.stop.is_set():  # we killed its child
                self._finish(job, "cancelled")
            else:
                job.error = error.problem()
                self._finish(job, "failed")
        except Exception as error:
            job.error = WorkerFailed(f"{type(error).__name__}: {error}").problem()
            self._finish(job, "failed")
            raise

    def _finish(self, job: Job, state: State) -> None:
        if self._closing and state == "cancelled":
            return  # not cancelled by a user: the next process goes on with it
        job.state, job.finished_at = state, now()
        if state != "done":
            self._work[job.kind].discard(job)
        self._store.catalog.execute(
            "update_job",
            job=job.job,
            state=state,
            finished_at=job.finished_at,
            tokens_done=job.tokens_done,
            tokens_total=job.tokens_total,
            warnings=as_json(job.warnings),
            error=as_json(job.error) if job.error else None,
            result=as_json(job.result) if job.result is not None else None,
        )
        with self._lock:
            self._active.pop(job.job, None)


def _from_row(row: Row) -> Job:
    return Job(
        job=row["job"],
        kind=row["kind"],
        run_id=row["run_id"],
        run=row["run"],
        request=json.loads(row["request"]),
        created_at=row["created_at"],
        state=row["state"],
        finished_at=row["finished_at"],
        tokens_done=row["tokens_done"],
        tokens_total=row["tokens_total"],
        warnings=json.loads(row["warnings"]),
        error=json.loads(row["error"]) if row["error"] else None,
        result=json.loads(row["result"]) if row["result"] else None,
    )
