"""The reader: turns, siblings, metrics and long responses, worked on paper in `tests.web.counted`."""

from __future__ import annotations

import json
import math
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.web import counted
from tests.web.chromium import drawn, query
from tests.web.conftest import Site
from tests.web.counted import page as fetch
from tests.web.counted import table
from tests.web.test_tokens import marked


def test_turns_of_a_response(counted_site: Site) -> None:
    rows = table(counted_site, "turns", step=1, sample_id="rounds")
    assert [(row["turn"], row["first_position"], row["n"], row["n_ppo"], row["n_dppo"]) for row in rows] == [
        (0, 0, 2, 0, 0),  # turn 1 is masked
        (2, 3, 3, 1, 1),
    ]
    assert rows[0]["mean_abs_dp"] == pytest.approx(0.05)
    assert rows[1]["mean_abs_dp"] == pytest.approx((0.008 + 0.16 + 0.05) / 3)
    assert rows[1]["mean_mismatch"] == 0  # the log's own old_logprobs are μ's
    assert [row["n_disputed"] for row in rows] == [0, 2]
    text = fetch(counted_site, "rollout", step=1, sample_id="rounds").text
    assert "turn 2" in text
    assert "33.3 %" in text
    assert 'id="turns"' not in fetch(counted_site, "rollout", step=0, sample_id="first").text


def test_siblings_are_the_prompt_s_responses_best_first(counted_site: Site) -> None:
    rows = table(counted_site, "siblings", step=1, sample_id="long")
    assert [(row["sample_id"], row["n_ppo_only"], row["n_dppo_only"], row["n_both"]) for row in rows] == [
        ("short", 1, 0, 0),
        ("long", 2, 1, 0),
    ]
    assert [row["response_tokens"] for row in rows] == [3, counted.LONG]
    pair = fetch(counted_site, "rollout", step=1, sample_id="long", beside="short").text
    assert 'id="b2"' in pair
    assert "\u202e" not in pair
    other = counted_site.get(f"/analyses/{counted_site.analysis}/rollout?step=1&sample_id=long&beside=rounds")
    assert other.status_code == 404
    assert "not a response to the same prompt" in other.text


def test_a_metric_reaches_as_far_as_99_percent_of_the_step_s_counted_tokens(counted_site: Site) -> None:
    # step 0 has 23 counted tokens with a known ratio, |ln r| in order: 18 × ln 1.1 or −ln .9 …, the largest ln 2 twice
    magnitudes = sorted(
        [math.log(1.1)] * 15 + [math.log(1.8)] * 4 + [math.log(0.86 / 0.7)] + [-math.log(0.9)] * 3 + [math.log(2)] * 2
    )
    at = 0.99 * (len(magnitudes) - 1)  # linear interpolation between neighbours
    below = math.floor(at)
    reach = magnitudes[below] + (at - below) * (magnitudes[below + 1] - magnitudes[below])
    assert reach == pytest.approx(math.log(2))
    text = fetch(counted_site, "rollout", step=0, sample_id="below", metric="ratio").text
    assert "×0.500" in text
    assert "×2.00" in text
    assert "99 % of the 26 counted tokens of step 0 (known for 25)" in text
    assert text.count('class="t both_drop fall6"') == 1  # ln .5 is as deep as it gets
    assert text.count('class="t both_keep fall1"') == 3  # 6 ln .9 / ln 2 = −.91
    one_sided = fetch(counted_site, "rollout", step=0, sample_id="second", metric="tv_binary").text
    # .3 twice, .16, then .05s: the reach is .3; 6 · .05/.3 = 1, 6 · .008/.3 = .16
    assert one_sided.count('class="t both_keep rise1"') == 14
    assert one_sided.count('class="t ppo_only_drops"') == 1
    assert one_sided.count('class="t masked"') == 1
    missing = fetch(counted_site, "rollout", step=0, sample_id="first", metric="entropy_old").text
    assert "Not known here: no checkpoint was scored" in missing


def test_one_token_s_numbers_and_the_text(counted_site: Site) -> None:
    (row,) = table(counted_site, "token", step=0, sample_id="first", at=3)
    assert (row["token"], row["cell"], row["logp_anchor"]) == (" wait", "dppo_only_drops", pytest.approx(math.log(0.7)))
    answer = fetch(counted_site, "rollout/text", step=0, sample_id="first")
    assert (answer.text, answer.headers["content-type"]) == ("thethe wait wait Wait", "text/plain; charset=utf-8")
    assert counted_site.get(f"/analyses/{counted_site.analysis}/rollout/text?step=0&sample_id=none").status_code == 404


def test_a_long_response_comes_by_the_block(counted_site: Site) -> None:
    answer = fetch(counted_site, "rollout", step=1, sample_id="long", at=7000)
    assert len(answer.content) < 700_000
    assert answer.text.count('role="option"') == 1536
    assert 'id="t6656"' in answer.text  # the block of 7000 is 6656 … 7167, with one on either side
    assert 'aria-selected="true" aria-posinset="7001" aria-setsize="8192"' in answer.text
    assert "at=6143" in answer.text  # earlier tokens, without JavaScript
    assert "at=7680" in answer.text
    block = fetch(counted_site, "rollout/block", step=1, sample_id="long", first=8000, size=8192)
    assert block.text.count('role="option"') == 192
    assert not block.text.startswith(("\n", " "))
    panels = fetch(counted_site, "rollout/tokens", step=1, sample_id="long", first=7000, limit=2).json()
    assert [panel["verdict"] for panel in panels] == ["only DPPO dropped", "both kept"]


