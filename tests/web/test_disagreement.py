"""The Disagreement page over HTTP: presets, the lock, intervals, selections, bins, other methods; worked on paper."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dppo_core.methods.catalog import METHODS, PRESETS
from service.api.pages.compared import matched
from tests.web.conftest import Site
from web import words

CELLS = ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop")
Model = dict[str, Any]


def live(site: Site, query: str = "", page: str = "live") -> Model:
    answer = site.get(f"/analyses/{site.analysis}/{page}?{query}")
    assert answer.status_code == 200, answer.text
    found: Model = answer.json()
    return found


def counts(model: Model) -> tuple[list[object], list[object]]:
    """Tokens of the four cells, A > 0 and A < 0."""
    positive, negative = ([model[f"{sign}.{cell}.n"] for cell in CELLS] for sign in ("positive", "negative"))
    return positive, negative


def chosen(model: Model, name: str) -> tuple[str, str]:
    """Value and label of what a select shows."""
    options = model["options"]
    (option,) = (entry for entry in options[name] if entry["selected"])
    return option["value"], option["label"]


def test_every_preset_has_a_name_on_the_page() -> None:
    assert words.PRESETS.keys() == PRESETS.keys()
    assert words.PRESET_NOTES.keys() <= PRESETS.keys()


def test_a_preset_sets_every_threshold(prompts_site: Site) -> None:
    assert counts(live(prompts_site)) == (["24", "12", "12", "0"], ["24", "12", "0", "12"])
    scaling = live(prompts_site, "preset=paper-scaling")  # r 1.2667 ≤ 1.27 and D .16 ≤ .2: that token is kept by both
    assert counts(scaling) == (["36", "12", "0", "0"], ["24", "12", "0", "12"])
    assert chosen(scaling, "preset") == ("paper-scaling", "paper-scaling")
    assert scaling["weight"] == "C = 5"
    trl = live(prompts_site, "preset=trl")  # r 1.2667 > 1.2 and D .16 > .15: dropped by both
    assert counts(trl) == (["24", "12", "0", "12"], ["24", "12", "0", "12"])
    kl = live(prompts_site, "preset=trl&divergence=binary_kl")
    assert kl["controls"] == {"eps_low": 0.2, "eps_high": 0.2, "delta_low": 0.15, "delta_high": 0.15}
    verl = live(prompts_site, "preset=verl")
    assert (verl["controls"], verl["weight"]) == (
        {"eps_low": 0.2, "eps_high": 0.2, "delta_low": 0.2, "delta_high": 0.2},
        "C = 3",
    )
    assert live(prompts_site, "preset=zaya1-8b")["controls"] == {
        "eps_low": 0.2,
        "eps_high": 0.28,
        "delta_low": 0.1,
        "delta_high": 0.1,
    }


def test_a_dial_that_moves_makes_a_preset_custom(prompts_site: Site) -> None:
    assert chosen(live(prompts_site), "preset") == ("", "paper-stability, as analysed")
    assert chosen(live(prompts_site, "eps_high=0.5"), "preset") == ("", "custom")
    moved = live(prompts_site, "preset=verl&eps_high=0.5")
    assert chosen(moved, "preset") == ("verl", "custom")  # it keeps the others: C and the dual clip too
    assert moved["weight"] == "C = 3"
    defaults = moved["defaults"]
    assert (defaults["eps_high"], defaults["delta_low"]) == (0.2, 0.2)  # where the dials go back to
    # all thresholds of a preset, one by one, are that preset
    assert chosen(live(prompts_site, "delta_low=0.2&delta_high=0.2"), "preset") == ("prime-rl", "prime-rl")


def test_the_lock_says_what_it_achieves_and_what_it_cannot(prompts_site: Site) -> None:
    """A > 0: PPO drops 12; away from 1 are D = .16 (12), .05 (24), .02 (12): the 13th largest is .05, 12 lie above.
    A < 0: PPO drops 24; away are .3 (12), .05 (24), .01 (12): the 25th largest is .05, which 24 tokens have.
    """
    model = live(prompts_site, "match=1")
    assert counts(model) == (["24", "12", "12", "0"], ["24", "12", "0", "12"])
    lines = [entry["message"] for entry in model["lock"]]
    tied = "24 tie at δ, where a strict mask keeps them"
    assert lines == [
        "A > 0: of 48 tokens PPO dropped 12 (25.0 %), DPPO 12 (25.0 %) at δ_high = 0.0500.",
        f"A < 0: of 48 tokens PPO dropped 24 (50.0 %), DPPO 12 (25.0 %) at δ_low = 0.0500; {tied}.",
    ]
    assert chosen(model, "preset")[1] == "custom"
    for query, says in (
        ("eps_high=5", "PPO dropped 0 (0 %), DPPO 0 (0 %) at δ_high = 0.160"),  # the largest D
        ("eps_high=0", "PPO dropped 48 (100 %), DPPO 48 (100 %) at δ_high = 0."),
    ):
        assert says in live(prompts_site, f"match=1&{query}")["lock"][0]["message"]


def test_a_lock_that_no_delta_can_hold() -> None:
    """With dual clip PPO also drops tokens that move toward r = 1; of A < 0 nothing is there to match."""
    at = {"match": "1", "evaluated_at": "end", "delta_low": 0.15, "matched": {}}
    at["matched"] = {1: {"n": 10, "n_ppo": 4, "n_dppo": 3, "delta": 0.0, "n_tied": 1}}
    says = [entry["message"] for entry in matched(at)["lock"]]
    why = "no δ drops more, since DPPO never drops an update toward r = 1, nor one with D = 0"
    assert says == [
        f"A > 0: of 10 tokens PPO would drop 4 (40.0 %), DPPO 3 (30.0 %) at δ_high = 0: {why}.",
        "A < 0: no token to match on; δ_low stays at 0.15.",
    ]


def test_links_away_from_a_locked_view_carry_its_deltas(prompts_site: Site) -> None:
    text = prompts_site.get(f"/analyses/{prompts_site.analysis}?match=1").text
    links = re.findall(r'href="(/analyses/[^"]*/rollout\?[^"]*)"', text)
    assert links
    for link in links:
        query = parse_qs(urlsplit(link.replace("&amp;", "&")).query)
        assert "match" not in query
        assert float(query["delta_high"][0]) == pytest.approx(0.05)
        assert prompts_site.get(link.replace("&amp;", "&")).status_code == 200


def test_intervals_of_prompts_that_are_alike_have_no_width(prompts_site: Site) -> None:
    model = live(prompts_site, page="parts/intervals")
    assert model["ci.head.first"] == " [37.5, 37.5]"  # 36 of 96
    assert model["ci.head.disputed"] == " [37.5, 37.5]"
    assert model["ci.positive.ppo_only_drops.share"] == "[25.0, 25.0]"
    assert model["ci.positive.ppo_only_drops.mass"] == "[0.240, 0.240]"  # 12 × .02
    assert model["ci.positive.ppo_only_drops.weight"] == "[24.0, 24.0]"  # 12 × 2
    assert model["ci.positive.ppo_only_drops.norm"] == ""
    assert model["ci.negative.all.mass"] == "[4.92, 4.92]"  # 12 × (.05 + .05 + .01 + .3)
    assert "1,000 bootstrap samples of the 12 prompts" in str(model["ci.says"])
    assert "computing" in str(live(prompts_site)["ci.says"])


def test_few_prompts_have_no_intervals(site: Site) -> None:
    model = live(site, "step=0", page="parts/intervals")
    assert {text for key, text in model.items() if key != "ci.says"} == {""}
    assert "only 1 with a gradient" in str(model["ci.says"])
    assert "only 0 with a gradient" in str(live(site, "step=0&p_low=1", page="parts/intervals")["ci.says"])


def test_a_selection_holds_the_tables_and_says_so(prompts_site: Site) -> None:
    box = "p_low=0.55&p_high=0.65&y_low=1.2&step=0&sign=1"
    model = live(prompts_site, box)
    assert counts(model) == (["0", "0", "12", "0"], ["0", "0", "0", "0"])
    assert model["selection"] == "μ(a) from 0.55 to 0.65 and r ≥ 1.2; the list below: A > 0"
    assert (model["head.n"], model["of_selected"]) == ("12", " selected")
    tokens = live(prompts_site, box, "parts/selected")["selected"]
    assert len(tokens) == 12
    assert {(token["ratio"], token["divergence"], token["cell"], token["position"]) for token in tokens} == {
        ("1.27", "0.160", "only DPPO dropped", "3")
    }
    assert all("at=3" in token["href"] for token in tokens)
    bins = live(prompts_site, box, "parts/bins")["bins_positive"]
    assert [entry["bin"] for entry in bins] == ["0.5 – 0.75"]
    assert len(live(prompts_site, box, "parts/responses")["rollouts"]) == 12
    assert urlsplit(str(model["clear_href"])).query == "step=0&sign=1"
    on_the_other = live(prompts_site, "brush=divergence&y_low=0.1")
    assert counts(on_the_other) == (["0", "0", "12", "0"], ["0", "0", "0", "12"])
    assert on_the_other["selection"] == "binary TV ≥ 0.1"
    assert live(prompts_site)["brushed"] is False


def test_a_method_as_measured_takes_the_place_of_ppo_or_dppo(prompts_site: Site) -> None:
    """IPO drops D > .1 on either side: 12 tokens of either sign, at its own threshold whatever the dials say."""
    for query in ("second=ipo", "second=ipo&delta_low=0.5&delta_high=0.5"):
        model = live(prompts_site, query)
        assert counts(model) == (["24", "12", "12", "0"], ["24", "12", "0", "12"])
        assert model["name.dppo_only_drops"] == "only prime-rl's IPO dropped"
        assert (model["first"], model["second"]) == ("PPO", "prime-rl's IPO")
        assert model["positive.both_keep.near_dppo"] == "–"  # its distance to a threshold is not measured
        assert model["positive.both_keep.near_ppo"] == "0"
    assert "prime-rl's IPO stands at its published defaults" in model["fixed"][0]["message"]
    both = live(prompts_site, "first=ipo&second=dppo&delta_low=0.5&delta_high=0.5")
    assert counts(both) == (["36", "12", "0", "0"], ["36", "12", "0", "0"])
    page = prompts_site.get(f"/analyses/{prompts_site.analysis}?first=ipo").text
    assert re.search(r"<h1>Where .*prime-rl&#39;s IPO.* disagree</h1>", page)
    figure = prompts_site.server.api.get(f"/analyses/{prompts_site.analysis}/figures/ratio_plane?first=ipo").json()
    assert {"only prime-rl's IPO", "only DPPO", "dppo boundary"} <= {trace.get("name") for trace in figure["data"]}
    assert "ppo boundary" not in {trace.get("name") for trace in figure["data"]}


def test_a_method_that_cannot_be_says_why(prompts_site: Site) -> None:
    options = live(prompts_site)["options"]
    reasons = {entry["value"]: entry["reason"] for entry in options["first"]}
    assert reasons.keys() == {"ppo", "dppo", *METHODS}
    assert reasons["ipo"] == reasons["ppo_rollout"] == ""
    assert "top-K" in reasons["dppo_topk_tv_rollout"]
    assert reasons["nfpo"] == "its formula is not verified"
    assert {entry["value"] for entry in options["first"] if entry["disabled"]} >= {"nfpo", "dppo"}
    answer = prompts_site.server.api.get(f"/analyses/{prompts_site.analysis}/tables/cells?first=nfpo")
    assert answer.status_code == 422
    assert "its formula is not verified" in answer.json()["detail"]
    assert prompts_site.get(f"/analyses/{prompts_site.analysis}?first=nfpo").status_code == 422


def test_the_trainer_s_own_mask_stands_beside_ours(prompts_site: Site, site: Site) -> None:
    """It is PPO's at .2/.28. DPPO drops 12 others with A > 0 (agreement 24/48, chance .25² + .75² = .625, κ −1/3) and
    12 fewer with A < 0 (36/48, chance .5, κ .5)."""
    assert live(prompts_site, page="parts/trainer")["has_trainer"] is True
    assert live(site, page="parts/trainer")["has_trainer"] is False
    rows = live(prompts_site, page="parts/trainer")["trainer_rows"]
    names = ("n", "alike", "kappa", "both", "only_trainer", "only_ours")
    assert {row["method"]: tuple(row[name] for name in names) for row in rows} == {
        "PPO, A > 0": ("48", "100 %", "1.00", "12", "0", "0"),
        "PPO, A < 0": ("48", "100 %", "1.00", "24", "0", "0"),
        "DPPO, binary TV, A > 0": ("48", "50.0 %", "−0.333", "0", "12", "12"),
        "DPPO, binary TV, A < 0": ("48", "75.0 %", "0.500", "12", "12", "0"),
    }
    # at ε_high = 1.1 PPO keeps r = 2
    (row,) = (
        row
        for row in live(prompts_site, "eps_high=1.1&match=1", page="parts/trainer")["trainer_rows"]
        if row["method"] == "PPO, A > 0"
    )
    assert (row["only_trainer"], row["near"]) == ("12", "0")
    link = str(live(prompts_site, "preset=trl&first=ipo&match=1&p_low=0.1", "parts/trainer")["csv.trainer_agreement"])
    assert prompts_site.server.api.get(link.removeprefix("/api/v1")).status_code == 200


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("preset=papers", "paper-stability"),
        ("first=icepopp", "icepop"),
        ("first=dppo", "the same method"),
        ("p_low=2", "p_low"),
        ("y_low=2&y_high=1", "y_low lies above y_high"),
        ("by=colour", "by"),
    ],
)
def test_a_view_that_cannot_be_says_what_can(prompts_site: Site, query: str, says: str) -> None:
    answer = prompts_site.get(f"/analyses/{prompts_site.analysis}?{query}")
    assert answer.status_code == 422
    assert says in answer.text


def test_parts_are_on_the_page_from_the_start_and_an_unknown_one_is_answered(prompts_site: Site) -> None:
    text = prompts_site.get(f"/analyses/{prompts_site.analysis}?by=token&y_low=1.2").text
    assert text.count("only DPPO dropped") > 12  # its row in the table of cells, and the selected tokens
    assert '<th scope="row" data-text="bin">id 3</th>' in text
    assert prompts_site.get(f"/analyses/{prompts_site.analysis}/parts/none").status_code == 404


def test_bins_of_what_is_not_known_say_so(prompts_site: Site) -> None:
    model = live(prompts_site, "by=entropy", "parts/bins")
    assert (model["no_bins"], model["has_bins"]) == (True, False)
    tokens = live(prompts_site, "by=token", "parts/bins")
    assert [entry["bin"] for entry in tokens["bins_positive"]] == ["id 2", "id 3", "id 0", "id 1"]


def test_an_analysis_of_an_older_version_is_measured_again(site: Site) -> None:
    """Without decisions the page says so, and a job brings them; nothing of the analysis is marked otherwise."""
    api = site.server.api
    before = api.get(f"/analyses/{site.analysis}").json()
    job = site.server.wait(api.post(f"/analyses/{site.analysis}/measure", json={}).json())
    assert (job["state"], job["result"]) == ("done", {"analysis": site.analysis})
    assert api.get(f"/analyses/{site.analysis}").json() == before
    assert live(site)["unmeasured"] is False
    assert counts(live(site, "step=0&second=ipo"))[0] == ["5", "3", "2", "1"]  # D > .1, as δ .15 decides
