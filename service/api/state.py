"""What every route works with, built once per application."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.jobs.executor import LocalExecutor
from service.jobs.imports import Importer
from service.jobs.jobs import Jobs
from service.jobs.scoring import Scorer
from service.settings import Settings
from service.store.store import Store

__all__ = ["Services", "ServicesDep", "open_services"]

SWEEP_SECONDS = 300.0
SQL_SLOTS = 4  # statements at once; each may take its memory limit


@dataclass
class Services:
    """The open store, the job queue and the worker behind it."""

    settings: Settings
    store: Store
    jobs: Jobs
    scorer: Scorer
    executor: LocalExecutor
    closing: threading.Event
    sql_slots: threading.BoundedSemaphore

    def close(self) -> None:
        """Stop working; unfinished jobs go on after the next start."""
        self.closing.set()
        self.jobs.close()
        self.executor.close()
        self.store.close()


def open_services(settings: Settings) -> Services:
    """Open the data directory and go on with what was unfinished. Raises `Locked` when another process has it."""
    store = Store(settings)
    executor = LocalExecutor()
    scorer = Scorer(store, settings, executor)
    importer = Importer(store, settings)
    jobs = Jobs(store, {"import": importer, "analysis": scorer}, settings.max_jobs)
    services = Services(
        settings, store, jobs, scorer, executor, threading.Event(), threading.BoundedSemaphore(SQL_SLOTS)
    )
    jobs.resume()
    importer.sweep(jobs.active())

    def sweep() -> None:
        while not services.closing.wait(SWEEP_SECONDS):
            store.trash.sweep()

    threading.Thread(target=sweep, name="sweep", daemon=True).start()
    return services


def services_of(request: Request) -> Services:
    """The application's services."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
