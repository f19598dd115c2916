"""Jobs as pages show them: how far, how fast, what went wrong and where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.api.pages.html import moment, short, url
from service.jobs.jobs import Job
from web.numbers import count, size

__all__ = ["job_row", "shown_jobs"]

RECENT_FAILURES = 5
KINDS = {"import": "Import", "analysis": "Analysis"}


def shown_jobs(jobs: Iterable[Job]) -> list[Job]:
    """What works or waits, then the last few that failed or were cancelled; a finished job is seen in its result."""
    jobs = list(jobs)
    active = [job for job in jobs if not job.finished]
    ended = [job for job in jobs if job.state in ("failed", "cancelled")]
    return active + ended[::-1][:RECENT_FAILURES]


def job_row(job: Job) -> dict[str, Any]:
    """The model of one job."""
    analysis = job.request.get("analysis")
    error = job.error or {}
    done, total = job.tokens_done, job.tokens_total
    return {
        "id": job.job,
        "kind": KINDS[job.kind],
        "state": job.state,
        "unit": "bytes" if job.kind == "import" else "tokens",
        "what": f"of {short(analysis)}" if analysis else str(job.request.get("filename") or "of rollouts"),
        "href": url("analyses", analysis) if analysis else "",
        "linked": bool(analysis),
        "unlinked": not analysis,
        "active": not job.finished,
        "cancel": url("api", "v1", "jobs", job.job),
        "events": url("api", "v1", "jobs", job.job, "events") if job.state == "running" else "",
        "share": round(100 * done / total, 2) if total else 0,
        "progress": "" if job.finished else _progress(job),
        "created": moment(job.created_at)["text"],
        "warnings": [{"message": message} for message in job.warnings],
        "failed": job.state == "failed",
        "error_title": error.get("title", ""),
        "error_detail": error.get("detail", ""),
        "errors": [_where(entry) for entry in error.get("errors", [])],
    }


def _progress(job: Job) -> str:
    if job.state == "queued":
        return "waits for the job before it"
    if job.tokens_total is None:
        return "starting"
    if job.kind == "import":
        return f"{size(job.tokens_done)} of {size(job.tokens_total)}"
    return f"{count(job.tokens_done)} of {count(job.tokens_total)} tokens"


def _where(entry: dict[str, Any]) -> dict[str, str]:
    parts = [f"line {entry['line']:,}"] if entry.get("line") is not None else []
    parts += [str(entry["field"])] if entry.get("field") else []
    return {"where": ", ".join(parts), "message": str(entry.get("message", ""))}
