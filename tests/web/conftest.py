"""One server with the hand-made run, for pages over HTTP and pages in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.live import Server
from tests.web import counted, exact, hand, prompts, story
from tests.web.chromium import EXECUTABLE


@dataclass(frozen=True)
class ExactSite:
    """A running server with the run of `tests.web.exact`: its analyses with K = 2 and K = 3."""

    server: Server
    two: str
    three: str

    @property
    def url(self) -> str:
        return self.server.url

    def live(self, page: str, **view: object) -> dict[str, Any]:
        """The model of a page of the analysis with K = 2 under a view."""
        response = httpx.get(f"{self.url}/analyses/{self.two}/{page}/live", params=view, timeout=30)  # type: ignore[arg-type]
        assert response.status_code == 200, response.text
        model: dict[str, Any] = response.json()
        return model

    def rows(self, table: str, analysis: str | None = None, **view: object) -> list[dict[str, Any]]:
        """A table of an analysis (K = 2, if it is not named) under a view."""
        response = self.server.api.get(f"/analyses/{analysis or self.two}/tables/{table}", params=view)  # type: ignore[arg-type]
        assert response.status_code == 200, response.text
        rows: list[dict[str, Any]] = response.json()
        return rows


@dataclass(frozen=True)
class Site:
    """A running server with the run of `tests.web.hand`; `empty_home` is its first page before there was any run.

    `exact` is another server, with the run of `tests.web.exact`.
    """

    server: Server
    analysis: str
    empty_home: str
    exact: ExactSite | None = None

    @property
    def url(self) -> str:
        return self.server.url

    def rollout(self, sample: str, step: int, more: str = "") -> str:
        """The address of a response."""
        return f"{self.url}/analyses/{self.analysis}/rollout?step={step}&sample_id={quote(sample, safe='')}{more}"

    def get(self, path: str, **settings: object) -> httpx.Response:
        """A page as a browser asks for it."""
        return httpx.get(self.url + path, headers={"accept": "text/html"}, timeout=30, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def exact_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExactSite]:
    data = tmp_path_factory.mktemp("exact") / "data"
    filled = exact.fill(data)
    with Server(data) as server:
        yield ExactSite(server, filled.two, filled.three)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, exact_site: ExactSite) -> Iterator[Site]:
    with Server(tmp_path_factory.mktemp("site") / "data") as server:
        empty = httpx.get(server.url, headers={"accept": "text/html"}).text
        yield Site(server, hand.fill(server), empty, exact_site)


@pytest.fixture(scope="module")
def counted_site(site: Site) -> Iterator[Site]:
    """The site with the run of `tests.web.counted` too, as its analysis."""
    yield Site(site.server, counted.fill(site.server), site.empty_home)
    assert site.server.api.delete(f"/runs/{counted.RUN}").status_code == 204


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running server with the two runs of `tests.web.story`; `analysis` is that of `story`."""
    data_dir = tmp_path_factory.mktemp("training") / "data"
    story.write_scored(data_dir)
    with Server(data_dir) as server:
        yield Site(server, story.fill(server), "")


@pytest.fixture(scope="module")
def prompts_site(site: Site) -> Iterator[Site]:
    """The same server with the run of `tests.web.prompts`, whose analysis is this one's."""
    yield Site(site.server, prompts.fill(site.server), site.empty_home)
    assert site.server.api.delete(f"/runs/{prompts.RUN}").status_code == 204


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One profile for the module, so that plotly.js is fetched and compiled once."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    yield context
    context.close()


@contextmanager
def silent(context: BrowserContext, site: Site) -> Iterator[Page]:
    """A page that must stay silent, alone with its server, and its own master."""
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    own = (site.url, *([site.exact.url] if site.exact else []), "data:", "blob:")
    page.on(
        "request", lambda request: None if request.url.startswith(own) else said.append(f"request to {request.url}")
    )
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    yield page
    owned = page.evaluate("window.owned ?? null")
    page.close()
    assert owned is None, "markup from a log ran"
    assert said == []


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Iterator[Page]:
    with silent(context, site) as page:
        yield page


@pytest.fixture
def training_page(context: BrowserContext, training: Site) -> Iterator[Page]:
    with silent(context, training) as page:
        yield page
