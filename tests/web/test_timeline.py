"""Small multiples over steps, and the strip of one response."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
import pytest

from dppo_core.methods.catalog import METHODS
from service.api.views.overview import MOST_STEPS, thinned
from web.figures.lines import Line, panel
from web.figures.strip import strip
from web.figures.theme import THEMES
from web.figures.timeline import FIGURES
from web.words import method_labels

LIGHT = THEMES["light"]
NUMBERS = (
    *("mean_reward", "mean_length", "improvement", "mean_entropy_old", "mean_topk_mass_old", "noise_tv", "bad_share"),
    *("mean_abs_dp", "q50_abs_dp", "q90_abs_dp", "q99_abs_dp", "min_dp", "max_dp"),
    *("mean_tv_binary_mismatch", "mean_tv_binary_old"),
    *("ppo_positive", "ppo_negative", "binary_tv_positive", "binary_tv_negative"),
)
SCHEMA = pa.schema(
    [
        ("step", pa.uint32()),
        *((name, pa.float64()) for name in NUMBERS),
        ("anchor", pa.string()),
        ("evaluated_at", pa.string()),
    ]
)
PAIR = {"anchor": "old", "evaluated_at": "end"}
TABLE = pa.Table.from_pylist(
    [
        {
            "step": 1,
            "mean_reward": 0.25,
            "noise_tv": 0.0002,
            "min_dp": -0.5,
            "max_dp": 0.25,
            "bad_share": 0.0,
            "mean_abs_dp": 0.004,
            "q50_abs_dp": 0.0,
            "q90_abs_dp": 0.01,
            "q99_abs_dp": 0.05,
            **PAIR,
            "ppo_positive": 0.05,
            "binary_tv_positive": 0.01,
        },
        {"step": 2, "mean_reward": 0.5},
        {
            "step": 3,
            "mean_reward": 0.75,
            "noise_tv": 0.0002,
            "min_dp": -0.25,
            "max_dp": 0.5,
            "bad_share": 0.02,
            "mean_abs_dp": 0.006,
            "q50_abs_dp": 0.001,
            "q90_abs_dp": 0.02,
            "q99_abs_dp": 0.08,
            **PAIR,
            "ppo_positive": 0.04,
            "binary_tv_positive": 0.02,
        },
    ],
    schema=SCHEMA,
)
MARK_SCHEMA = pa.schema(
    [
        ("step", pa.uint32()),
        ("quantity", pa.string()),
        *((name, pa.float64()) for name in ("value", "bound")),
        ("marked", pa.bool_()),
    ]
)
MARKS = pa.Table.from_pylist(
    [
        {"step": 1, "quantity": "mean_abs_dp", "value": 0.004, "bound": None, "marked": False},
        {"step": 3, "quantity": "mean_abs_dp", "value": 0.006, "bound": 0.005, "marked": True},
        {"step": 3, "quantity": "bad_share", "value": 0.02, "bound": 0.01, "marked": True},
        {"step": 3, "quantity": "max_dp", "value": 0.5, "bound": 0.6, "marked": False},
    ],
    schema=MARK_SCHEMA,
)
RATES = pa.Table.from_pylist(
    [
        {"step": step, "method": method, "sign": sign, "share": share}
        for method, sign, values in (
            ("cppo", 1, (0.02, 0.025)),
            ("ppo_old", 1, (0.05, 0.04)),
            ("dppo_binary_tv_old", 1, (0.01, 0.02)),
            ("ppo_old", -1, (0.02, 0.03)),
        )
        for step, share in zip((1, 3), values, strict=True)
    ]
)


def draw(name: str, table: pa.Table = TABLE, marks: pa.Table = MARKS) -> go.Figure:
    return FIGURES[name](table, marks, LIGHT)


def trace(figure: go.Figure, name: str) -> Any:
    return next(entry for entry in figure.data if entry.name == name)


def test_a_step_that_is_not_scored_is_a_gap() -> None:
    mean = trace(draw("drift"), "mean |π − π_old|")
    assert list(mean.x) == [1, 2, 3]
    assert list(mean.y) == [0.004, None, 0.006]
    assert mean.connectgaps is False
    assert list(trace(draw("reward"), "mean reward").y) == [0.25, 0.5, 0.75]


def test_bands_are_drawn_where_both_edges_are_known_and_what_is_zero_at_the_foot_of_the_axis() -> None:
    figure = draw("drift")
    assert list(figure.layout.yaxis.range) == [-3, -1]  # from .001 to .1: the median of step 1 is 0
    assert list(trace(figure, "median").y) == [0.001, None, 0.001]
    wide = trace(figure, "90 to 99 %")
    assert list(wide.x) == [1, 1, None, 3, 3, None]  # two steps apart, nothing between them
    assert list(wide.y) == [0.05, 0.01, None, 0.08, 0.02, None]
    assert wide.hoverinfo == "skip"


def test_marked_steps_have_a_ring_and_the_bound_is_dotted() -> None:
    figure = draw("drift")
    assert (list(trace(figure, "marked").x), list(trace(figure, "marked").y)) == ([3], [0.006])
    assert (list(trace(figure, "bound").x), list(trace(figure, "bound").y)) == ([3], [0.005])
    bad = draw("bad_updates")
    assert (list(trace(bad, "marked").y), list(trace(bad, "bound").y)) == ([2.0], [1.0])  # percent
    assert "marked" not in [entry.name for entry in draw("extremes").data]


def test_mask_rates_are_percent_in_the_methods_colours_on_one_scale() -> None:
    positive, negative = (draw(f"masks_{sign}", RATES) for sign in ("positive", "negative"))
    ppo, dppo, other = (trace(positive, name) for name in ("PPO", "DPPO", "cppo"))
    assert list(ppo.y) == pytest.approx([5.0, 4.0])
    assert list(dppo.y) == pytest.approx([1.0, 2.0])
    assert (ppo.line.color, dppo.line.color, other.line.color) == (LIGHT.ppo, LIGHT.dppo, LIGHT.ink)
    assert (ppo.line.dash, dppo.line.dash) == ("solid", "5px,3px")
    assert [annotation.text for annotation in positive.layout.annotations] == ["DPPO", "cppo", "PPO"]  # by height
    assert positive.layout.yaxis.range == negative.layout.yaxis.range
    assert positive.layout.yaxis.range[1] == pytest.approx(5.75)  # the highest rate of both signs, and room


def test_steps_whose_uploads_are_gone_keep_their_rates() -> None:
    figure = FIGURES["masks_positive"](RATES, MARKS, LIGHT, steps=[])
    assert set(figure.layout.xaxis.tickvals) == set(RATES["step"].to_pylist())


def test_two_methods_of_a_family_are_called_by_their_names() -> None:
    assert method_labels(["icepop", "dppo_binary_tv_old", "ppo_rollout", "ppo_old"]) == {
        "ppo_rollout": "ppo_rollout",
        "ppo_old": "ppo_old",
        "dppo_binary_tv_old": "DPPO",
        "icepop": "icepop",
    }


def test_labels_that_would_lie_on_each_other_are_pushed_apart_and_others_stay() -> None:
    lines = [Line("a", [0], [1.0]), Line("b", [0], [1.0]), Line("c", [0], [2.0])]
    figure = panel(lines, LIGHT, range=[0, 2])
    shifts = {annotation.text: annotation.yshift for annotation in figure.layout.annotations}
    assert (shifts["a"], shifts["b"], shifts["c"]) == pytest.approx((6.25, -6.25, 0), abs=0.06)  # the first line on top


def test_extremes_lie_around_zero() -> None:
    figure = draw("extremes")
    assert list(trace(figure, "max").y) == [0.25, None, 0.5]
    assert list(trace(figure, "min").y) == [-0.5, None, -0.25]
    assert list(figure.layout.yaxis.range) == pytest.approx([-0.575, 0.575])


def test_every_panel_has_the_same_margins_so_that_steps_stand_below_each_other() -> None:
    panels = [draw(name) for name in FIGURES if not name.startswith("masks") and name != "drift"]
    assert len({(figure.layout.margin.l, figure.layout.margin.r) for figure in panels if figure.data}) == 1


@pytest.mark.parametrize("name", FIGURES)
def test_without_steps_a_figure_says_so(name: str) -> None:
    table = RATES if name.startswith("masks") else TABLE
    figure = draw(name, table.slice(0, 0), MARKS.slice(0, 0))
    assert not figure.data
    assert figure.layout.annotations[0].text == "no steps yet"
    if not name.startswith("masks"):
        assert bool(draw(name, TABLE.slice(1, 1)).data) == (name == "reward")


def test_many_steps_are_thinned_but_no_marked_one_is_lost() -> None:
    n = 3 * MOST_STEPS
    marks = pa.table({"step": pa.array(range(n), pa.uint32()), "marked": [step == 7 for step in range(n)]})
    table = pa.table({"step": pa.array(range(n), pa.uint32())})
    kept = thinned(table, marks)["step"].to_pylist()
    assert kept == sorted({*range(0, n, 3), 7})
    assert thinned(table.slice(0, 9), marks).num_rows == 9
    assert thinned(table.slice(0, 0), marks.slice(0, 0)).num_rows == 0


def test_thousands_of_steps_stay_small() -> None:
    n = MOST_STEPS
    columns = {
        name: pa.array([math.sin(step + place) / 100 for step in range(n)]) for place, name in enumerate(NUMBERS)
    }
    names = {name: pa.array([PAIR[name]] * n) for name in PAIR}
    table = pa.table({"step": pa.array(range(n), pa.uint32()), **columns, **names})
    rates = pa.Table.from_pylist(
        [
            {"step": step, "method": name, "sign": 1, "share": math.sin(step) ** 2}
            for name in list(METHODS)[:8]
            for step in range(n)
        ]
    )
    for name in FIGURES:
        assert len(str(draw(name, rates if name.startswith("masks") else table).to_json())) < 300_000, name


def tokens(*rows: dict[str, Any]) -> pa.Table:
    base = {
        "position": 0,
        "token": "x",
        "token_id": 1,
        "log_ratio": 0.0,
        "divergence": 0.0,
        "advantage": 1.0,
        "cell": "both_keep",
    }
    return pa.Table.from_pylist([{**base, **row} for row in rows])


VIEW = {
    "divergence": "binary_tv",
    "anchor": "rollout",
    "evaluated_at": "end",
    "eps_low": 0.2,
    "eps_high": 0.28,
    "delta_low": 0.1,
    "delta_high": 0.15,
}


def test_the_strip_shows_both_bounds_for_the_signs_that_occur() -> None:
    table = tokens(
        {"position": 0, "log_ratio": 0.1, "divergence": 0.01},
        {"position": 1, "log_ratio": math.log(1.8), "divergence": 0.008, "cell": "ppo_only_drops", "token": "<b>"},
        {"position": 2, "log_ratio": None, "divergence": None, "cell": "unknown"},
    )
    figure = strip(table, VIEW, LIGHT)
    upper, lower = (entry for entry in figure.data if entry.name == "ppo_only_drops")
    assert list(upper.y) == pytest.approx([math.log(1.8)])
    assert list(lower.y) == pytest.approx([math.log10(0.008)])
    assert list(upper.customdata) == [1]
    assert "&lt;b&gt;" in upper.hovertext[0]
    assert [shape.y0 for shape in figure.layout.shapes] == pytest.approx([math.log(1.28), math.log10(0.15)])
    both = strip(tokens({"position": 0}, {"position": 1, "advantage": -1.0}), VIEW, LIGHT)
    assert sorted(shape.y0 for shape in both.layout.shapes) == pytest.approx(
        sorted([math.log(1.28), math.log(0.8), math.log10(0.15), math.log10(0.1)])
    )


def test_a_strip_without_known_ratios_says_so() -> None:
    assert "no token" in strip(tokens({"log_ratio": None}), VIEW, LIGHT).layout.annotations[0].text
