"""Opens the pages of large analyses once, as a browser would, so that who comes first does not wait for their sums."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import ValidationError

from service.api.pages.frame import TABS
from service.api.pages.html import url
from service.api.pages.parts import PARTS
from service.api.state import Services
from service.api.views import FIGURES

__all__ = ["Prefill"]

SECONDS = 1.0  # between two looks at what is published
LEAST_TOKENS = 500_000  # of an analysis: smaller ones answer at once
MOST_ANALYSES = 4  # the newest ones: results are kept up to a size
REST = 20  # times as long as the last opening took: a run that is logged live changes every minute
CLOSING_SECONDS = 30.0
log = logging.getLogger(__name__)


class Prefill:
    """A thread that follows publications while nothing else is to be done. `waiting`: addresses still to be opened."""

    def __init__(self, app: FastAPI, services: Services) -> None:
        self.waiting = 0
        self._app, self._services = app, services
        self._opened: dict[str, int] = {}  # analysis → the state of its run when its pages were opened
        self._rests: dict[str, float] = {}  # … and until when they are not opened again
        self._thread = threading.Thread(target=self._follow, name="prefill", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Open no more pages; wait for the one that is being opened, before the databases close under it."""
        self._services.closing.set()
        self._thread.join(CLOSING_SECONDS)

    def _follow(self) -> None:
        while not self._services.closing.wait(SECONDS):
            try:
                for row in [] if self._services.jobs.active() else self._due():
                    asyncio.run(self._open(row))
            except Exception:
                if not self._services.closing.is_set():
                    log.exception("pages could not be opened ahead")

    def _due(self) -> list[dict[str, Any]]:
        states = self._services.store.lens.states
        newest = self._services.store.analyses.all()[:MOST_ANALYSES]
        done = [row for row in newest if row["n_finished"] == row["n_steps"] and row["n_tokens"] >= LEAST_TOKENS]
        return [
            row
            for row in done
            if self._opened.get(row["analysis"]) != states.get(row["run"])
            and time.monotonic() >= self._rests.get(row["analysis"], 0.0)
        ]

    async def _open(self, row: dict[str, Any]) -> None:
        addresses, began = _addresses(row["analysis"], row["run"]), time.monotonic()
        state = self._services.store.lens.states.get(row["run"])
        settings = self._services.settings
        headers = {} if settings.token is None else {"Authorization": f"Bearer {settings.token.get_secret_value()}"}
        transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)  # such a page says so when opened
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            for place, address in enumerate(addresses):
                self.waiting = len(addresses) - place
                if self._services.closing.is_set() or self._services.jobs.active():
                    break
                await client.get(address)
            else:
                if state is not None:
                    self._opened[row["analysis"]] = state
        self.waiting = 0
        self._rests[row["analysis"]] = time.monotonic() + REST * (time.monotonic() - began)


def _addresses(analysis: str, run: str) -> list[str]:
    """The pages of an analysis, their parts and their figures, as they are without a query."""
    pages = [url("analyses", analysis, *([tab] if tab else [])) for tab in TABS]
    parts = [url("analyses", analysis, "parts", name) for name in PARTS]
    figures = [url("api", "v1", "analyses", analysis, "figures", name) for name in FIGURES if _opens(name)]
    return [url("runs", run, query={"analysis": analysis}), *pages, *figures, *parts]


def _opens(figure: str) -> bool:
    """Whether a figure needs no query: that of one response does."""
    try:
        FIGURES[figure].view()
    except ValidationError:
        return False
    return True
