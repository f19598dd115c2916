"""Every page in a real Chromium: themes, widths, axe, paper, markup that must stay text, and no JavaScript at all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.live import Server
from tests.web import chromium, hand
from tests.web.chromium import drawn, query
from tests.web.conftest import Site

pytestmark = chromium.MARKS


PAGES = {
    "runs": lambda site: site.url,
    "run": lambda site: f"{site.url}/runs/{hand.RUN}",
    "disagreement": lambda site: f"{site.url}/analyses/{site.analysis}",
    "tokens": lambda site: f"{site.url}/analyses/{site.analysis}/tokens?token_id=3",
    "rollout": lambda site: site.rollout("positive", 0),
    "pair of responses": lambda site: site.rollout("negative", 0, "&beside=positive&metric=ratio"),
    "approximation": lambda site: f"{site.exact.url}/analyses/{site.exact.two}/approximation?step=0",
    "approximation-logged": lambda site: f"{site.url}/analyses/{site.analysis}/approximation",
    "mismatch": lambda site: f"{site.exact.url}/analyses/{site.exact.two}/mismatch?step=1",
    "methods": lambda site: f"{site.url}/analyses/{site.analysis}/methods",
    "theory": lambda site: f"{site.url}/analyses/{site.analysis}/theory",
    "nothing to compare yet": lambda site: f"{site.url}/compare",
    "compare": lambda site: f"{site.url}/compare?a={site.analysis}&a_step=0&b={site.analysis}&b_step=1",
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_in_both_themes_and_widths(page: Page, site: Site, name: str) -> None:
    page.goto(PAGES[name](site))
    drawn(page)
    papers = {}
    for theme in ("light", "dark"):
        if theme == "dark":
            page.locator("#theme").click()
            drawn(page)
        papers[theme] = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert serious(page) == []
    assert papers == {"light": "rgb(253, 252, 249)", "dark": "rgb(22, 23, 25)"}
    assert page.evaluate("localStorage.getItem('dppo-theme')") == "dark"
    page.locator("#theme").click()  # the profile is shared: leave it light
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_logging_in_and_errors_keep_nobody_out(
    browser: Browser, tmp_path: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    with Server(tmp_path / "data", env={"DPPO_TOKEN": "secret"}) as server:
        page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844}).new_page()
        page.goto(f"{server.url}/runs/none")
        assert "/login" in page.url
        assert serious(page) == []
        page.locator("input[type=password]").fill("secret")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_be_visible()
        page.wait_for_url("**/runs/none")
        expect(page.locator("main")).to_contain_text("there is no run")
        assert serious(page) == []
        page.goto(server.url)  # before there is any run
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.context.close()


def test_paper_is_white(page: Page, site: Site) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(PAGES["disagreement"](site))
    page.evaluate("localStorage.removeItem('dppo-theme')")  # what was chosen by hand would outlast the system's
    page.reload()
    drawn(page)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 28, 26)"
    plot = page.locator('[data-name="ratio_plane"]')
    assert "invert" in plot.evaluate("plot => getComputedStyle(plot).filter")
    page.emulate_media(media="screen")
    assert plot.evaluate("plot => getComputedStyle(plot).filter") == "none"
    page.emulate_media(media="screen", color_scheme="light")
    page.reload()
    drawn(page)
    page.emulate_media(media="print")
    assert plot.evaluate("plot => getComputedStyle(plot).filter") == "none"


def serious(page: Page) -> list[str]:
    """What axe finds that keeps someone out: rule and the elements that break it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {'; '.join(node['html'][:200] for node in rule['nodes'][:3])}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


def test_markup_is_text_and_runs_nothing(page: Page, site: Site) -> None:
    page.goto(site.rollout(hand.HOSTILE_ID, 1))
    drawn(page)
    expect(page.locator("h1")).to_contain_text(hand.HOSTILE)
    expect(page.locator("#response")).to_contain_text(hand.HOSTILE)
    place = hand.PIECES.index(hand.HOSTILE)
    page.locator(f"#t{place}").hover()
    expect(page.locator(".piece")).to_have_text(hand.HOSTILE)
    assert page.locator("#response img, #response script, #response a").count() == 0
    points = page.locator(".strip .scatterlayer path.point")
    points.nth(place).hover(force=True)
    expect(page.locator(".strip .hovertext")).to_contain_text("<script>")
    assert page.locator(".strip .hovertext a").count() == 0
    page.goto(f"{site.url}/analyses/{site.analysis}?step=1")
    drawn(page)
    link = page.locator('[data-list="rollouts"] a').first
    expect(link).to_contain_text(hand.HOSTILE[:12])
    link.click()
    expect(page.locator("h1")).to_contain_text(hand.HOSTILE)
    page.goto(f"{site.url}/runs/{hand.RUN}")
    expect(page.locator(".facts")).to_contain_text(hand.HOSTILE)


def test_without_javascript_the_numbers_are_there(browser: Browser, site: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/analyses/{site.analysis}?step=0")
    page.locator("#eps_high").fill("0.9")
    page.locator("#view button[type=submit]").click()
    expect(page.locator('[data-text="positive.ppo_only_drops.n"]')).to_have_text("0")
    assert query(page)["eps_high"] == ["0.9"]
    page.goto(site.rollout("positive", 0, "&at=10"))
    expect(page.locator(".verdict")).to_have_text("both dropped")
    context.close()
