"""The pages of methods and of theory: their tables on a run whose decisions are known on paper (`tests.web.hand`)."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dppo_core.methods.catalog import METHODS
from tests.web.conftest import Site
from web.figures import methods, theory
from web.figures.theme import THEMES

LIGHT = THEMES["light"]

# A > 0: 11 known tokens of step 0 (PPO drops 3 + 1, DPPO 2 + 1) and 20 of step 1 (r = 5, TV .04: PPO drops them all).
# A < 0: 14 (PPO drops 4 + 3, DPPO 1 + 3). Both keep 5 + 6, only PPO drops 3 + 20 + 4, only DPPO 2 + 1, both 1 + 3.
KAPPA = (15 / 45 - (31 * 7 + 14 * 38) / 45**2) / (1 - (31 * 7 + 14 * 38) / 45**2)


def rows(site: Site, table: str, **view: Any) -> list[dict[str, Any]]:
    response = site.server.api.get(f"/analyses/{site.analysis}/tables/{table}", params=view)
    assert response.status_code == 200, response.text
    return list(response.json())


def test_drop_rates_and_agreement_by_hand(site: Site) -> None:
    found = {row["method"]: row for row in rows(site, "methods")}
    assert found.keys() == METHODS.keys()
    ppo, dppo = found["ppo_rollout"], found["dppo_binary_tv_rollout"]
    counts = ("n_positive", "n_drop_positive", "n_negative", "n_drop_negative")
    assert [ppo[name] for name in counts] == [31, 24, 14, 7]
    assert [dppo[name] for name in counts] == [31, 3, 14, 4]
    assert ppo["drop_rate_positive"] == pytest.approx(24 / 31)
    assert dppo["drop_rate_negative"] == pytest.approx(4 / 14)
    assert ppo["kappa_ppo"] == 1
    assert ppo["agreement_dppo"] == dppo["agreement_ppo"] == pytest.approx(15 / 45)
    assert ppo["kappa_dppo"] == pytest.approx(KAPPA)
    assert found["nfpo"]["reason"] == "its formula is not verified"
    assert found["nfpo"]["n_positive"] is None


def test_rates_follow_the_step_and_agreement_does_not(site: Site) -> None:
    ppo = next(row for row in rows(site, "methods", step=1) if row["method"] == "ppo_rollout")
    assert (ppo["n_positive"], ppo["n_drop_positive"], ppo["n_negative"]) == (20, 20, None)
    assert ppo["drop_rate_negative"] is None
    assert ppo["kappa_dppo"] == pytest.approx(KAPPA)


def test_the_matrix_is_in_the_order_of_the_drop_rates(site: Site) -> None:
    found = rows(site, "method_matrix")
    names = sorted({(row["place"], row["method"]) for row in found})
    assert [place for place, _ in names] == list(range(len(names)))
    rates = {row["method"]: row["n_both_drop"] / row["n"] for row in found if row["method"] == row["other"]}
    assert [rates[name] for _, name in names] == sorted(rates.values(), reverse=True)
    (pair,) = (row for row in found if (row["method"], row["other"]) == ("ppo_rollout", "dppo_binary_tv_rollout"))
    assert [pair[f"n_{name}"] for name in ("both_keep", "only_method_drops", "only_other_drops", "both_drop")] == [
        11,
        27,
        3,
        4,
    ]


def test_bounds_by_hand(site: Site) -> None:
    """Rewards 1, 0, 0, so L′ is a third of Σ(r − 1) of `positive`; TV is bounded by 1 − min(p, q) of each token."""
    (row,) = rows(site, "bounds", step=0)
    assert row["tv_source"] == "sampled"
    first_order = (4 * 0.1 - 0.5 + 3 * 0.8 + 2 * (0.86 / 0.7 - 1) + 1.5) / 3
    assert row["first_order"] == pytest.approx(first_order, rel=1e-6)
    positive = 4 * 0.5 + 0.95 + 3 * 0.99 + 2 * 0.3 + 0.8 + 0.5
    negative = 6 * 0.55 + 4 * 0.95 + 0.26 + 3 * 0.7
    tv_sum = (positive + negative + 3 * 0.7) / 3
    assert row["tv_sum"] == pytest.approx(tv_sum, rel=1e-6)
    assert row["eq8"] == pytest.approx(first_order - 4 * tv_sum, rel=1e-6)
    assert row["eq8_vacuous"] is True


def test_theory_is_said_in_words(site: Site) -> None:
    page = site.get(f"/analyses/{site.analysis}/theory").text
    assert "Eq. 8 is vacuous in all 2 steps" in page
    assert "No bound here shows an improvement" in page
    assert "guarantee" not in page
    one = site.get(f"/analyses/{site.analysis}/theory?step=0").text
    assert "Eq. 8 is vacuous in the step" in one


def test_figures_show_the_tables(site: Site) -> None:
    figure = site.server.api.get(f"/analyses/{site.analysis}/figures/theory_first_order").json()
    assert figure["data"][0]["x"] == [0, 1]
    assert figure["data"][0]["y"][0] == pytest.approx(4.257142857 / 3, rel=1e-6)


def test_a_figure_without_rows_says_so() -> None:
    empty = pa.table({})
    for figure in (
        methods.drop_rates(empty, {}, LIGHT),
        methods.matrix(empty, {}, "kappa", LIGHT),
        theory.FIGURES["eq8"](empty, LIGHT),
    ):
        assert not figure.data
        assert figure.layout.annotations[0].text
