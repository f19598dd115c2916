"""The tokens page: its numbers worked on paper in `tests.web.counted`, its search, its places, its keys."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web import chromium, counted
from tests.web.chromium import drawn, query
from tests.web.conftest import Site
from tests.web.counted import page as fetch
from tests.web.counted import table
from tests.web.hand import HOSTILE
from tests.web.test_pages import Parsed


def test_most_clipped_by_count(counted_site: Site) -> None:
    rows = table(counted_site, "most_clipped", step=0)
    assert [(row["token"], row["sign"], row["n"], row["n_ppo"], row["n_dppo"], row["n_disputed"]) for row in rows] == [
        ("the", 1, 10, 2, 0, 2),
        (" wait", 1, 4, 2, 1, 3),
        (" wait", -1, 1, 1, 1, 0),
        (" Wait", 1, 6, 0, 0, 0),
        ("the", -1, 3, 0, 0, 0),
    ]
    wait = rows[1]
    # 2 of 4: (2 + z²/2 ± z √(2·2/4 + z²/4)) / (4 + z²) = (3.92073 ± 2.74420) / 7.84146
    assert (wait["ppo_low"], wait["ppo_high"]) == pytest.approx((0.150039, 0.849961), abs=1e-5)
    assert (wait["rate"], wait["base_rate"]) == (0.5, 0.2)  # 4 of 20 with A > 0
    assert wait["enrichment"] == 2.5
    assert (wait["enrichment_low"], wait["enrichment_high"]) == pytest.approx((0.750195, 4.249805), abs=5e-5)
    assert wait["mean_p"] == pytest.approx((0.01 + 0.01 + 0.7 + 0.5) / 4)
    assert wait["mean_p_dropped"] == pytest.approx(0.01)
    assert wait["mean_entropy"] is None
    assert [row["n_prompts"] for row in rows] == [1, 2, 1, 0, 0]
    assert {row["n_rows"] for row in rows} == {5}
    never = rows[3]
    assert (never["ppo_low"], never["ppo_high"]) == pytest.approx((0.0, 0.390334), abs=1e-5)  # z²/(6 + z²)
    assert rows[2]["base_rate"] == 0.25


@pytest.mark.parametrize(
    ("method", "first", "rate", "base"),
    [("ppo", "the", 0.2, 0.2), ("dppo", " wait", 0.25, 0.05), ("disputed", " wait", 0.75, 0.25)],
)
def test_every_method_has_its_base_rate(counted_site: Site, method: str, first: str, rate: float, base: float) -> None:
    row = table(counted_site, "most_clipped", step=0, sign=1, method=method)[0]
    assert (row["token"], row["rate"], row["base_rate"]) == (first, rate, base)


def test_enrichment_ranks_by_the_lower_end_among_tokens_that_occur_often_enough(counted_site: Site) -> None:
    found = table(counted_site, "most_clipped", step=0, order="enrichment", least=1)
    # lower ends over the base rate: "wait" −, 1 of 1 over .25: .20655/.25 = .826; "wait" +: .750; "the" +: .0567/.2
    assert [(row["token"], row["sign"]) for row in found][:3] == [(" wait", -1), (" wait", 1), ("the", 1)]
    assert [row["enrichment_low"] for row in found][:3] == pytest.approx([0.8262, 0.7502, 0.2834], abs=1e-4)
    assert [row["token"] for row in table(counted_site, "most_clipped", step=0, order="enrichment", least=4)] == [
        " wait",
        "the",
        " Wait",
    ]
    assert [row["n"] for row in table(counted_site, "most_clipped", step=0, order="enrichment")] == [10]


def test_the_search_is_literal(counted_site: Site) -> None:
    def found(**query: Any) -> set[str]:
        return {row["token"] for row in table(counted_site, "most_clipped", **query)}

    assert found(q="WAIT") == {" wait", " Wait"}
    assert found(q="Wait", cased="1") == {" Wait"}
    assert found(q=" ") == {" wait", " Wait"}
    assert found(q=f"#{counted.CAPITAL}") == {" Wait"}
    assert found(q="%") == found(q="_") == found(q="'") == set()
    assert found(q=".") == {HOSTILE}
    assert found(q="<script>") == {HOSTILE}
    base = {row["base_ppo"] for row in table(counted_site, "most_clipped", step=0, sign=1, q="the")}
    assert base == {0.2}  # a search changes no rate


def test_places_of_a_token_with_the_text_around_them(counted_site: Site) -> None:
    rows = table(counted_site, "token_places", step=0, token_id=counted.WAIT, method="dppo")
    assert [(row["sample_id"], row["position"], row["cell"], row["drops"]) for row in rows] == [
        ("below", 3, "both_drop", True),  # |π − μ| = .3
        ("first", 3, "dppo_only_drops", True),  # .16
        ("still", 0, "no_gradient", False),  # .3
        ("second", 9, "both_keep", False),  # .05
        ("first", 2, "ppo_only_drops", False),  # .008
        ("second", 8, "ppo_only_drops", False),
        ("second", 15, "unknown", False),
    ]
    assert (rows[1]["before"], rows[1]["after"]) == ("thethe wait", " Wait")
    assert rows[2]["before"] is rows[2]["after"] is None
    assert rows[5]["before"] == "the" * 6  # no more than six tokens
    assert rows[1]["ratio"] == pytest.approx(0.86 / 0.7)
    assert rows[1]["divergence"] == pytest.approx(0.16)
    assert {row["n_rows"] for row in rows} == {7}


def test_dropped_tokens_against_all(counted_site: Site) -> None:
    rows = {(row["sign"], row["method"]): row for row in table(counted_site, "clipped_summary", step=0)}
    assert [rows[1, method]["n"] for method in ("all", "ppo", "dppo", "disputed")] == [20, 4, 1, 5]
    assert rows[1, "all"]["mean_p"] == pytest.approx((15 * 0.5 + 4 * 0.01 + 0.7) / 20)
    assert rows[1, "ppo"]["mean_p"] == pytest.approx(0.01)
    assert rows[1, "dppo"]["mean_p"] == pytest.approx(0.7)
    assert rows[1, "disputed"]["mean_p"] == pytest.approx((4 * 0.01 + 0.7) / 5)
    assert (rows[-1, "ppo"]["rate"], rows[-1, "disputed"]["n"]) == (0.25, 0)
    assert rows[-1, "disputed"]["mean_p"] is None
    assert {row["mean_entropy"] for row in rows.values()} == {None}
    assert table(counted_site, "clipped_summary", step=0, sign=0) == []


def test_clipped_probability_by_side(counted_site: Site) -> None:
    rows = table(counted_site, "clipped_probability", step=0)
    # 25 bins of ln(p/(1 − p)) in ±9.21: .01 → −4.595 in bin 6, .5 → 0 in bin 12, .7 → .847 in bin 13
    assert [(row["x_bin"], row["n"], row["n_ppo"], row["n_dppo"]) for row in rows if row["sign"] == 1] == [
        (6, 4, 4, 0),
        (12, 15, 0, 0),
        (13, 1, 0, 1),
    ]
    assert rows[0]["x"] == pytest.approx(-9.2102404 + 6.5 * 2 * 9.2102404 / 25)
    assert (rows[0]["share"], rows[0]["share_ppo"], rows[0]["share_dppo"]) == (0.2, 1.0, 0.0)


def test_the_page_says_it_in_words_and_opens_places(counted_site: Site) -> None:
    text = fetch(counted_site, "tokens", step=0, token_id=counted.WAIT).text
    found = Parsed(text)
    assert found.slots["positive.said"] == (
        "PPO dropped 4 of the 20 tokens with A\u00a0>\u00a00 (20.0 %): they were less likely under μ "
        "(mean 0.0100 against 0.412 over all)."
    )
    assert found.slots["positive.ppo.share"] == "20.0 %"
    assert found.slots["negative.ppo.entropy"] == "–"
    assert "no model was scored" in text
    assert "1–5 of 5" in text
    assert "1–7 of 7" in text
    (place,) = [href for href, _ in found.links if "sample_id=still" in href]
    assert "at=0" in place
    assert (
        fetch(counted_site, "tokens/live", step=0, token_id=counted.WAIT).json()["positive.said"]
        == found.slots["positive.said"]
    )


def test_pages_of_a_list(counted_site: Site) -> None:
    rows = fetch(counted_site, "tokens/live", step=0, first=4).json()
    assert [row["token"] for row in rows["rows"]] == ["the"]
    assert rows["range"] == "5–5 of 5"
    assert (rows["later"], "first" in rows["earlier"]) == ("", False)
    beyond = fetch(counted_site, "tokens/live", step=0, first=500).json()
    assert (beyond["rows"], beyond["nothing_to_rank"]) == ([], True)


def test_nothing_to_show_says_why(counted_site: Site) -> None:
    nothing = fetch(counted_site, "tokens/live", q="zebra").json()
    assert (nothing["nothing_found"], nothing["has_rows"], nothing["has_tokens"]) == (True, False, True)
    zero = fetch(counted_site, "tokens/live", sign=0).json()
    assert (zero["no_gradient"], zero["has_tokens"], zero["no_tokens"]) == (True, False, False)
    unknown = fetch(counted_site, "tokens/live", divergence="exact_tv").json()
    assert (unknown["no_tokens"], unknown["has_tokens"]) == (True, False)
    for name in ("most_clipped", "clipped_probability"):
        figure = counted_site.server.api.get(
            f"/analyses/{counted_site.analysis}/figures/{name}?divergence=exact_tv"
        ).json()
        assert figure["data"] == []


@pytest.mark.parametrize("query", ["method=grpo", "order=x", "first=-1", "least=0", "token_id=x", "q=" + "x" * 201])
def test_a_list_that_cannot_be_is_refused(counted_site: Site, query: str) -> None:
    assert counted_site.get(f"/analyses/{counted_site.analysis}/tokens?{query}").status_code == 422


def test_markup_is_text_on_the_tokens_page(counted_site: Site) -> None:
    answer = fetch(counted_site, "tokens", q="<", token_id=counted.TURNED)
    assert HOSTILE not in answer.text
    assert Parsed(answer.text).inline == []
    assert "‹202E›evil" in answer.text
    assert "\u202e" not in answer.text
    figure = counted_site.server.api.get(f"/analyses/{counted_site.analysis}/figures/most_clipped").text
    assert "<script" not in figure


def marked(test: Any) -> Any:
    """A test in a real Chromium."""
    for mark in chromium.MARKS:
        test = mark(test)
    return test


@marked
def test_the_search_follows_the_typing_and_the_address(page: Page, counted_site: Site) -> None:
    page.goto(f"{counted_site.url}/analyses/{counted_site.analysis}/tokens?step=0&first=2")
    drawn(page)
    page.locator("#q").fill("wai")
    expect(page.locator('[data-list="rows"] th a')).to_have_text(["␣wait", "␣wait", "␣Wait"])
    assert query(page) == {"step": ["0"], "q": ["wai"]}
    page.locator('select[name="cased"]').select_option("1")
    page.locator("#q").fill("Wai")
    expect(page.locator('[data-list="rows"] th a')).to_have_count(1)
    page.locator("#q").fill(f"#{counted.THE}")
    expect(page.locator('[data-list="rows"] th a').first).to_have_text("the")
    page.locator("#q").fill("zebra")
    expect(page.get_by_text("No token of this view holds that text")).to_be_visible()
    page.go_back()  # to before the letters mattered
    expect(page.locator('select[name="cased"]')).to_have_value("")
    drawn(page)


@marked
def test_a_token_opens_its_places_and_a_place_its_response(page: Page, counted_site: Site) -> None:
    page.goto(f"{counted_site.url}/analyses/{counted_site.analysis}/tokens?step=0&method=dppo")
    drawn(page)
    page.locator('[data-list="rows"] a', has_text="wait").first.click()
    expect(page.locator("#places")).to_be_focused()
    expect(page.locator('[data-list="places"] tr:has(th)')).to_have_count(7)
    assert query(page)["token_id"] == [str(counted.WAIT)]
    page.locator('[data-list="places"] a', has_text="first").first.click()
    page.wait_for_url("**/rollout?**")
    expect(page.locator('.t[aria-selected="true"]')).to_have_id("t3")
    page.go_back()
    expect(page.locator('[data-list="places"] tr:has(th)')).to_have_count(7)
    page.go_back()
    drawn(page)
    page.locator(".ladder .scatterlayer path.point").last.click(force=True)
    expect(page.locator("#places")).to_be_focused()


@marked
def test_the_keyboard_alone_finds_a_token_and_reads_it(page: Page, counted_site: Site) -> None:
    page.goto(f"{counted_site.url}/analyses/{counted_site.analysis}/tokens?step=1")
    drawn(page)

    def tab_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#q")
    page.keyboard.type("<script")
    expect(page.locator('[data-list="rows"] th a')).to_have_text([HOSTILE])
    tab_to('[data-list="rows"] a')
    page.keyboard.press("Enter")
    expect(page.locator("#places")).to_be_focused()
    tab_to('[data-list="places"] a')
    page.keyboard.press("Enter")
    page.wait_for_url("**/rollout?**")
    tab_to('.t[aria-selected="true"]')
    page.keyboard.press("k")
    expect(page.locator(".verdict")).to_have_text("only PPO dropped")
    assert query(page)["at"] == ["0"]
