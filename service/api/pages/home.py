"""`/`: every run."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.html import moment, page, url
from service.api.state import ServicesDep
from web.numbers import count

__all__ = ["router"]

router = APIRouter()


@router.get("/")
def runs(request: Request, services: ServicesDep) -> Response:
    """The list of runs, newest first; without any, the commands that make one."""
    rows = [_run(row) for row in services.store.runs.all()]
    return page(request, "runs.html", runs=rows)


def _run(row: dict[str, Any]) -> dict[str, Any]:
    names = ("n_steps", "n_rollouts", "n_tokens", "n_checkpoints", "n_analyses")
    return {
        "run": row["run"],
        "href": url("runs", row["run"]),
        "framework": row["framework"] or "–",
        "created": moment(row["created_at"]),
        **{name: count(row[name]) for name in names},
    }
