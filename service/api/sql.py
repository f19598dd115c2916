"""`POST /sql`: one SELECT over the contract's tables, as an Arrow stream."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from service.api.state import ServicesDep
from service.errors import TooMany
from service.schemas.requests import SqlStatement
from service.store.sandbox import run_sql

__all__ = ["router"]

router = APIRouter(tags=["sql"])


@router.post("/sql")
def sql(body: SqlStatement, services: ServicesDep) -> StreamingResponse:
    """Run one SELECT in a sandbox. The status is decided before the first byte."""
    if not services.sql_slots.acquire(timeout=services.settings.sql_seconds):
        raise TooMany("too many statements run at once; try again in a moment")
    try:
        result = run_sql(
            body.sql, lens=services.store.layout.lens, data_dir=services.store.layout.root, settings=services.settings
        )
    finally:
        services.sql_slots.release()
    return StreamingResponse(
        iter(result),
        media_type="application/vnd.apache.arrow.stream",
        headers={"X-Rows": str(result.rows)},
        background=BackgroundTask(result.close),
    )
