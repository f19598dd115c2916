"""The Disagreement page in a real Chromium: presets, the lock, a rectangle on a plane, other methods, one address."""

from __future__ import annotations

import math

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web import chromium
from tests.web.chromium import drag, drawn, query, slot
from tests.web.conftest import Site

pytestmark = chromium.MARKS


@pytest.fixture
def at(page: Page, prompts_site: Site) -> str:
    """The page's address, opened."""
    address = f"{prompts_site.url}/analyses/{prompts_site.analysis}"
    page.goto(address)
    return address


def cell(page: Page, name: str) -> Locator:
    return page.locator(f'[data-text="{name}.n"]')


def shown(page: Page) -> dict[str, str]:
    """Every number and name of the page by its key, once its parts are there."""
    expect(page.locator('[data-text="ci.says"]')).to_contain_text("bootstrap")
    expect(page.locator("#live [data-later][aria-busy]")).to_have_count(0)
    found: dict[str, str] = page.evaluate(
        """Object.fromEntries([...document.querySelectorAll("#live [data-text]")].map(
            (slot, place) => [`${place} ${slot.dataset.text}`, slot.textContent]))"""
    )
    return found


def same_in_another_tab(page: Page) -> None:
    """A view is its address: opened elsewhere it shows the same."""
    here = shown(page)
    other = page.context.new_page()
    other.goto(page.evaluate("location.href"))
    assert shown(other) == here
    other.close()


def test_a_preset_moves_every_dial_and_a_dial_makes_it_custom(page: Page, at: str) -> None:
    preset = page.locator('select[name="preset"]')
    expect(preset.locator("option:checked")).to_have_text("paper-stability, as analysed")
    preset.select_option("paper-scaling")
    expect(cell(page, "positive.dppo_only_drops")).to_have_text("0")
    expect(page.locator("#eps_high")).to_have_value("0.27")
    expect(page.locator("#delta_low")).to_have_value("0.2")
    assert query(page) == {"preset": ["paper-scaling"]}
    page.locator('[data-for="eps_high"]').fill("0.2")
    expect(preset.locator("option:checked")).to_have_text("custom")
    expect(cell(page, "positive.ppo_only_drops")).to_have_text("24")  # r 2 and 1.2667 > 1.2, D .16 ≤ .2
    assert query(page) == {"preset": ["paper-scaling"], "eps_high": ["0.2"]}
    same_in_another_tab(page)
    preset.select_option("prime-rl")
    expect(page.locator("#eps_high")).to_have_value("0.28")
    assert query(page) == {"preset": ["prime-rl"]}
    page.locator('select[name="divergence"]').select_option("binary_kl")
    expect(page.locator("#delta_high")).to_have_value("0.05")
    page.locator("#reset").click()
    expect(preset.locator("option:checked")).to_have_text("paper-stability, as analysed")
    assert query(page) == {"divergence": ["binary_kl"]}


def test_the_lock_moves_delta_with_epsilon(page: Page, at: str) -> None:
    lock, delta = page.get_by_label("Match δ to ε"), page.locator("#delta_high")
    lock.check()
    expect(delta).to_be_disabled()
    expect(page.locator('[data-list="lock"]')).to_contain_text("24 tie at δ")
    assert float(delta.input_value()) == pytest.approx(0.05)
    assert query(page) == {"match": ["1"]}
    page.locator('[data-for="eps_high"]').fill("0.05")  # PPO drops all 48 with A > 0: r is at least 1.1
    expect(page.locator('[data-list="lock"]')).to_contain_text("PPO dropped 48 (100 %), DPPO 48 (100 %)")
    expect(delta).to_have_value("0")
    expect(cell(page, "positive.both_drop")).to_have_text("48")
    same_in_another_tab(page)
    lock.uncheck()
    expect(delta).to_be_enabled()
    expect(delta).to_have_value("0.15")
    assert query(page) == {"eps_high": ["0.05"]}