def test_the_strip_of_a_long_response_says_what_it_leaves_out(counted_site: Site) -> None:
    rows = table(counted_site, "strip", step=1, sample_id="long", limit=10_000)
    places = {row["position"] for row in rows}
    assert set(counted.FAR) <= places
    assert 250 <= len(rows) <= 253  # one a stretch, for its first token is the largest of equals; and the dropped
    answer = counted_site.server.api.get(
        f"/analyses/{counted_site.analysis}/figures/strip?step=1&sample_id=long&metric=advantage"
    )
    assert len(answer.content) < 300_000
    notes = [note["text"] for note in answer.json()["layout"]["annotations"]]
    assert any(f"{len(rows)} of 8,192 tokens" in note for note in notes)
    short = counted_site.server.api.get(
        f"/analyses/{counted_site.analysis}/figures/strip?step=1&sample_id=rounds"
    ).json()
    assert not any("tokens:" in note["text"] for note in short["layout"]["annotations"])


def address(site: Site, sample: str, step: int, more: str = "") -> str:
    return f"{site.url}/analyses/{site.analysis}/rollout?step={step}&sample_id={quote(sample)}{more}"


@marked
def test_the_text_changes_its_colours_in_place(page: Page, counted_site: Site) -> None:
    page.goto(address(counted_site, "below", 0, "&at=1"))
    drawn(page)
    select = page.locator('select[name="metric"]')
    select.select_option("ratio")
    expect(page.locator("#response")).to_have_attribute("data-metric", "ratio")
    expect(page.locator("#t3")).to_have_class("t both_drop fall6")
    expect(page.locator(".ramp")).to_contain_text("×2.00")
    assert query(page) == {"step": ["0"], "sample_id": ["below"], "at": ["1"], "metric": ["ratio"]}
    expect(page.locator('.t[aria-selected="true"]')).to_have_id("t1")
    drawn(page)
    select.select_option("kl_binary")
    expect(page.locator(".strip")).to_contain_text("binary KL")
    page.locator("#t3").click()
    expect(page.locator(".verdict")).to_have_text("both dropped")
    assert page.locator('select[name="metric"] option[value="entropy_new"]').is_disabled()
    select.select_option("decision")
    expect(page.locator(".ramp")).to_have_count(0)
    assert query(page) == {"step": ["0"], "sample_id": ["below"], "at": ["3"]}
    drawn(page)


@marked
def test_a_sibling_is_read_beside_a_response(page: Page, counted_site: Site) -> None:
    page.goto(address(counted_site, "long", 1))
    page.get_by_role("link", name="Read short beside this one").click()
    expect(page.locator("#beside h2")).to_have_text("short")
    expect(page.locator("#other .t")).to_have_count(3)
    expect(page.locator("#other #b0")).to_have_class("t ppo_only_drops")
    page.locator('.key[data-kind="ppo_only_drops"]').click()
    expect(page.locator("#other")).to_have_attribute("data-only", "ppo_only_drops")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    left, right = (page.locator(text).bounding_box() for text in ("#this", "#beside"))
    assert left is not None
    assert right is not None
    assert right["y"] >= left["y"] + left["height"]  # one below the other
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("#b2").click()
    page.wait_for_url("**sample_id=short**")
    expect(page.locator('#response .t[aria-selected="true"]')).to_have_id("t2")
    expect(page.locator("#beside h2")).to_have_text("long")
    page.get_by_role("link", name="put it away").click()
    expect(page.locator("#beside")).to_have_count(0)
    drawn(page)


@marked
def test_what_is_copied(page: Page, context: BrowserContext, counted_site: Site) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=counted_site.url)
    page.goto(address(counted_site, "first", 0, "&at=3"))
    drawn(page)

    def copied(name: str) -> str:
        page.evaluate("navigator.clipboard.writeText('')")
        button = page.get_by_role("button", name=name)
        button.click()
        expect(page.locator("p, form", has=button).last.locator("output")).to_have_text("Copied.")
        while not (found := str(page.evaluate("navigator.clipboard.readText()"))):
            page.wait_for_timeout(20)
        return found

    page.keyboard.press("j")
    assert copied("link to this token") == address(counted_site, "first", 0, "&at=4")
    row = json.loads(copied("numbers as JSON"))
    assert (row["position"], row["token"], row["cell"]) == (4, " Wait", "both_keep")
    names, values = (line.split("\t") for line in copied("TSV").split("\n"))
    assert dict(zip(names, values, strict=True))["log_ratio"] == str(row["log_ratio"])
    assert copied("Copy the response") == "thethe wait wait Wait"


@marked
def test_a_long_response_is_walked_to_its_ends(page: Page, counted_site: Site) -> None:
    page.goto(address(counted_site, "long", 1, "&at=7000"))
    tokens = page.locator("#response .t")
    expect(tokens).to_have_count(1536)
    chosen = page.locator('.t[aria-selected="true"]')
    expect(chosen).to_be_in_viewport()
    page.keyboard.press("n")
    expect(chosen).to_have_id("t8100")
    expect(tokens).to_have_count(2048)
    expect(page.locator('.more[data-side="later"]')).to_be_hidden()
    page.keyboard.press("p")
    page.keyboard.press("p")
    expect(chosen).to_have_id("t100")  # far from what was on the page: its own block alone
    expect(tokens).to_have_count(512)
    expect(page.locator('.more[data-side="earlier"]')).to_be_hidden()
    page.get_by_role("link", name="7,680 later tokens").click()
    expect(tokens).to_have_count(1024)
    assert page.locator("#response .t").evaluate_all("all => all.every((t, place) => t.id === `t${place}`)")
    page.locator("#t1023").click()
    page.keyboard.press("j")
    expect(chosen).to_have_id("t1024")
    expect(chosen).to_be_focused()
    assert query(page)["at"] == ["1024"]
    expect(page.locator('#panel [data-text="position"]')).to_have_text("1024")
    drawn(page)
