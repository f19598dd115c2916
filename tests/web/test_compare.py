"""Two analyses side by side, against the runs worked out in `tests.web.story` and `tests.web.hand`."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pytest

from tests.web import story
from tests.web.conftest import Site
from tests.web.test_pages import Parsed
from web.differences import cautions, definitions
from web.figures import compare
from web.figures.theme import THEMES

LIGHT = THEMES["light"]


def rows(site: Site, table: str, **view: Any) -> list[dict[str, Any]]:
    response = site.server.api.get(
        f"/analyses/{site.analysis}/tables/compare_{table}", params={"b": site.analysis, **view}
    )
    assert response.status_code == 200, response.text
    return list(response.json())


def test_two_steps_cell_by_cell(training: Site) -> None:
    """Step 4 keeps all ten; of step 7's five with A < 0, two fall from .95 to .35: r = .368, TV .6, both drop."""
    cells = {(row["sign"], row["cell"]): row for row in rows(training, "cells", step=4, b_step=7)}
    assert len(cells) == 8
    assert [(row["n_a"], row["n_b"]) for row in cells.values()] == [
        *((5, 6), (0, 0), (0, 0), (0, 0)),  # A > 0: the token that falls moves toward r = 1
        *((5, 3), (0, 0), (0, 0), (0, 2)),
    ]
    both = cells[-1, "both_drop"]
    assert (both["share_a"], both["share_b"], both["difference"]) == (0.0, pytest.approx(0.4), pytest.approx(0.4))
    assert cells[-1, "both_keep"]["difference"] == pytest.approx(-0.4)


def test_either_side_has_its_own_thresholds(training: Site) -> None:
    """1 − ε_low = .3 lies below r = .368: PPO keeps, DPPO drops. The first side's thresholds stay."""
    found = rows(training, "cells", step=7, b_step=7, b_eps_low=0.7)
    cells = {row["cell"]: (row["n_a"], row["n_b"]) for row in found if row["sign"] == -1}
    assert cells == {"both_keep": (3, 3), "ppo_only_drops": (0, 0), "dppo_only_drops": (0, 2), "both_drop": (2, 0)}


def test_a_side_without_known_tokens_has_no_shares(training: Site) -> None:
    found = rows(training, "cells", step=8, b_step=4)  # μ was not logged in step 8
    assert {row["share_a"] for row in found} == {None}
    assert {row["difference"] for row in found} == {None}
    assert [row["share_b"] for row in found if row["cell"] == "both_keep"] == [1.0, 1.0]


def test_quantiles_by_probability(training: Site) -> None:
    found = {(row["side"], row["low"]): row for row in rows(training, "quantiles", step=4, b_step=7)}
    assert found.keys() == {("a", 0.5), ("b", 0.5), ("b", 0.9)}
    first = found["a", 0.5]
    assert (first["n"], first["high"]) == (10, 0.9)
    assert (first["q50"], first["q99"]) == (pytest.approx(0.05, rel=1e-5), pytest.approx(0.05, rel=1e-5))
    likely = found["b", 0.9]  # .6 three times, and .7 with A = 0
    assert (likely["n"], likely["q50"]) == (4, pytest.approx(0.6, rel=1e-5))
    assert likely["q90"] == pytest.approx(0.67, rel=1e-5)  # .9·3 = 2.7
    assert likely["max"] == pytest.approx(0.7, rel=1e-5)


def test_planes_share_their_bins(training: Site) -> None:
    found = rows(training, "divergence_plane", step=4, b_step=7)
    assert {side: sum(row["n"] for row in found if row["side"] == side) for side in "ab"} == {"a": 10, "b": 12}
    api = training.server.api
    ranges = []
    for side in "ab":
        figure = api.get(
            f"/analyses/{training.analysis}/figures/compare_ratio_{side}",
            params={"b": training.analysis, "step": 4, "b_step": 7},
        ).json()
        ranges.append([figure["layout"][axis]["range"] for axis in ("xaxis", "yaxis")])
    assert ranges[0] == ranges[1]


def test_two_runs_over_their_steps(training: Site) -> None:
    found = rows(training, "timeline", b="a0scored")
    assert [(row["side"], row["step"]) for row in found] == [*(("a", step) for step in range(9)), ("b", 0), ("b", 1)]
    assert [row["mean_tv_binary_mismatch"] for row in found if row["side"] == "b"] == [0.0625, 0.25]
    api = training.server.api
    figure = api.get(
        f"/analyses/{training.analysis}/figures/compare_drift", params={"b": "a0scored", "step": 3, "b_step": 1}
    ).json()
    lines = {line["name"]: line for line in figure["data"]}
    assert lines.keys() == {"A", "B", "step of A", "step of B"}
    assert (lines["A"]["line"]["dash"], lines["B"]["line"]["dash"]) == ("solid", "5px,3px")
    assert (lines["B"]["x"], lines["B"]["y"]) == ([0, 1], [0.125, 0.25])
    assert (lines["step of A"]["x"], lines["step of A"]["y"]) == ([3], [pytest.approx(0.04, rel=1e-5)])
    alone = api.get(
        f"/analyses/{training.analysis}/figures/compare_drift", params={"b": training.analysis, "step": 3, "b_step": 5}
    ).json()
    assert [(line["name"], line["x"]) for line in alone["data"]][1:] == [("step of A", [3]), ("step of B", [5])]


