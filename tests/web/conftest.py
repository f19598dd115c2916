"""One server with the hand-made run, for pages over HTTP and pages in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.live import Server
from tests.web import counted, hand, story


@dataclass(frozen=True)
class Site:
    """A running server with the run of `tests.web.hand`; `empty_home` is its first page before there was any run."""

    server: Server
    analysis: str
    empty_home: str

    @property
    def url(self) -> str:
        return self.server.url

    def get(self, path: str, **settings: object) -> httpx.Response:
        """A page as a browser asks for it."""
        return httpx.get(self.url + path, headers={"accept": "text/html"}, timeout=30, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Server(tmp_path_factory.mktemp("site") / "data") as server:
        empty = httpx.get(server.url, headers={"accept": "text/html"}).text
        yield Site(server, hand.fill(server), empty)


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
