"""Binary and top-K against exact, as the tables of their page say it: worked on paper in `tests.web.exact`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.web.conftest import ExactSite, Site

CELLS = ("n_both_keep", "n_only_exact_drops", "n_only_estimate_drops", "n_both_drop")


def at(rows: list[dict[str, Any]], **key: Any) -> dict[str, Any]:
    (row,) = (row for row in rows if all(row[name] == value for name, value in key.items()))
    return row


def test_masks_and_kappa_at_delta(exact_site: ExactSite) -> None:
    rows = exact_site.rows("approximation_masks", step=0)
    # A > 0: exact drops 3 T2 and U1; binary sees .0625 of T2's .3125. p_o = 9/12, p_e = (1·4 + 11·8)/144
    binary = at(rows, sign=1, estimate="binary")
    assert [binary[cell] for cell in CELLS] == [8, 3, 0, 1]
    assert (binary["n"], binary["delta"], binary["agreement"]) == (12, 0.15, 0.75)
    assert binary["kappa"] == pytest.approx(4 / 13)
    topk = at(rows, sign=1, estimate="topk")
    assert [topk[cell] for cell in CELLS] == [8, 0, 0, 4]
    assert topk["kappa"] == 1.0
    # A < 0: exact drops 2 T1 and 4 T3 (.1875), of which both estimates see .125. p_o = 16/20, p_e = (2·6 + 18·14)/400
    for estimate in ("binary", "topk"):
        row = at(rows, sign=-1, estimate=estimate)
        assert [row[cell] for cell in CELLS] == [14, 4, 0, 2]
        assert row["kappa"] == pytest.approx(7 / 17)
    assert {row["n_near"] for row in rows} == {0}


def test_a_threshold_is_strict_and_moves_with_the_view(exact_site: ExactSite) -> None:
    rows = exact_site.rows("approximation_masks", step=0, delta_high=0.3125, delta_low=0.187)
    # δ = .3125 is T2's own exact TV: kept, and near. T3's .1875 lies above .187 by more than the noise floor's least
    chosen = at(rows, sign=1, estimate="topk")
    assert ([chosen[cell] for cell in CELLS], chosen["n_near"]) == ([12, 0, 0, 0], 3)
    assert chosen["kappa"] is None  # neither mask drops anything
    low = at(rows, sign=-1, estimate="binary")
    assert ([low[cell] for cell in CELLS], low["n_near"]) == ([14, 4, 0, 2], 0)
    close = exact_site.rows("approximation_masks", step=0, delta_low=0.18745)
    assert at(close, sign=-1, estimate="topk")["n_near"] == 4
    curve = exact_site.rows("approximation_agreement", step=0)
    assert len(curve) == 4 * 61  # two signs, two estimates, a grid of thresholds from 1e-4 to 1
    for row in curve:  # the curve at a threshold is the table at that threshold
        if row["delta"] in (1e-4, 0.1, 1.0):
            same = exact_site.rows("approximation_masks", step=0, delta_high=row["delta"], delta_low=row["delta"])
            one = at(same, sign=row["sign"], estimate=row["estimate"])
            assert {name: one[name] for name in row} == row


def test_masks_of_kl_take_the_kl_thresholds(exact_site: ExactSite) -> None:
    rows = exact_site.rows("approximation_masks", step=0, divergence="binary_kl")
    assert {row["delta"] for row in rows} == {0.05}
    # T3: binary KL .5 ln(.5/.375) + .5 ln(.5/.625) = .0323 keeps; exact adds .125 ln(.125/.3125) + .125 ln(.125/.0625)
    # - .25 ln(.25/.375) = .0736, and drops
    binary = at(rows, sign=-1, estimate="binary")
    assert [binary[cell] for cell in CELLS] == [14, 4, 0, 2]


def test_how_much_of_the_exact_divergence_is_seen(exact_site: ExactSite) -> None:
    rows = exact_site.rows("approximation_ratios", step=0)
    # binary / exact: 3 T2 at .2, 6 T3 at 2/3, 25 at 1; Σ binary 2.8125, Σ top-K 3.5625, Σ exact 3.9375
    binary, topk = (at(rows, estimate=estimate, p_low=None) for estimate in ("binary", "topk"))
    assert (binary["n"], binary["n_zero"]) == (34, 0)
    quantiles = [binary[name] for name in ("q05", "q25", "q50", "q75", "q95")]
    assert quantiles == pytest.approx([0.2, 2 / 3 + 0.25 / 3, 1, 1, 1])  # the 25 % lies at place 8.25 of 0 … 33
    assert binary["of_sums"] == pytest.approx(2.8125 / 3.9375)
    assert topk["of_sums"] == pytest.approx(3.5625 / 3.9375)
    peaked = at(rows, estimate="binary", p_low=0.9)
    assert (peaked["n"], peaked["p_high"], peaked["q05"]) == (4, 0.99, 1.0)  # T6
    positive = at(exact_site.rows("approximation_ratios", step=0, sign=1), estimate="topk", p_low=None)
    assert (positive["n"], positive["of_sums"]) == (12, pytest.approx(1 - 0.125 / 1.75))  # 2 T3 miss .0625 each


def test_the_densities(exact_site: ExactSite) -> None:
    rows = exact_site.rows("binary_against_exact", step=0, sign=1)
    assert sum(row["n"] for row in rows) == 12
    assert sum(row["n_beyond"] for row in rows) == 0
    place = lambda tv: math.floor((math.log10(tv) + 7) / 7 * 80)  # noqa: E731
    assert at(rows, x_bin=place(0.3125), y_bin=place(0.0625))["n"] == 3  # T2
    topk = exact_site.rows("topk_against_exact", step=0, sign=1)
    assert at(topk, x_bin=place(0.3125), y_bin=place(0.3125))["n"] == 3
    kl = exact_site.rows("topk_against_exact", step=0, divergence="exact_kl")
    assert all(row["y_bin"] <= row["x_bin"] for row in kl)  # nothing above the diagonal


def test_certified_intervals_hold_the_exact_value(exact_site: ExactSite) -> None:
    rows = exact_site.rows("certified", step=0)
    assert {row["coverage"] for row in rows} == {1.0}
    sampled, topk = (at(rows, source=source, sign=None) for source in ("sampled", "topk"))
    # widths: sampled .5 for 4 T1, U1 and 6 T3, .8125 for 3 T2, .46875 for 10 T4 and 6 T5, .03125 for 4 T6;
    # top-K: the smaller rest, .25 (4 T1, U1, 6 T3), .0625 (3 T2), .21875 (T4, T5), .015625 (T6)
    assert sampled["mean_width"] == pytest.approx(15.5625 / 34)
    assert topk["mean_width"] == pytest.approx(6.5 / 34)
    decided = exact_site.rows("certified_masks", step=0)
    counts = ("n", "n_toward", "n_drops", "n_keeps", "n_undecided")
    # A > 0: T3 moves toward 1; T2 lies in [.0625, .875] or [.3125, .375]; U1 from .25; T4 up to .5 or .25
    assert [at(decided, source="sampled", sign=1)[name] for name in counts] == [12, 2, 1, 0, 9]
    assert [at(decided, source="topk", sign=1)[name] for name in counts] == [12, 2, 4, 0, 6]
    # A < 0: T4 toward 1; T1 from .25; T6 up to .0625; T3 and T5 stay open under both
    for source in ("sampled", "topk"):
        assert [at(decided, source=source, sign=-1)[name] for name in counts] == [20, 4, 2, 4, 10]


def test_intervals_take_thresholds_of_tv_whatever_the_measure(exact_site: ExactSite) -> None:
    rows = exact_site.rows("certified_masks", step=0)
    assert exact_site.rows("certified_masks", step=0, divergence="binary_kl") == rows
    assert exact_site.rows("certified_masks", step=0, divergence="binary_kl", delta_high=0.4) == rows
    moved = at(exact_site.rows("certified_masks", step=0, delta_high=0.4), source="topk", sign=1)
    assert [moved[f"n_{name}"] for name in ("toward", "drops", "keeps", "undecided")] == [2, 0, 9, 1]  # U1 up to .5


def test_intervals_of_a_pair_without_an_exact_value(exact_site: ExactSite, site: Site) -> None:
    (whole, *_) = exact_site.rows("certified_of_view", step=0)  # μ = π_old here, but only its log-probs are known
    assert (whole["source"], whole["n"], whole["n_exact"], whole["coverage"]) == ("sampled", 34, 0, None)
    rows = site.server.api.get(f"/analyses/{site.analysis}/tables/certified_masks_of_view?step=0").json()
    positive = at(rows, sign=1)
    # toward: .1 → .05. drops: .7 → .86 (.16) and .2 → .5. open: .5 → .55 and .01 → .018, whose upper bounds are large
    assert [positive[f"n_{name}"] for name in ("toward", "drops", "keeps", "undecided")] == [1, 3, 0, 7]


def test_the_mass_of_the_top_k_set(exact_site: ExactSite) -> None:
    whole, first = exact_site.rows("topk_mass", step=0)
    # Σ mass of P: 4 T1 · .75 + .5 + 3 · .875 + 6 · .75 + 10 · .75 + 6 · .78125 + 4 · .984375; of Q: 4 · .5 + .75 + …
    assert whole["mean_mass_old"] == first["mean_mass_old"] == pytest.approx(26.75 / 34)
    assert whole["mean_mass_new"] == pytest.approx(25.5 / 34)
    assert whole["share_below_99"] == 1.0
    assert whole["mean_bound"] == pytest.approx(6.5 / 34)
    assert (whole["mean_gap"], whole["max_gap"]) == (pytest.approx(6 * 0.0625 / 34), pytest.approx(0.0625))
    assert [row["step"] for row in exact_site.rows("topk_mass")] == [None, 0, 1]  # steps 2 and 3 have no exact value


def test_two_ks_side_by_side(exact_site: ExactSite) -> None:
    for analysis in (exact_site.two, exact_site.three):  # of step 0, which both scored
        two, three = exact_site.rows("top_k_compared", analysis, step=0)
        assert (two["top_k"], two["n"], two["n_gradient"]) == (2, 34, 32)
        assert (two["n_exact_drops"], two["n_only_exact_drops"], two["n_undecided"]) == (10, 4, 16)
        # with 3 of 4 tokens held, the rest is one token: top-K is exact
        assert (three["top_k"], three["mean_gap"], three["n_only_exact_drops"]) == (3, 0.0, 0)
    (alone,) = exact_site.rows("top_k_compared", step=1)
    assert alone["top_k"] == 2


def test_the_page_says_it_in_words(exact_site: ExactSite, site: Site) -> None:
    model = exact_site.server.api.get(
        f"{exact_site.server.url}/analyses/{exact_site.two}/approximation/live?step=0"
    ).json()
    assert [model[f"head.{name}"] for name in ("n", "exact", "binary", "topk")] == ["32", "10", "7", "4"]
    assert model["head.exact_share"] == "31.2 %"  # 10 of 32
    assert (model["has_exact"], model["has_compared"], model["top"]) == (True, True, "top-2")
    logged = site.get(f"/analyses/{site.analysis}/approximation/live").json()
    assert (logged["has_exact"], logged["masks"]) == (False, [])
    assert "log alone" in logged["why"]
    assert logged["pair_intervals"][0]["coverage"] == "–"
