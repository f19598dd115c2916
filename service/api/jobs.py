"""Jobs: state, progress as server-sent events, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.api.state import ServicesDep
from service.jobs.jobs import Job
from service.schemas.responses import JobOut, Progress

__all__ = ["job_out", "router"]

router = APIRouter(tags=["jobs"])

EVENT_SECONDS = 0.25


def job_out(job: Job) -> JobOut:
    """A job as the API shows it."""
    heartbeat = None if job.heartbeat is None else datetime.fromtimestamp(job.heartbeat, UTC)
    return JobOut(
        id=job.job,
        kind=job.kind,
        run=job.run,
        state=job.state,
        created_at=job.created_at,
        finished_at=job.finished_at,
        warnings=job.warnings,
        error=job.error,
        result=job.result,
        progress=Progress(
            tokens_done=job.tokens_done,
            tokens_total=job.tokens_total,
            heartbeat=heartbeat,
            unit="bytes" if job.kind == "import" else "tokens",
        ),
    )


@router.get("/jobs/{job}")
def get_job(job: str, services: ServicesDep) -> JobOut:
    """One job."""
    return job_out(services.jobs.get(job))


@router.get("/runs/{run}/jobs")
def list_jobs(run: str, services: ServicesDep) -> list[JobOut]:
    """A run's jobs, oldest first."""
    return [job_out(job) for job in services.jobs.of_run(services.store.runs.get(run)["run_id"])]


@router.get("/jobs/{job}/events", response_class=EventSourceResponse)
async def job_events(job: str, services: ServicesDep) -> AsyncIterator[ServerSentEvent]:
    """The job each time it changes, as event `progress`, until it ends with event `end`."""
    last = None
    while not services.closing.is_set():
        now = job_out(services.jobs.get(job))
        if now != last:
            ended = now.state in ("done", "failed", "cancelled")
            yield ServerSentEvent(event="end" if ended else "progress", data=now.model_dump(mode="json"))
            if ended:
                return
            last = now
        await asyncio.sleep(EVENT_SECONDS)


@router.delete("/jobs/{job}", status_code=202)
def cancel_job(job: str, services: ServicesDep) -> JobOut:
    """Stop a job. Steps that are finished stay."""
    return job_out(services.jobs.cancel(job))
