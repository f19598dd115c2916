"""Mismatch and update apart and together, as the tables of their page say it: worked on paper in `tests.web.exact`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.web import hand
from tests.web.conftest import ExactSite, Site
from tests.web.test_approximation import at

LN2, LN175 = math.log(2), math.log(1.75)


def test_both_parts_and_their_shares(exact_site: ExactSite) -> None:
    rows = exact_site.rows("mismatch_parts", step=1)
    parts = {row["part"]: row for row in rows if row["p_low"] is None}
    # ln ρ: twice ln 1.75, −ln 2 (up and down), ln 4. ln r′: ln 1.75 twice, ln 2, ln 4.5, −ln 2 twice, ln 4
    mismatch, update, together = parts["mismatch"], parts["update"], parts["together"]
    assert mismatch["mean_log"] == pytest.approx((2 * LN175 + LN2 - LN2 - LN2 + LN2) / 17)
    assert mismatch["mean_abs_log"] == pytest.approx((2 * LN175 + 4 * LN2) / 17)
    assert update["mean_abs_log"] == pytest.approx((2 * LN175 + LN2 + math.log(4.5) + 2 * LN2 + 2 * LN2) / 17)
    assert mismatch["max_abs_log"] == pytest.approx(2 * LN2)
    assert mismatch["q50_abs_log"] == 0  # 12 of 17
    # the 90 % quantile lies at place 14.4 of 0 … 16, between ln 2 and ln 2
    assert mismatch["q90_abs_log"] == pytest.approx(LN2)
    # Σ|Δp|: engine 2 · .1875 + 2 · .3125 + 3/128; update .1875 + .234375 + 1/32 + .65625 + .75 + 3/128
    assert mismatch["mean_abs_dp"] == pytest.approx(1.0234375 / 17)
    assert update["mean_abs_dp"] == pytest.approx(1.8828125 / 17)
    assert together["mean_abs_dp"] == pytest.approx(2.4375 / 17)
    assert (mismatch["share"], update["share"]) == (pytest.approx(131 / 372), pytest.approx(241 / 372))
    assert mismatch["k3"] == pytest.approx((2 * (0.75 - LN175) + 2 * (-0.5 + LN2) + 3 - 2 * LN2) / 17)


def test_quantiles_by_probability_and_by_step(exact_site: ExactSite) -> None:
    rare = at(exact_site.rows("mismatch_parts", step=1), p_low=0.001, part="mismatch")
    # μ = 2⁻⁷: ρ = 4 in `up`, 1 in `down`
    assert (rare["n"], rare["p_high"]) == (2, 0.01)
    assert rare["q50_abs_log"] == pytest.approx(LN2)
    assert rare["q90_abs_log"] == pytest.approx(0.9 * 2 * LN2)
    assert rare["max_abs_dp"] == pytest.approx(3 / 128)
    steps = exact_site.rows("mismatch_steps")
    assert [row["step"] for row in steps] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert at(steps, step=0, part="mismatch")["max_abs_log"] == 0  # μ = π_old
    assert at(steps, step=1, part="update")["mean_abs_dp"] == pytest.approx(1.8828125 / 17)
    assert at(steps, step=2, part="update")["n"] == 0
    assert at(steps, step=2, part="update")["mean_abs_log"] is None


def test_the_planes(exact_site: ExactSite) -> None:
    # C1. |ln ρ| up to ln 4, whose 99.9 % quantile is at place 15.984: ln 2 + .984 ln 2; 15 % more is shown
    reach = 1.15 * (LN2 + 0.984 * LN2)
    place = lambda value, low, high, bins: math.floor((value - low) / (high - low) * bins)  # noqa: E731
    x = place(math.log(1 / 127), -9.2102404, 9.2102404, 92)  # logit(2⁻⁷)
    ratio = exact_site.rows("mismatch_ratio_plane", step=1)
    assert sum(row["n"] for row in ratio) == 17
    assert at(ratio, x_bin=x, y_bin=place(2 * LN2, -reach, reach, 64))["n"] == 1
    tv = exact_site.rows("mismatch_tv_plane", step=1)  # no lists: binary
    assert at(tv, x_bin=x, y_bin=place(math.log10(3 / 128), -6, 0.2, 64))["n"] == 1
    zero = [row for row in tv if row["y_bin"] == 0]
    assert sum(row["n_beyond"] for row in zero) == 12  # ρ = 1: below the axis
    exact = exact_site.rows("update_tv_plane", step=0, sign=1)
    edge = place(math.log10(0.3125), -6, 0.2, 64)
    assert at(exact, x_bin=place(math.log(1 / 7), -9.2102404, 9.2102404, 92), y_bin=edge)["n"] == 3  # T2


def test_bands_are_found_where_both_sides_round(exact_site: ExactSite) -> None:
    bands = {row["spacing"]: row["bands"] for row in exact_site.rows("bands", step=2)}
    assert bands == {0.0625: "found", 0.125: "found", 0.25: "not found"}
    assert {row["bands"] for row in exact_site.rows("bands", step=3)} == {"not found"}  # as noisy, in float32
    few = exact_site.rows("bands", step=1)
    assert {(row["n"], row["bands"]) for row in few} == {(2, "too few tokens")}


def cells(rows: list[dict[str, Any]], method: str, sign: int) -> dict[str, int]:
    return {row["cell"]: row["n"] for row in rows if (row["method"], row["sign"]) == (method, sign)}


def test_the_recompute_anchor(exact_site: ExactSite) -> None:
    # C4. The engine's own moves (ρ = 1.75 for A > 0, ρ = .5 for A < 0) are seen from μ alone; r′ = 1.75 on top of
    # ρ = .5 from π_old alone
    rows = exact_site.rows("anchors", step=1)
    assert cells(rows, "dppo", 1) == {"both_keep": 5, "only_rollout_drops": 2, "only_old_drops": 1, "both_drop": 2}
    assert cells(rows, "dppo", -1) == {"both_keep": 4, "only_rollout_drops": 1, "both_drop": 2}
    assert cells(rows, "ppo", 1) == {"both_keep": 4, "only_rollout_drops": 2, "only_old_drops": 1, "both_drop": 3}
    assert cells(rows, "ppo", -1) == {"both_keep": 4, "only_rollout_drops": 1, "both_drop": 2}
    kept = at(rows, method="dppo", sign=1, cell="only_rollout_drops")
    assert (kept["share_of_drops"], kept["mean_abs_dp_rollout"], kept["mean_abs_dp_old"]) == (
        0.5,
        pytest.approx(0.1875),
        0.0,
    )
    assert at(rows, method="dppo", sign=-1, cell="only_rollout_drops")["share_of_drops"] == pytest.approx(1 / 3)
    start = exact_site.rows("anchors", step=1, evaluated_at="start")  # nothing moved from π_old yet
    assert cells(start, "dppo", 1) == {"both_keep": 8, "only_rollout_drops": 2}
    unknown = exact_site.rows("anchors", step=1, divergence="exact_tv")
    assert cells(unknown, "dppo", 1) == {"unknown": 10}


def test_whom_truncation_hits(exact_site: ExactSite) -> None:
    # C6. r > 2: 8 (μ = 2⁻⁷, |A| = 1), 4 (2⁻⁷, |A| = 2), 4.5 (.1875, |A| = 1)
    rows = exact_site.rows("truncation", step=1)
    below = {high: at(rows, cap=2.0, p_low=0.0, p_high=high) for high in (0.01, 0.1, 0.5)}
    assert [row["share"] for row in below.values()] == pytest.approx([2 / 17, 2 / 17, 6 / 17])
    assert [row["share_of_truncated"] for row in below.values()] == pytest.approx([2 / 3, 2 / 3, 1])
    rare = at(rows, cap=2.0, p_low=0.001, p_high=0.01)
    assert (rare["n"], rare["n_truncated"]) == (2, 2)
    assert (rare["weight"], rare["lost"]) == (pytest.approx(16), pytest.approx(10))  # 8 + 2 · 4; 6 + 2 · 2
    assert rare["share_of_lost"] == pytest.approx(10 / 12.5)
    assert [at(rows, cap=cap, p_low=0.0, p_high=0.5)["lost"] for cap in (2, 3, 5)] == pytest.approx([12.5, 8.5, 3])
    nothing = at(rows, cap=5.0, p_low=0.1, p_high=0.5)
    assert (nothing["n_truncated"], nothing["lost"], nothing["share_of_truncated"]) == (0, 0.0, 0.0)
    assert {row["cap"] for row in exact_site.rows("truncation", step=1, weight_cap=4.2)} == {3.0, 4.2, 5.0}


def test_responses_where_the_ratio_is_not_one(exact_site: ExactSite) -> None:
    up, down = exact_site.rows("mismatch_responses", step=1)
    assert (up["sample_id"], up["n_tokens"], up["worst_position"], up["worst_token"]) == ("up", 10, 8, " 8")
    assert up["mean_abs_log"] == pytest.approx((2 * LN175 + 3 * LN2) / 10)
    assert up["max_abs_log"] == pytest.approx(2 * LN2)
    assert (up["n_ppo_drops"], up["n_dppo_drops"]) == (3, 2)  # ρ = 4 moves 3/128 only
    assert (down["sample_id"], down["mean_abs_log"]) == ("down", pytest.approx(LN2 / 7))
    assert (down["n_ppo_drops"], down["n_dppo_drops"], down["advantage"]) == (1, 1, -2.0)


def test_staleness(exact_site: ExactSite) -> None:
    fresh, stale = exact_site.rows("staleness", step=1)
    assert (fresh["lag"], fresh["n_responses"], fresh["mean_abs_log"]) == (0, 1, pytest.approx(LN2 / 7))
    assert (stale["lag"], stale["n_tokens"], stale["mean_abs_dp"]) == (1, 10, pytest.approx(0.7109375 / 10))
    (unknown,) = exact_site.rows("staleness", step=0)
    assert (unknown["lag"], unknown["n_responses"]) == (None, 3)


def test_the_page_says_it_in_words(exact_site: ExactSite, site: Site) -> None:
    first = exact_site.live("mismatch", step=1)
    assert first["head.share"] == "35.2 %"  # 131 / 372
    assert (first["anchor_drops"], first["anchor_kept"]) == ("7", "3")
    assert (first["is_stale"], first["stale_responses"], first["lag_responses"]) == (True, "1", "2")
    assert [entry["level"] for entry in first["findings"]] == ["warning", "note"]
    assert "at=8" in first["responses"][0]["href"]
    assert "evaluated_at=start" in first["responses"][0]["href"]
    assert exact_site.live("mismatch", step=2)["bands_say"].startswith(
        "Bands found: ln ρ gathers at multiples of 0.125"
    )
    assert exact_site.live("mismatch", step=3)["bands_say"].startswith("No bands found")
    assert exact_site.live("mismatch", step=0)["is_stale"] is False
    logged = site.get(f"/analyses/{site.analysis}/mismatch/live?step=0").json()
    assert (logged["has_mu"], logged["head.mismatch"], logged["head.share"]) == (True, "0", "0 %")  # hand: π_old = μ


def test_raw_log_probs_at_a_temperature_are_not_mu(site: Site) -> None:
    api, sampling = site.server.api, {"temperature": 0.7, "logprobs_mode": "raw"}
    assert api.post("/runs", json={"run": "raw", "sampling": sampling}).status_code == 201
    assert site.server.upload("raw", [hand.record("s", [(0.5, 0.25)] * 3, 1.0)])["state"] == "done"
    analysis = site.server.analyze("raw", source="logged")["result"]["analysis"]
    model = site.get(f"/analyses/{analysis}/mismatch/live").json()
    assert (model["has_mu"], model["head.n"]) == (False, "0")
    assert model["why"].endswith("only the update can be shown.")
    update = at(model["parts"], part="update, π_old → π")
    assert (update["n"], update["mean_abs_dp"], update["share"]) == ("3", "0.250", "–")
    assert api.delete("/runs/raw").status_code == 204
