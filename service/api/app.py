"""The application: routes, errors, security, and the services they share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from service.api import analyses, health, jobs, methods, pages, problems, runs, sql
from service.api.prefill import Prefill
from service.api.security import Guard
from service.api.state import Services

__all__ = ["create_app"]


def create_app(services: Services) -> FastAPI:
    """The application over opened services, which it closes at shutdown."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = services
        app.state.prefill = Prefill(app, services)
        try:
            yield
        finally:
            await run_in_threadpool(app.state.prefill.close)
            await run_in_threadpool(services.close)

    app = FastAPI(
        title="DPPO Lens",
        version=version("dppo-lens"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        description="Where PPO clipping and DPPO disagree, token by token. Errors are problem documents (RFC 9457).",
    )
    for module in (runs, jobs, analyses, methods, sql):
        app.include_router(module.router, prefix="/api/v1")
    app.include_router(health.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=Path(str(files("web") / "static"))), name="static")
    problems.install(app)
    app.add_middleware(Guard, settings=services.settings)
    return app
