"""Small multiples over steps, and the strip of one response."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest

from web.figures.strip import strip
from web.figures.theme import THEMES
from web.figures.timeline import FIGURES

LIGHT = THEMES["light"]
SCHEMA = pa.schema(
    [
        ("step", pa.uint32()),
        *(
            (name, pa.float64())
            for name in (
                "mean_reward",
                "mean_abs_dp",
                "min_dp",
                "max_dp",
                "mean_entropy_old",
                "ppo_positive",
                "ppo_negative",
                "binary_tv_positive",
                "binary_tv_negative",
            )
        ),
        ("anchor", pa.string()),
        ("evaluated_at", pa.string()),
    ]
)
TABLE = pa.Table.from_pylist(
    [
        {
            "step": 1,
            "mean_reward": 0.25,
            "mean_abs_dp": 0.004,
            "min_dp": -0.5,
            "max_dp": 0.25,
            "mean_entropy_old": 1.5,
            "ppo_positive": 0.05,
            "ppo_negative": 0.02,
            "binary_tv_positive": 0.01,
            "binary_tv_negative": 0.0,
            "anchor": "old",
            "evaluated_at": "end",
        },
        {"step": 2, "mean_reward": 0.5},
        {
            "step": 3,
            "mean_reward": 0.75,
            "mean_abs_dp": 0.006,
            "min_dp": -0.25,
            "max_dp": 0.5,
            "mean_entropy_old": 1.0,
            "ppo_positive": 0.04,
            "ppo_negative": 0.03,
            "binary_tv_positive": 0.02,
            "binary_tv_negative": 0.01,
            "anchor": "old",
            "evaluated_at": "end",
        },
    ],
    schema=SCHEMA,
)


def test_a_step_that_is_not_scored_is_a_gap() -> None:
    (line,) = FIGURES["drift"](TABLE, LIGHT).data
    assert list(line.x) == [1, 2, 3]
    assert list(line.y) == [0.004, None, 0.006]
    assert line.connectgaps is False
    assert line.hovertext[0] == "step 1: mean |π − π_old| 0.00400"
    assert list(FIGURES["reward"](TABLE, LIGHT).data[0].y) == [0.25, 0.5, 0.75]


def test_mask_rates_are_percent_in_the_methods_colours_on_one_scale() -> None:
    positive, negative = (FIGURES[f"masks_{sign}"](TABLE, LIGHT) for sign in ("positive", "negative"))
    ppo, dppo = positive.data
    assert list(ppo.y) == pytest.approx([5.0, None, 4.0], nan_ok=True)
    assert list(dppo.y) == pytest.approx([1.0, None, 2.0], nan_ok=True)
    assert (ppo.line.color, dppo.line.color) == (LIGHT.ppo, LIGHT.dppo)
    assert [annotation.text for annotation in positive.layout.annotations] == ["DPPO", "PPO"]
    assert positive.layout.yaxis.range == negative.layout.yaxis.range
    assert positive.layout.yaxis.range[1] == pytest.approx(5.75)  # the highest rate of both signs, and room


def test_extremes_lie_around_zero() -> None:
    figure = FIGURES["extremes"](TABLE, LIGHT)
    assert [list(line.y) for line in figure.data] == [[0.25, None, 0.5], [-0.5, None, -0.25]]
    assert list(figure.layout.yaxis.range) == pytest.approx([-0.575, 0.575])


@pytest.mark.parametrize("name", FIGURES)
def test_without_steps_a_figure_says_so(name: str) -> None:
    figure = FIGURES[name](TABLE.slice(0, 0), LIGHT)
    assert not figure.data
    assert figure.layout.annotations[0].text == "no steps yet"
    unscored = FIGURES[name](TABLE.slice(1, 1), LIGHT)
    assert bool(unscored.data) == (name == "reward")


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
