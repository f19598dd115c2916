"""What a model's scoring adds to the tokens page and the reader, over a segment made by hand; and the figures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.api.views import TABLES
from service.api.views.settled import settled
from service.schemas.segment import SEGMENT_SCHEMA
from service.schemas.view import ReaderView, TokensView, View
from service.settings import Settings
from service.store.store import Store
from tests.store.handmade import asked
from tests.worker.test_measure import THRESHOLDS
from web.figures.clipped import clipped_probability, most_clipped
from web.figures.theme import THEMES, Theme

LIGHT = THEMES["light"]
Row = dict[str, Any]

#  turn  μ     π      log ρ    entropy   under ε .2/.28 and δ_TV .15
TOKENS = [
    (0, 0.01, 0.018, 0.01, 2.0),  # PPO drops
    (0, 0.7, 0.86, -0.03, 1.0),  # DPPO drops
    (1, 0.5, 0.55, 0.02, 0.5),
    (1, 0.9, 0.91, None, 0.25),
    (1, 0.9, 0.91, 0.0, None),
]


@dataclass(frozen=True)
class Scored:
    """A store with one analysis of one response, as the worker would have left it."""

    store: Store
    analysis: Row

    def rows(self, name: str, view: View) -> list[Row]:
        found = TABLES[name].rows(self.store.lens, settled(self.store.lens, view.parameters(self.analysis)))
        rows: list[Row] = found.to_pylist()
        return rows


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    folder = tmp_path_factory.mktemp("clipped")
    store = Store(Settings(data_dir=folder / "data"))
    asked(store, "scored", "a1", {0: "x1"}, **THRESHOLDS)
    pq.write_table(segment(), folder / "shard.parquet")
    store.analyses.finish("x1", [folder / "shard.parquet"], {"counted": len(TOKENS)}, "cpu")
    store.lens.publish()
    yield Scored(store, store.analyses.get("a1"))
    store.close()


def segment() -> pa.Table:
    """`TOKENS` as a response with A = 1; the fourth is another token than the fifth."""
    n = len(TOKENS)
    columns: dict[str, list[Any]] = {
        "group_id": ["g"] * n,
        "sample_id": ["s"] * n,
        "position": list(range(n)),
        "turn": [turn for turn, *_ in TOKENS],
        "token_id": list(range(n)),
        "counted": [True] * n,
        "advantage": [1.0] * n,
        "logp_rollout": [math.log(mu) for _, mu, *_ in TOKENS],
        "log_ratio__rollout_new": [math.log(pi / mu) for _, mu, pi, *_ in TOKENS],
        "tv_binary__rollout_new": [abs(pi - mu) for _, mu, pi, *_ in TOKENS],
        "log_ratio__rollout_old": [mismatch for *_, mismatch, _ in TOKENS],
        "entropy_old": [entropy for *_, entropy in TOKENS],
    }
    arrays = [pa.array(columns.get(field.name, [None] * n), field.type) for field in SEGMENT_SCHEMA]
    return pa.table(arrays, schema=SEGMENT_SCHEMA)


def test_mean_entropy_of_what_is_dropped_against_all(scored: Scored) -> None:
    rows = {row["method"]: row for row in scored.rows("clipped_summary", TokensView())}
    assert rows["all"]["mean_entropy"] == pytest.approx((2.0 + 1.0 + 0.5 + 0.25) / 4)  # one is not known
    assert [rows[name]["mean_entropy"] for name in ("ppo", "dppo", "disputed")] == pytest.approx([2.0, 1.0, 1.5])
    assert rows["all"]["mean_p"] == pytest.approx((0.01 + 0.7 + 0.5 + 0.9 + 0.9) / 5)
    assert rows["all"]["n_near"] is None


def test_the_drift_and_the_mismatch_of_each_turn(scored: Scored) -> None:
    first, second = scored.rows("turns", ReaderView(step=0, sample_id="s"))
    assert (first["n"], first["n_ppo"], first["n_dppo"], first["n_disputed"]) == (2, 1, 1, 2)
    assert first["mean_abs_dp"] == pytest.approx((0.008 + 0.16) / 2)
    assert first["mean_mismatch"] == pytest.approx(-0.01)
    assert first["mean_abs_mismatch"] == pytest.approx(0.02)
    assert (second["n"], second["n_rated"], second["n_disputed"]) == (3, 3, 0)
    assert second["mean_mismatch"] == pytest.approx(0.01)


def test_a_metric_s_reach_and_depth(scored: Scored) -> None:
    view = ReaderView(step=0, sample_id="s", metric="entropy_old")
    at = view.parameters(scored.analysis)
    (scale,) = scored.store.lens.table("metric_scale", at).to_pylist()
    # of .25, .5, 1, 2 the 99 % quantile lies at .99 · 3 = 2.97, so 1 + .97 · (2 − 1)
    assert (scale["n_counted"], scale["n"]) == (5, 4)
    assert scale["reach"] == pytest.approx(1.97)
    stretch = scored.store.lens.table("stretch", {**at, "first": 0, "last": 9, "reach": scale["reach"]})
    assert stretch["level"].to_pylist() == [6, 3, 2, 1, None]  # 6 · .5/1.97 = 1.52, 6 · .25/1.97 = .76
    two_sided = {**at, "metric": "log_mismatch", "first": 0, "last": 9, "reach": 0.03}
    assert scored.store.lens.table("stretch", two_sided)["level"].to_pylist() == [2, -6, 4, None, 0]
    nothing = {**at, "first": 0, "last": 9, "reach": None}
    assert scored.store.lens.table("stretch", nothing)["level"].to_pylist() == [None] * 5


def ranked(**changed: Any) -> Row:
    rates = {f"{method}_{end}": value for method in ("ppo", "dppo") for end, value in RATE.items()}
    return {"token_id": 7, "token": " the", "sign": 1, "n": 10, "n_ppo": 2, "n_dppo": 0, **rates, **changed}


RATE = {"rate": 0.2, "low": 0.057, "high": 0.51}
BASE = {"base_ppo": 0.1, "base_dppo": 0.01}
AT = {"evaluated_at": "end", "anchor": "rollout", "x_limit": 2.0, "x_bins": 4}


def test_ranked_tokens_have_their_intervals_and_base_rates() -> None:
    rows = [ranked(**BASE), ranked(**BASE, token="<b>$x$", sign=-1, token_id=8)]
    figure = most_clipped(pa.Table.from_pylist(rows), AT, LIGHT)
    base, _, ppo, dppo = figure.data
    assert list(base.x) == [10.0, 10.0]
    assert list(ppo.x) == [20.0, 20.0]
    assert list(ppo.error_x.array) == pytest.approx([31.0, 31.0])
    assert list(ppo.error_x.arrayminus) == pytest.approx([14.3, 14.3])
    assert (ppo.marker.color, dppo.marker.color) == (LIGHT.ppo, LIGHT.dppo)
    assert list(ppo.customdata) == [7, 8]
    assert list(figure.layout.yaxis.ticktext) == ["␣the  A > 0", "&lt;b&gt;&#36;x&#36;  A < 0"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first is on top
    assert "2 of 10: 20.0 %" in ppo.hovertext[0]
    assert "would drop" in ppo.hovertext[0]


def bins(*rows: tuple[int, int, int, int, int]) -> pa.Table:
    """Rows (sign, x_bin, n, n_ppo, n_dppo) with their shares of the sign."""
    whole = {sign: [sum(row[at] for row in rows if row[0] == sign) for at in (2, 3, 4)] for sign in (1, -1)}
    names = ("share", "share_ppo", "share_dppo")
    return pa.Table.from_pylist(
        [
            {"sign": sign, "x_bin": at, "n": n, "n_ppo": ppo, "n_dppo": dppo}
            | {
                name: part / all_ if all_ else None
                for name, part, all_ in zip(names, (n, ppo, dppo), whole[sign], strict=True)
            }
            for sign, at, n, ppo, dppo in rows
        ]
    )


def test_dropped_tokens_by_probability_and_side() -> None:
    table = bins((1, 0, 10, 30, 2), (1, 3, 30, 10, 1), (-1, 1, 50, 0, 0))
    figure = clipped_probability(table, AT, LIGHT)
    assert [trace.name for trace in figure.data] == ["all y", "PPO y", "DPPO y", "all y2", "PPO y2", "DPPO y2"]
    every, ppo, dppo = figure.data[:3]
    assert list(every.x) == [-1.5, -0.5, 0.5, 1.5]
    assert list(every.y) == [25.0, 0.0, 0.0, 75.0]
    assert list(ppo.y) == [75.0, 0.0, 0.0, 25.0]
    assert (dppo.mode, list(dppo.x), list(dppo.y)) == ("markers", [-1.5, 1.5], [0.0, 0.0])  # three have no shape
    assert "2 tokens" in dppo.hovertext[0]
    assert list(figure.data[4].x) == []
    texts = [note.text for note in figure.layout.annotations]
    assert re.sub("<span[^>]*>|</span>", "", texts[0]) == (
        "<b>A &gt; 0</b>   all 40 tokens<br>would be dropped at the step’s end: PPO 40, DPPO 3"
    )
    assert "A &lt; 0" in texts[1]
    alone = clipped_probability(bins((-1, 1, 50, 0, 0)), AT, LIGHT)
    assert list(alone.layout.yaxis.domain) == [0, 1]


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_without_tokens_the_figures_say_so(theme: Theme) -> None:
    for figure in (most_clipped(pa.table({}), AT, theme), clipped_probability(pa.table({}), AT, theme)):
        assert json.loads(figure.to_json())["layout"]["paper_bgcolor"] == theme.paper
        assert not figure.data
        assert figure.layout.annotations[0].text
