"""The pages in a real Chromium: sliders, the address, history, keys, marks, downloads."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Page, expect

from tests.web import chromium, hand, story
from tests.web.chromium import drawn, query, slot
from tests.web.conftest import Site

pytestmark = chromium.MARKS


def test_a_slider_moves_the_counts_and_the_address_holds_the_view(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{site.analysis}?step=0")
    cell = page.locator('[data-text="positive.ppo_only_drops.n"]')
    expect(cell).to_have_text("3")
    page.locator('[data-for="eps_high"]').fill("0.9")  # 1 + ε_high = 1.9 lies above 1.8, below 2.5
    expect(cell).to_have_text("0")
    expect(page.locator('[data-text="positive.both_keep.n"]')).to_have_text("8")
    expect(page.locator('[data-text="head.first"]')).to_have_text("8")  # 11 − 3
    expect(page.locator("#eps_high")).to_have_value("0.9")
    assert query(page) == {"step": ["0"], "eps_high": ["0.9"]}
    page.locator("#delta_low").fill("0.2")  # above .16
    expect(page.locator('[data-text="negative.dppo_only_drops.n"]')).to_have_text("0")
    assert query(page)["delta_low"] == ["0.2"]
    drawn(page)

    keys = [
        "head.n",
        "head.first",
        "head.second",
        "head.disputed",
        *(
            f"{sign}.{name}.{measure}"
            for sign in ("positive", "negative")
            for name in ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop", "all")
            for measure in ("n", "share", "mass", "weight")
        ),
    ]
    here = {key: slot(page, key) for key in keys}
    other = page.context.new_page()
    other.goto(page.evaluate("location.href"))
    assert {key: slot(other, key) for key in keys} == here
    assert other.locator('[data-for="eps_high"]').input_value() == "0.9"
    other.close()

    page.locator("#reset").click()
    expect(cell).to_have_text("3")
    assert query(page) == {"step": ["0"]}


def test_the_matrix_shows_what_is_asked_for(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{site.analysis}")
    page.locator(".tabs a", has_text="Methods").click()
    expect(page.locator("h1")).to_have_text("What every method would do")
    drawn(page)
    page.locator('select[name="measure"]').select_option("agreement")
    drawn(page)
    assert query(page) == {"measure": ["agreement"]}
    expect(page.locator(".matrix")).to_contain_text("alike")
    page.locator(".method summary", has_text="PPO / GRPO, from the rollout policy").click()
    expect(page.locator(".method[open]")).to_contain_text("r > 1")
    page.locator(".tabs a", has_text="Theory").click()
    expect(page.locator("h1")).to_have_text("What theory says of the step")
    assert query(page) == {}


def test_masks_against_exact_follow_delta_and_the_measure(page: Page, site: Site) -> None:
    page.goto(f"{site.exact.url}/analyses/{site.exact.two}/approximation?step=0")
    missed = page.locator('[data-text="head.binary"]')
    expect(missed).to_have_text("7")
    page.locator("#delta_high").fill("0.35")  # above T2's .3125: for A > 0 nothing is dropped any more
    expect(missed).to_have_text("4")
    assert query(page) == {"step": ["0"], "delta_high": ["0.35"]}
    expect(page.locator('[data-list="masks"] tr').first).to_contain_text("0.35")
    drawn(page)
    page.locator('select[name="divergence"]').focus()
    page.locator('select[name="divergence"]').select_option("binary_kl")
    expect(page.locator("#delta_high")).to_have_value("0.05")  # of KL
    expect(page.locator('[data-text="kind"]')).to_have_text("KL")
    assert query(page) == {"step": ["0"], "divergence": ["binary_kl"]}
    drawn(page)
    page.locator(".tabs a", has_text="Mismatch").click()
    expect(page.locator("h1")).to_have_text("Mismatch and update")
    assert query(page) == {"step": ["0"], "divergence": ["binary_kl"]}


def test_a_response_of_the_mismatch_opens_where_it_is_worst(page: Page, site: Site) -> None:
    page.goto(f"{site.exact.url}/analyses/{site.exact.two}/mismatch?step=1")
    drawn(page)
    expect(page.locator(".alert:visible")).to_contain_text("1 of 2 responses were sampled by a policy older")
    expect(page.locator('[data-text="anchor_kept"]')).to_have_text("3")
    page.locator('select[name="evaluated_at"]').select_option("start")
    expect(page.locator('[data-text="when"]')).to_have_text("at the step’s start")
    page.locator("summary", has_text="What imports said").click()
    expect(page.locator('[data-list="findings"]')).to_contain_text("a note <b>")
    page.locator('[data-list="responses"] a', has_text="up").click()
    expect(page.locator('.t[aria-selected="true"]')).to_have_id("t8")
    assert query(page) == {
        "step": ["1"],
        "sample_id": ["up"],
        "at": ["8"],
        "anchor": ["rollout"],
        "evaluated_at": ["start"],
    }


def test_choices_are_history(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{site.analysis}")
    page.locator('select[name="step"]').select_option("0")
    expect(page.locator('[data-text="head.n"]')).to_have_text("25")
    expect(page.locator('[data-list="by_step"]')).to_be_hidden()
    page.locator('select[name="divergence"]').select_option("binary_kl")
    expect(page.locator("#delta_high")).to_have_value("0.05")  # of KL, not the .15 of TV
    assert query(page) == {"step": ["0"], "divergence": ["binary_kl"]}
    page.go_back()
    expect(page.locator("#delta_high")).to_have_value("0.15")
    expect(page.locator('select[name="divergence"]')).to_have_value("binary_tv")
    page.go_back()
    expect(page.locator('[data-text="head.n"]')).to_have_text("45")  # 25 and the 20 of step 1
    expect(page.locator('[data-list="by_step"] tr')).to_have_count(2)
    exact = page.locator('select[name="divergence"] option[value="exact_tv"]')
    assert exact.is_disabled()
    assert "both full distributions" in str(exact.get_attribute("title"))


def test_only_the_last_answer_counts(page: Page, site: Site) -> None:
    """Answers that arrive late are dropped, however the server orders them."""
    page.goto(f"{site.url}/analyses/{site.analysis}?step=0")
    held: list[object] = []

    def hold(route, request):  # type: ignore[no-untyped-def]
        if "eps_high=0.9" in request.url and not held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/live?*", hold)
    page.locator('[data-for="eps_high"]').fill("0.9")
    while not held:
        page.wait_for_timeout(20)
    with page.expect_response(lambda answer: "eps_high=0.3" in answer.url and "/live" in answer.url):
        page.locator('[data-for="eps_high"]').fill("0.3")
        expect(page.locator("#eps_high")).to_have_value("0.3")
    held[0].continue_()  # type: ignore[attr-defined]
    page.wait_for_timeout(700)  # long enough for the late answer to arrive, if anyone still waited for it
    expect(page.locator('[data-text="positive.ppo_only_drops.n"]')).to_have_text("3")
    assert query(page)["eps_high"] == ["0.3"]


def test_keys_walk_the_tokens(page: Page, site: Site) -> None:
    page.goto(site.rollout("positive", 0))
    at = lambda: query(page).get("at", [None])[0]  # noqa: E731
    expect(page.locator('.t[aria-selected="true"]')).to_have_id("t5")  # the first token in dispute
    page.keyboard.press("n")
    assert at() == "6"
    expect(page.locator('#panel [data-text="position"]')).to_have_text("6")
    for _ in range(2):
        page.keyboard.press("n")
    assert at() == "8"  # only DPPO drops it
    expect(page.locator(".verdict")).to_have_text("only DPPO dropped")
    expect(page.locator('#panel [data-text="tv_binary"]')).to_have_text("0.160")
    page.keyboard.press("p")
    assert at() == "7"
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    assert at() == "9"
    page.keyboard.press("k")
    assert at() == "8"
    assert page.evaluate("document.activeElement.id") == "t8"
    page.locator('.key[data-kind="both_drop"]').click()
    assert at() == "10"
    assert page.locator("#response").get_attribute("data-only") == "both_drop"
    page.keyboard.press("?")
    expect(page.locator("#keys dl")).to_be_visible()
    page.keyboard.press("]")
    expect(page.locator("h1")).to_have_text("zero")
    page.keyboard.press("[")
    expect(page.locator("h1")).to_have_text("positive")


def test_a_permalink_opens_at_its_token_under_its_view(page: Page, site: Site) -> None:
    page.goto(site.rollout("positive", 0, "&at=6&eps_high=0.9"))
    expect(page.locator('.t[aria-selected="true"]')).to_have_id("t6")
    expect(page.locator(".verdict")).to_have_text("both kept")
    expect(page.locator('#panel [data-text="ppo"]')).to_have_text("kept it: r = 1.80 ≤ 1 + ε_high = 1.9")
    page.locator("nav .trail a", has_text="analysis").click()
    expect(page.locator("#eps_high")).to_have_value("0.9")


def test_a_mark_opens_its_response_and_a_step_opens_the_analysis(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{site.analysis}?step=0")
    drawn(page)
    page.locator(".plane .scatterlayer path.point").last.click(force=True)
    page.wait_for_url("**/rollout?**")
    assert query(page)["sample_id"][0] in ("positive", "negative")
    expect(page.locator('.t[aria-selected="true"]')).to_have_id(f"t{query(page)['at'][0]}")
    page.goto(f"{site.url}/runs/{hand.RUN}")
    drawn(page)
    page.locator('[data-name="reward"] .scatterlayer path.point').last.click(force=True)
    page.wait_for_url("**/analyses/**")
    assert query(page) == {"step": ["1"]}


def test_a_run_over_training_is_read_and_followed(training_page: Page, training: Site) -> None:
    page = training_page
    page.goto(f"{training.url}/runs/{story.RUN}")
    drawn(page)
    expect(page.locator(".headline")).to_have_text("4 of 8 steps left the range of the first 3.")
    drift = page.locator('[data-name="drift"]')
    assert rings(page, "drift") == [4, 5, 6, 7]
    point = drift.locator(".scatterlayer .trace").last.locator("path.point").first.bounding_box()
    assert point is not None
    others = page.locator('[data-name="reward"] .hovertext, [data-name="length"] .hovertext')
    page.mouse.move(point["x"] + 5, point["y"] + 5)
    expect(others).to_have_count(2)  # the same step in every panel
    page.locator(".picker summary").click()
    page.locator('.picker input[value="ipo"]').check()
    page.locator(".choose button", has_text="Show").first.click()
    page.wait_for_url("**methods=ipo**")
    expect(page.locator('[data-text="methods_shown"]')).to_have_text("PPO, DPPO, ipo")
    drawn(page)
    assert "ipo" in page.locator('[data-name="masks_negative"]').inner_text()
    expect(page.locator('.picker input[value="dppo_topk_tv_rollout"]')).to_be_disabled()
    page.locator('[data-list="marks"] a', has_text="7").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/analyses/**")
    assert query(page) == {"step": ["7"]}


def rings(page: Page, name: str) -> list[int]:
    """The steps that a panel rings."""
    data = page.locator(f'[data-name="{name}"]').evaluate("plot => plot.data.filter(line => line.name === 'marked')")
    return [step for line in data for step in line["x"]]


def test_two_steps_are_chosen_and_compared(training_page: Page, training: Site) -> None:
    page = training_page
    page.goto(f"{training.url}/analyses/{training.analysis}?step=4")
    page.get_by_role("link", name="Compare").click()
    page.wait_for_url("**/compare?**")
    page.locator('select[name="b"]').select_option(training.analysis)
    page.wait_for_url(f"**b={training.analysis}**")
    assert query(page) == {"a": [training.analysis], "a_step": ["4"], "b": [training.analysis]}
    page.locator('select[name="b_step"]').select_option("7")
    page.wait_for_url("**b_step=7**")
    drawn(page)
    cell = page.locator("table.cells tbody").nth(1).locator("tr.both_drop td")
    expect(cell).to_have_text(["0", "2", "0 %", "40.0 %", "+40.0", "0", "0"])
    assert page.locator('[data-name="compare_drift"]').inner_text().count("A") == 1
    page.get_by_role("link", name="Swap A and B").click()
    expect(cell).to_have_text(["2", "0", "40.0 %", "0 %", "−40.0", "0", "0"])
    page.locator('select[name="a"]').select_option("a0scored")
    page.wait_for_url("**a=a0scored**")
    assert query(page) == {"a": ["a0scored"], "b": [training.analysis], "b_step": ["4"]}
    expect(page.locator("ul.alert")).to_contain_text("Not comparable")
    drawn(page)


def test_a_figure_is_downloaded_as_it_is_drawn(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{site.analysis}?step=0")
    drawn(page)
    figure = page.locator("figure", has=page.locator('[data-name="ratio_plane"]'))
    figure.locator("summary", has_text="Download").click()
    with page.expect_download() as found:
        figure.get_by_role("button", name="SVG").click()
    assert found.value.suggested_filename == "ratio_plane.svg"
    assert "only DPPO" in found.value.path().read_text(encoding="utf-8")
    with page.expect_download() as found:
        figure.get_by_role("button", name="PNG").click()
    assert found.value.path().read_bytes().startswith(b"\x89PNG")
    page.locator('[data-for="eps_high"]').fill("0.9")
    expect(figure.get_by_role("link", name="SQL")).to_have_attribute("href", re.compile("eps_high=0.9.*format=sql"))


def test_an_analysis_can_be_asked_for_from_the_page(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/runs/{hand.RUN}")
    drawn(page)
    page.locator("summary", has_text="Start an analysis").click()
    page.locator('#start select[name="thresholds"]').select_option(label="paper-scaling")
    page.locator('#start select[name="source"]').select_option("logged")
    page.locator("#start button").click()
    rows = page.locator('[data-list="analyses"] tr:has(th)')
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("0.2 / 0.27")
    expect(rows.first).to_contain_text("2 / 2")
    expect(page.locator(".job[data-state=running], .job[data-state=queued]")).to_have_count(0)
    drawn(page)
    made = site.server.api.get(f"/runs/{hand.RUN}/analyses").json()[0]["analysis"]
    assert made != site.analysis
    assert site.server.api.delete(f"/analyses/{made}").status_code == 204


def test_an_analysis_that_cannot_be_is_refused_in_words(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(f"{site.url}/runs/{hand.RUN}")
    page.locator("summary", has_text="Start an analysis").click()
    page.locator("#start button").click()  # no checkpoints to score
    expect(page.locator("#start-error")).to_contain_text("no pair of checkpoints")
    page.close()
