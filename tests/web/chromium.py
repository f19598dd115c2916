"""What the tests with a browser share: where it is, and how they read a page."""

from __future__ import annotations

import shutil
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="no chromium on PATH: apt-get install chromium"),
]
expect.set_options(timeout=60_000)  # a machine with other tests on it takes longer than the 5 s that are the default


def drawn(page: Page) -> None:
    """Wait until every figure on show is drawn."""
    for place in range(page.locator("[data-figure]").count()):
        plot = page.locator("[data-figure]").nth(place)
        if plot.is_visible():
            expect(plot.locator(".main-svg").first).to_be_attached()
            expect(plot).not_to_have_attribute("aria-busy", "true")


def slot(page: Page, name: str) -> str:
    return page.locator(f'[data-text="{name}"]').first.inner_text()


def query(page: Page) -> dict[str, list[str]]:
    """The address as the page itself sees it now; `page.url` follows replaceState only when an event arrives."""
    return parse_qs(urlsplit(page.evaluate("location.href")).query)


def drag(page: Page, figure: str, *places: tuple[float, float]) -> None:
    """Draw over a figure with the mouse: from the first place to the last, as shares of its width and height."""
    layer = page.locator(f'[data-name="{figure}"] .nsewdrag')
    layer.scroll_into_view_if_needed()
    box = layer.bounding_box()
    assert box is not None
    for count, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if count == 0:
            page.mouse.down()
    page.mouse.up()
