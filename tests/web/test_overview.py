"""A run over training: each claim of the paper by step, against values worked out in `tests.web.story`."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.web import hand, story
from tests.web.conftest import Site
from tests.web.test_pages import Parsed

UNMEASURED = 1e-4  # the least that counts as noise


def rows(site: Site, table: str, analysis: str | None = None, **view: Any) -> list[dict[str, Any]]:
    response = site.server.api.get(f"/analyses/{analysis or site.analysis}/tables/{table}", params=view)
    assert response.status_code == 200, response.text
    return list(response.json())


def known(site: Site, name: str) -> list[float]:
    """A quantity of the steps 0 to 7 of `story`; of step 8, without μ, it is not known."""
    *values, last = (row[name] for row in rows(site, "timeline"))
    assert last is None
    return values


def test_drift_and_its_quantiles(training: Site) -> None:
    """C2: mean |π − μ| per step."""
    assert known(training, "mean_abs_dp") == pytest.approx(
        [0.02, 0.03, 0.025, 0.04, 0.05, 0.078, 0.126, 2.66 / 12], rel=1e-5
    )
    fifth = rows(training, "timeline")[5]  # nine of .02 and one of .6
    assert fifth["q50_abs_dp"] == pytest.approx(0.02, rel=1e-5)
    assert fifth["q90_abs_dp"] == pytest.approx(0.02 + 0.1 * 0.58, rel=1e-5)  # .9·9 = 8.1
    assert fifth["q99_abs_dp"] == pytest.approx(0.02 + 0.91 * 0.58, rel=1e-5)  # .99·9 = 8.91
    unknown = rows(training, "timeline")[8]
    assert (unknown["n"], unknown["n_null"]) == (0, 10)


def test_extremes(training: Site) -> None:
    """C3: the largest rise and fall of a probability, A = 0 included."""
    rises, falls = [0.02, 0.03, 0.025, 0.04, 0.05, 0.02, 0.02, 0.02], [0.02, 0.03, 0.025, 0.04, 0.05, 0.6, 0.6, 0.7]
    assert known(training, "max_dp") == pytest.approx(rises, rel=1e-5)
    assert known(training, "min_dp") == pytest.approx([-fall for fall in falls], rel=1e-5)


def test_bad_updates(training: Site) -> None:
    """C5: the share of tokens with A ≠ 0 that have A < 0 and μ − π ≥ .5; A > 0 and A = 0 fall as far in step 7."""
    found = rows(training, "timeline")
    assert [row["n_bad_update"] for row in found] == [0, 0, 0, 0, 0, 1, 2, 2, None]
    assert [row["n_near_bad_update"] for row in found] == [0, 0, 0, 0, 0, 0, 1, 0, None]
    assert [row["bad_share"] for row in found] == pytest.approx([0, 0, 0, 0, 0, 0.1, 0.2, 2 / 11, None])
    masked = {
        row["step"]: row["n_drop"] for row in rows(training, "mask_rates", methods="bad_update") if row["sign"] == -1
    }
    assert masked == {row["step"]: row["n_bad_update"] for row in found if row["n"]}


def test_bad_updates_are_measured_from_the_rollout_whatever_the_anchor(training: Site) -> None:
    api = training.server.api
    done = training.server.analyze(story.RUN, source="logged", anchor="old")
    other = done["result"]["analysis"]
    found = rows(training, "timeline", other)
    assert {row["anchor"] for row in found} == {"old"}
    assert [row["n_bad_update"] for row in found][:8] == [0, 0, 0, 0, 0, 1, 2, 2]
    assert api.delete(f"/analyses/{other}").status_code == 204


def test_at_the_step_s_start_the_drift_is_the_mismatch_and_is_marked_once(training: Site) -> None:
    done = training.server.analyze(story.RUN, source="logged", anchor="rollout", evaluated_at="start")
    start = done["result"]["analysis"]
    first = rows(training, "timeline", start)[0]
    assert (first["mean_abs_dp"], first["mean_tv_binary_mismatch"]) == (0.0, 0.0)  # old_logprobs are μ's
    assert {row["quantity"] for row in rows(training, "step_marks", start)} == {
        *("mean_abs_dp", "max_dp", "min_dp", "bad_share")
    }
    assert training.server.api.delete(f"/analyses/{start}").status_code == 204


def test_marks_by_hand(training: Site) -> None:
    marks = {(row["quantity"], row["step"]): row for row in rows(training, "step_marks")}
    drift = marks["mean_abs_dp", 4]
    assert (drift["n_reference"], drift["reference_low"]) == (3, pytest.approx(0.02, rel=1e-5))
    assert drift["reference_high"] == pytest.approx(0.03, rel=1e-5)
    # beyond .03 by more than the width .03 − .02 and the noise
    assert drift["bound"] == pytest.approx(0.04 + UNMEASURED, rel=1e-5)
    assert marks["min_dp", 5]["bound"] == pytest.approx(-0.04 - UNMEASURED, rel=1e-5)
    assert marks["bad_share", 5]["bound"] == pytest.approx(1 / 10)  # no range: one token
    assert marks["bad_share", 6]["bound"] == pytest.approx(2 / 10)  # and the one at exactly .5
    assert marks["bad_share", 7]["bound"] == pytest.approx(1 / 11)
    marked = {key for key, row in marks.items() if row["marked"]}
    assert marked == {
        *(("mean_abs_dp", step) for step in (4, 5, 6, 7)),
        ("max_dp", 4),
        *(("min_dp", step) for step in (4, 5, 6, 7)),
        ("bad_share", 7),
    }
    assert all(row["bound"] is None for (_, step), row in marks.items() if step < 3)
    assert not [step for _, step in marks if step == 8]  # not known: not compared


def test_what_the_page_says_of_marked_steps(training: Site) -> None:
    text = training.get(f"/runs/{story.RUN}").text
    page = Parsed(text)
    assert page.slots["marks_said"] == "4 of 8 steps left the range of the first 3."
    why = training.get(f"/runs/{story.RUN}/live").json()["marks"]
    assert [mark["step"] for mark in why] == ["4", "5", "6", "7"]
    assert why[0]["why"].startswith("a token’s probability rose by 0.0500; the first 3 steps allow 0.0401")
    assert "18.2 % of the tokens with A ≠ 0 are bad updates" in why[3]["why"]
    followed = [dict(parse_qsl(urlsplit(href).query)) for href, _ in page.links if href.startswith("/analyses/")]
    assert {"step": "7"} in followed  # from the table, without a pointer


def test_reward_length_and_pipo(training: Site) -> None:
    """C13, and PIPO's improvement over the eight steps before."""
    found = rows(training, "timeline")
    assert [row["mean_reward"] for row in found] == pytest.approx(story.REWARDS)
    assert [row["mean_length"] for row in found] == pytest.approx([5] * 7 + [4, 5])  # 6, 5 and 1 tokens
    *first, last = rows(training, "pipo")
    assert {row["reason"] for row in first} == {"this analysis does not hold all of the 8 steps before"}
    assert [row["improvement"] for row in first] == [None] * 8
    # 0 and 1 four times each: mean .5, s² = 8·.25/7
    assert last["improvement"] == pytest.approx(0.5 / (math.sqrt(2 / 7) + 1e-6))
    assert last["weight"] == last["improvement"]
    assert last["reason"] is None
    assert [row["improvement"] for row in found] == [*[None] * 8, last["improvement"]]


