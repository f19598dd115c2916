"""Liveness, readiness and metrics, at the root."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Request, Response

from service.api.problems import CleanJSON
from service.api.state import ServicesDep

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(services: ServicesDep) -> Response:
    """The catalog and the published database answer, and there is disk left."""
    with services.store.lens.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs").fetchone()
    free = services.store.free_bytes()
    ready = free >= services.settings.min_free_bytes and not services.closing.is_set()
    return CleanJSON({"status": "ready" if ready else "not ready", "free_bytes": free}, 200 if ready else 503)


@router.get("/metrics")
def metrics(services: ServicesDep, request: Request) -> Response:
    """Prometheus text format."""
    active = Counter((job.kind, job.state) for job in services.jobs.active())
    runs = services.store.runs.all()
    lines = ["# HELP dppo_jobs Jobs that wait or run.", "# TYPE dppo_jobs gauge"]
    lines += [f'dppo_jobs{{kind="{kind}",state="{state}"}} {n}' for (kind, state), n in sorted(active.items())]
    for name, text, value in (
        ("dppo_runs", "Runs.", len(runs)),
        ("dppo_rollouts", "Responses in the store.", sum(run["n_rollouts"] for run in runs)),
        ("dppo_response_tokens", "Response tokens in the store.", sum(run["n_tokens"] for run in runs)),
        (
            "dppo_pages_to_prefill",
            "Pages of large analyses still to be worked out ahead.",
            request.app.state.prefill.waiting,
        ),
        ("dppo_disk_free_bytes", "Free space on the data disk.", services.store.free_bytes()),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")