def test_a_rectangle_on_a_plane_selects_tokens_and_escape_clears(page: Page, at: str) -> None:
    drawn(page)
    # the upper right part of the plane: μ(a) above .5 on a logit axis, r above 1; its edge is no bound
    drag(page, "ratio_plane", (0.511, 0.45), (0.8, 0.2), (1.01, -0.01))
    expect(page.locator(".brushed")).to_be_visible()
    expect(cell(page, "positive.dppo_only_drops")).to_have_text("12")  # .6 → .76; .5 lies left of the rectangle
    expect(cell(page, "positive.both_keep")).to_have_text("0")
    found = query(page)
    assert found.keys() == {"p_low", "y_low"}
    assert 0.5 < float(found["p_low"][0]) < 0.6
    assert 1 < float(found["y_low"][0]) < 1.2
    expect(page.locator('[data-list="selected"] tr:has(a)')).to_have_count(12)
    drawn(page)
    expect(page.locator('[data-name="ratio_plane"] .selectionlayer path').first).to_be_attached()
    same_in_another_tab(page)
    page.keyboard.press("Escape")
    expect(page.locator(".brushed")).to_be_hidden()
    expect(cell(page, "positive.both_keep")).to_have_text("24")
    assert query(page) == {}
    page.go_back()
    expect(page.locator(".brushed")).to_be_visible()
    page.locator("#clear").click()
    expect(page.locator(".brushed")).to_be_hidden()


def test_a_rectangle_near_certainty_keeps_its_bounds_apart(page: Page, at: str) -> None:
    drawn(page)
    drag(page, "ratio_plane", (0.9, 0.3), (0.96, 0.6), (0.97, 0.7))
    expect(page.locator(".brushed")).to_be_visible()
    found = query(page)
    low, high = page.evaluate("document.querySelector('[data-name=ratio_plane]')._fullLayout.xaxis.range")
    for name, place in (("p_low", 0.9), ("p_high", 0.97)):
        rest = 1 / (1 + math.exp(low + place * (high - low)))  # the axis is logit p
        assert 1 - float(found[name][0]) == pytest.approx(rest, rel=0.1)  # two pixels


def test_a_selection_by_keyboard_leads_to_a_token(page: Page, at: str) -> None:
    page.locator('select[name="brush"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("0.1")
    expect(page.locator(".brushed")).to_contain_text("binary TV ≥ 0.1")
    assert query(page) == {"brush": ["divergence"], "y_low": ["0.1"]}
    expect(cell(page, "negative.both_drop")).to_have_text("12")
    expect(cell(page, "negative.ppo_only_drops")).to_have_text("0")
    first = page.locator('[data-list="selected"] tr:has(a) a').first
    expect(first).to_have_text("id 3")
    first.press("Enter")
    page.wait_for_url("**/rollout?**")
    assert query(page)["at"] == ["3"]
    assert "y_low" not in query(page)


def test_another_method_takes_the_page(page: Page, at: str) -> None:
    page.locator('select[name="second"]').select_option("ipo")
    expect(page.locator("h1")).to_have_text("Where PPO and prime-rl's IPO disagree")
    expect(page.locator(".headline").first).to_contain_text("prime-rl's IPO")
    expect(page.locator("thead", has_text="Only prime-rl's IPO").first).to_be_visible()
    drawn(page)
    expect(page.locator('[data-name="ratio_plane"]')).to_contain_text("only prime-rl's IPO")
    page.locator('[data-for="delta_high"]').fill("0.4")
    expect(page.locator('.controls [data-text="method"]')).to_contain_text("δ_high 0.4")
    expect(cell(page, "positive.dppo_only_drops")).to_have_text("12")
    assert page.locator('select[name="first"] option[value="nfpo"]').is_disabled()
    assert page.locator('select[name="first"] option[value="ipo"]').is_disabled()
    page.locator('select[name="by"]').select_option("position")
    expect(page.locator('[data-list="bins_positive"] tr:has(th)')).to_have_count(3)
    assert query(page) == {"second": ["ipo"], "delta_high": ["0.4"], "by": ["position"]}
    same_in_another_tab(page)


def test_intervals_follow_the_counts(page: Page, at: str) -> None:
    expect(page.locator('[data-text="ci.positive.ppo_only_drops.share"]')).to_have_text("[25.0, 25.0]")
    page.locator('[data-for="eps_high"]').fill("0.9")
    expect(page.locator('[data-text="ci.positive.ppo_only_drops.share"]')).to_have_text("[25.0, 25.0]")
    page.locator("#eps_high").fill("1.1")  # r is 2
    expect(page.locator('[data-text="ci.positive.ppo_only_drops.share"]')).to_have_text("[0, 0]")
    assert slot(page, "positive.ppo_only_drops.share") == "0 %"