def test_the_page_says_what_limits_the_comparison(training: Site) -> None:
    path = f"/compare?a={training.analysis}&a_step=4&b=a0scored&b_divergence=binary_kl"
    page = training.get(path)
    assert page.status_code == 200
    model = training.get(path.replace("?", "/live?")).json()
    said = [entry["message"] for entry in model["cautions"]]
    assert said[0] == (
        "Not comparable: A measures μ → logged π and B μ → NEW. Ratios, divergences and what is dropped are of "
        "different pairs of policies."
    )
    assert said[1].startswith("DPPO decides by binary TV in A and by binary KL in B")
    assert any("trainer’s own log-probs" in message for message in said)
    differing = {row["name"] for row in model["definitions"] if row["differs"]}
    assert {"Steps", "Evaluation point", "DPPO’s divergence", "Policies", "Noise floor, TV"} <= differing
    assert "Anchor" not in differing
    assert [head["where"] for head in model["heads"]] == ["step 4", "all steps"]
    assert "dropped" in page.text
    (swap,) = [href for href, _ in Parsed(page.text).links if href.startswith("/compare?")]
    assert dict(parse_qsl(urlsplit(swap).query)) == {
        "a": "a0scored",
        "a_divergence": "binary_kl",
        "b": training.analysis,
        "b_step": "4",
    }


def test_the_choice_comes_first(training: Site) -> None:
    assert "Choose two analyses" in training.get("/compare").text
    assert "Choose the other analysis" in training.get(f"/compare?b={training.analysis}").text
    assert training.get("/compare?a=none").status_code == 404
    assert training.get(f"/compare?a={training.analysis}&step=3").status_code == 422
    wrong = training.get(f"/compare?a={training.analysis}&b={training.analysis}&b_step=-1")
    assert wrong.status_code == 422
    table = f"/analyses/{training.analysis}/tables/compare_cells"
    assert training.server.api.get(f"{table}?b=none").status_code == 404
    refused = training.server.api.get(f"{table}?b={training.analysis}&b_step=-1")
    assert refused.json()["errors"][0]["field"] == "b_step"
    run = Parsed(training.get(f"/analyses/{training.analysis}?step=3&eps_high=0.5").text)
    assert f"/compare?a={training.analysis}&a_step=3&a_eps_high=0.5" in [href for href, _ in run.links]
    assert 'action="/compare"' in training.get(f"/runs/{story.RUN}").text


SIDE = {
    "n_steps": 1,
    "first_step": 3,
    "last_step": 3,
    "n_tokens": 10,
    "least_span": 1,
    "most_span": 1,
    "anchor": "rollout",
    "evaluated_at": "end",
    "divergence": "binary_tv",
    "dual_clip": None,
    "weight_cap": None,
    "eps_low": 0.2,
    "eps_high": 0.28,
    "delta_low": 0.15,
    "delta_high": 0.15,
    "source": "scored",
    "dtype": "float32",
    "device": "cpu",
    "top_k": 20,
    "topk_mode": "paper",
    "temperature": 1.0,
    "top_p": 1.0,
    "sampling_top_k": 0,
    "logprobs_mode": "raw",
    "tokenizer": None,
    "noise_tv": 4e-6,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first_step": 4, "last_step": 4, "n_tokens": 99}, []),
        ({"anchor": "old"}, ["Not comparable: A measures μ → NEW and B π_old → NEW."]),
        ({"eps_high": 0.3, "dual_clip": 3.0}, ["Thresholds differ (ε_high 0.28 and 0.3, dual clip c none and 3)"]),
        ({"divergence": "binary_kl", "delta_low": 0.05, "delta_high": 0.05}, ["DPPO decides by binary TV in A"]),
        ({"top_k": 8}, []),  # no top-K divergence is shown
        (
            {"dtype": "bfloat16", "noise_tv": 0.02},
            ["Computed in float32 and bfloat16 (noise floors, TV: 4.00×10⁻⁶ and"],
        ),
        ({"temperature": 0.7}, ["Sampled at T = 1 and 0.7"]),
        ({"most_span": 3, "least_span": 3}, ["NEW lies 1 step after OLD in A and 3 steps in B"]),
        ({"logprobs_mode": "processed"}, ["Truncation or the kind of logged log-probs differs"]),
        ({"tokenizer": "/x"}, ["The runs name different tokenizers"]),
    ],
)
def test_what_differs_in_words(change: dict[str, Any], said: list[str]) -> None:
    found = cautions(SIDE, {**SIDE, **change})
    assert len(found) == len(said)
    assert all(message.startswith(start) for message, start in zip(found, said, strict=True))
    assert any(row["differs"] for row in definitions(SIDE, {**SIDE, **change})) == (change.keys() != {"tokenizer"})


def test_shares_of_a_against_b() -> None:
    table = pa.Table.from_pylist(
        [
            {"sign": 1, "cell": "both_keep", "n_a": 90, "n_b": 8, "share_a": 0.9, "share_b": 0.8},
            {"sign": 1, "cell": "ppo_only_drops", "n_a": 10, "n_b": 2, "share_a": 0.1, "share_b": 0.2},
        ]
    )
    (line,) = compare.shares(table, LIGHT).data
    assert (list(line.x), line.line.color, list(line.marker.symbol)) == ([10, 20], LIGHT.ppo, ["circle", "circle-open"])
    assert line.hovertext[1] == "B: 20.0 % of the tokens, 2"


def test_nothing_known_is_said() -> None:
    cells = pa.Table.from_pylist(
        [{"sign": 1, "cell": "both_drop", "n_a": 0, "n_b": 0, "share_a": None, "share_b": None}],
        schema=pa.schema(
            [
                *(("sign", pa.int8()), ("cell", pa.string()), ("n_a", pa.int64()), ("n_b", pa.int64())),
                *(("share_a", pa.float64()), ("share_b", pa.float64())),
            ]
        ),
    )
    assert compare.shares(cells, LIGHT).layout.annotations[0].text == "no decision is known on either side"
    assert not compare.quantiles(pa.table({"side": pa.array([], pa.string())}), LIGHT).data