def test_mask_rates_by_sign(training: Site) -> None:
    """C14: with ε = .2, r = .35/.95 drops only for A < 0; A = 0 is in no rate."""
    seventh = {(row["method"], row["sign"]): row for row in rows(training, "mask_rates") if row["step"] == 7}
    assert {key: (row["n"], row["n_drop"]) for key, row in seventh.items()} == {
        ("ppo_rollout", 1): (6, 0),
        ("ppo_rollout", -1): (5, 2),
        ("dppo_binary_tv_rollout", 1): (6, 0),
        ("dppo_binary_tv_rollout", -1): (5, 2),
    }
    assert seventh["ppo_rollout", -1]["share"] == pytest.approx(0.4)
    # DPPO at its own δ and PPO's bounds are those of the analysis, as in the agreement of methods
    chosen = rows(training, "mask_rates", methods="ipo,ppo_rollout")
    assert {row["method"] for row in chosen} == {"ipo", "ppo_rollout"}
    sixth = {row["sign"]: row["n_drop"] for row in chosen if (row["method"], row["step"]) == ("ipo", 6)}
    assert sixth == {-1: 2, 1: 0}  # |π − μ| > .1


def test_entropy_topk_mass_mismatch_and_update(training: Site) -> None:
    """C10 and C12 by step, and where the drift comes from: step 1 has only mismatch (the learning rate was 0)."""
    first, second = rows(training, "timeline", "a0scored")
    assert (first["mean_entropy_old"], second["mean_entropy_old"]) == (2.0, 1.25)
    assert (first["mean_topk_mass_old"], second["mean_topk_mass_old"]) == (0.875, 0.96875)
    assert (first["mean_tv_binary_mismatch"], second["mean_tv_binary_mismatch"]) == (0.0625, 0.25)
    assert (first["mean_abs_log_mismatch"], second["mean_abs_log_mismatch"]) == (0.375, 0.5)
    assert (first["mean_tv_binary_old"], second["mean_tv_binary_old"]) == (0.25, 0.0)
    assert (first["mean_abs_dp"], second["mean_abs_dp"]) == (0.125, 0.25)
    assert (first["n"], first["n_gradient"]) == (4, 4)  # not the masked token
    assert (first["mean_reward"], first["mean_length"]) == (1.0, 2.5)  # one response has no reward
    assert first["noise_tv"] == 0.0078125
    (run_step, _) = training.server.api.get(f"/runs/{story.SCORED}/tables/timeline").json()
    assert (run_step["mean_reward"], run_step["n"]) == (1.0, None)  # without an analysis: what was logged


def test_methods_in_the_address(training: Site) -> None:
    link = f"/runs/{story.RUN}?methods=ppo_rollout,icepop,dppo_topk_tv_rollout"
    form = f"/runs/{story.RUN}?methods=ppo_rollout&methods=icepop&methods=dppo_topk_tv_rollout"
    for path in (link, form):
        model = training.get(path.replace("?", "/live?")).json()
        assert model["methods_shown"] == "PPO, dppo_topk_tv_rollout, icepop"
        assert model["missing"] == [
            {"name": "dppo_topk_tv_rollout", "reason": "the log has no usable top-K lists of the rollout policy"}
        ]
        query = dict(parse_qsl(urlsplit(model["figure.masks_positive"]).query))
        assert query == {"analysis": training.analysis, "methods": "ppo_rollout,icepop,dppo_topk_tv_rollout"}
    assert training.get(f"/runs/{story.RUN}?methods=none").status_code == 422
    many = ",".join(["ppo_rollout"] * 9)
    assert "at most 8" in training.get(f"/runs/{story.RUN}?methods={many}").text


def test_a_run_in_each_state(site: Site) -> None:
    api = site.server.api
    assert "Too few steps to compare" in site.get(f"/runs/{hand.RUN}").text  # two steps
    assert api.post("/runs", json={"run": "young"}).status_code == 201
    site.server.upload("young", hand.records()[:1])
    text = site.get("/runs/young").text
    assert "No analysis yet" in text
    assert api.get("/runs/young/figures/timeline_drift").json()["layout"]["annotations"][0]["text"] == (
        "not known for these steps"
    )
    site.server.analyze("young", source="logged")
    assert "Too few steps to compare" in site.get("/runs/young").text
    (line,) = api.get("/runs/young/figures/timeline_reward").json()["data"]
    assert (line["x"], line["y"]) == ([0], [1.0])
    assert api.delete("/runs/young").status_code == 204


def test_tables_of_a_run(training: Site) -> None:
    api = training.server.api
    assert api.get(f"/runs/{story.RUN}/tables/cells").status_code == 404
    assert api.get(f"/runs/{story.RUN}/tables/timeline?anchor=old").status_code == 422
    statement = api.get(f"/runs/{story.RUN}/tables/timeline?format=sql").text
    assert "FROM _timeline('story', NULL)" in statement
    model = training.get(f"/runs/{story.RUN}/live").json()
    for name in ("csv.drift", "parquet.masks_negative", "sql.step_marks"):
        assert httpx.get(training.url + model[name]).status_code == 200


def test_many_steps_are_paged(training: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.pages.training.SHOWN_STEPS", 4)
    import pyarrow as pa

    from service.api.pages.training import _page_of_steps
    from service.schemas.overview import RunView

    names = rows(training, "timeline")
    marks = pa.table({"step": pa.array([], pa.uint32()), "marked": pa.array([], pa.bool_())})
    first = _page_of_steps(names, marks, None, story.RUN, RunView())
    assert [step["step"] for step in first["steps"]] == ["0", "1", "2", "3"]
    assert (first["earlier"], first["later"]) == ("", "/runs/story?first=4#c-steps")
    last = _page_of_steps(names, marks, None, story.RUN, RunView(first=8))
    assert [step["step"] for step in last["steps"]] == ["8"]
    assert (last["earlier"], last["later"]) == ("/runs/story?first=4#c-steps", "")
