"""The two planes, from hand-made tables."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
import pytest

from web.figures.axes import divergence_axis, logit, logit_axis, ratio_axis
from web.figures.boundaries import crossing
from web.figures.planes import Frame, Selection, plane
from web.figures.theme import MARKS, THEMES, Theme, css

LIGHT = THEMES["light"]
FRAME = Frame(
    y="ratio",
    x_limit=4.0,
    y_low=-1.0,
    y_high=1.0,
    x_bins=4,
    y_bins=2,
    divergence="binary_tv",
    anchor="rollout",
    evaluated_at="end",
    delta_low=0.15,
    delta_high=0.15,
    n=7,
    sign=None,
    clipped={"left": 2, "right": 0},
    max_points=9,
)
DENSITY = pa.table({"x_bin": [0, 3, 3], "y_bin": [0, 1, 0], "n": [1, 5, 10]})
HOSTILE = "<a href='javascript:x'>&\x07</a>"


def dropped(**fields: Any) -> pa.Table:
    row = {
        "step": 3,
        "sample_id": HOSTILE,
        "position": 17,
        "token": HOSTILE,
        "token_id": 5,
        "sign": 1,
        "cell": "ppo_only_drops",
        "x": logit(0.01),
        "p": 0.01,
        "log_ratio": math.log(1.8),
        "divergence": 0.008,
        "advantage": 1.0,
        **fields,
    }
    return pa.Table.from_pylist([row])


def boundaries(eps_high: float = 0.28, delta: float = 0.15) -> pa.Table:
    """PPO and DPPO (binary TV) for A > 0, over three probabilities; where π would pass 1, nothing is dropped."""
    rows = []
    for p in (0.25, 0.5, 0.6, 0.9):
        for method, q in (("ppo", p * (1 + eps_high)), ("dppo", p + delta)):
            rows.append(
                {
                    "method": method,
                    "sign": 1,
                    "x": logit(p),
                    "p": p,
                    "log_ratio": math.log(q / p) if q < 1 else None,
                    "divergence": q - p if q < 1 else None,
                }
            )
    return pa.Table.from_pylist(rows)


def trace(figure: go.Figure, name: str) -> Any:
    return next(entry for entry in figure.data if entry.name == name)


def test_density_bins_land_in_their_place_and_empty_ones_stay_blank() -> None:
    density = plane(DENSITY, dropped().slice(0, 0), boundaries(), FRAME, LIGHT).data[0]
    assert list(density.x) == [-3, -1, 1, 3]
    assert list(density.y) == [-0.5, 0.5]
    assert density.customdata.tolist() == [[1, 0, 0, 10], [0, 0, 0, 5]]
    assert density.z[0][0] == 0.0  # log₁₀ of one token
    assert density.z[0][3] == pytest.approx(1.0)
    assert density.z[1][3] == pytest.approx(math.log10(5), rel=1e-6)
    assert math.isnan(density.z[1][0])


def test_a_dropped_token_is_a_mark_that_knows_where_it_is() -> None:
    points = trace(plane(DENSITY, dropped(), boundaries(), FRAME, LIGHT), "only PPO")
    assert points.x[0] == -4.0  # logit(.01) = −4.6 lies beyond the axis: drawn at its edge
    assert points.y[0] == pytest.approx(0.5878, abs=1e-4)
    assert points.customdata[0][:3] == [3, HOSTILE, 17]
    assert points.marker.color == LIGHT.ppo
    assert points.marker.symbol == MARKS["ppo_only_drops"].symbol


def hover(points: Any) -> str:
    """The hover text of the first mark, as Plotly fills it in."""
    told = points.customdata[0]
    return re.sub(r"%\{customdata\[(\d+)\]\}", lambda found: str(told[int(found[1])]), points.hovertemplate)


def test_hover_text_is_escaped_and_says_what_would_happen() -> None:
    text = hover(trace(plane(DENSITY, dropped(), boundaries(), FRAME, LIGHT), "only PPO"))
    assert "&lt;a href='javascript:x'&gt;&amp;‹0007›&lt;/a&gt;" in text
    assert "<a" not in text
    assert "only PPO would drop" in text
    assert "r = 1.80" in text
    assert "step 3, position 17" in text
    logged = replace(FRAME, evaluated_at="logged")
    assert "only PPO dropped" in hover(trace(plane(DENSITY, dropped(), boundaries(), logged, LIGHT), "only PPO"))


def test_boundaries_are_drawn_where_they_are_and_end_where_nothing_is_dropped() -> None:
    figure = plane(DENSITY, dropped(), boundaries(), FRAME, LIGHT)
    ppo, dppo = trace(figure, "ppo boundary"), trace(figure, "dppo boundary")
    assert list(ppo.y)[:3] == pytest.approx([math.log(1.28)] * 3)
    assert ppo.y[3] is None  # .9 × 1.28 > 1
    assert list(dppo.y)[:3] == pytest.approx([math.log(1.6), math.log(1.3), math.log(1.25)])
    assert (ppo.line.dash, dppo.line.dash) == ("solid", "5px,3px")
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert "PPO  A > 0, r > 1.28" in texts
    assert "DPPO  A > 0, TV > 0.15" in texts
    # between .5 and .6 the gap goes from ln(1.28/1.3) = −.0155 to ln(1.28/1.25) = .0237: 39.5 % of the way in logit
    assert "μ* = 0.54" in texts


def test_crossing_is_delta_over_epsilon() -> None:
    grid = [(logit(p), p) for p in (place / 1000 for place in range(100, 900))]
    ppo = [(x, math.log(1.28)) for x, _ in grid]
    dppo = [(x, math.log(1 + 0.15 / p)) for x, p in grid]
    met = crossing(ppo, dppo)
    assert met is not None
    assert 1 / (1 + math.exp(-met[0])) == pytest.approx(0.15 / 0.28, abs=1e-5)
    assert crossing(ppo, [(x, y + 1) for x, y in ppo]) is None


def test_the_divergence_plane_is_logarithmic_and_keeps_one_line_for_equal_thresholds() -> None:
    frame = replace(FRAME, y="divergence", y_low=-6.0, y_high=0.2)
    figure = plane(DENSITY, dropped(), boundaries(), frame, LIGHT)
    assert trace(figure, "only PPO").y[0] == pytest.approx(math.log10(0.008), abs=1e-4)
    assert list(trace(figure, "dppo boundary").y)[:3] == pytest.approx([math.log10(0.15)] * 3)
    assert [a.text for a in figure.layout.annotations if a.text.startswith("DPPO")] == ["DPPO  TV > 0.15"]


def test_a_plane_of_one_sign_shows_that_sign_only() -> None:
    figure = plane(DENSITY, dropped().slice(0, 0), boundaries(), replace(FRAME, sign=-1), LIGHT)
    assert list(trace(figure, "ppo boundary").x) == []


def test_without_tokens_there_is_no_axis_that_looks_like_a_result() -> None:
    figure = plane(DENSITY.slice(0, 0), dropped().slice(0, 0), boundaries(), FRAME, LIGHT)
    assert [annotation.text for annotation in figure.layout.annotations] == ["no tokens here"]
    assert figure.layout.xaxis.visible is False
    assert not figure.data


def test_what_lies_beyond_the_axes_and_what_is_left_out_is_said() -> None:
    figure = plane(DENSITY, dropped(), boundaries(), replace(FRAME, max_points=1), LIGHT)
    text = figure.layout.annotations[-1].text
    assert "7 tokens, every A; marked: the 1 dropped ones that moved most" in text
    assert "drawn at the edges: 2 left" in text
    assert "right" not in text


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_a_figure_is_plain_json_in_its_theme(theme: Theme) -> None:
    figure = json.loads(plane(DENSITY, dropped(), boundaries(), FRAME, theme).to_json())
    assert figure["layout"]["paper_bgcolor"] == theme.paper
    assert "layout" not in figure["layout"]["template"]  # no default template changes what was drawn


def test_ticks_are_readable() -> None:
    assert dict(zip(*(logit_axis(4.7, "")[key] for key in ("ticktext", "tickvals")), strict=True)) == pytest.approx(
        {".01": -4.595, ".1": -2.197, ".5": 0, ".9": 2.197, ".99": 4.595}, abs=1e-3
    )
    assert ratio_axis(-0.9, 0.9, "")["ticktext"] == ["×0.5", "×0.8", "×1", "×1.28", "×2"]
    assert divergence_axis(-3, 0.1, "")["ticktext"] == [".001", ".01", ".1", "1"]


def test_pages_and_figures_share_one_set_of_colours() -> None:
    text = css()
    for theme in THEMES.values():
        assert f"--ppo:{theme.ppo};" in text
        assert f"--dppo:{theme.dppo};" in text


def test_other_methods_have_their_names_and_no_boundary_that_is_not_theirs() -> None:
    frame = replace(FRAME, methods=("icepop", "dppo"), titles=("IcePop", "DPPO"), drawn=("dppo",))
    figure = plane(DENSITY, dropped(cell="icepop_only_drops"), boundaries(), frame, LIGHT)
    traces = {trace.name: trace for trace in figure.data}
    assert len(traces["only IcePop"].x) == 1
    assert "only IcePop would drop" in hover(traces["only IcePop"])
    assert "dppo boundary" in traces
    assert not {"ppo boundary", "crossing"} & traces.keys()


def test_a_selection_is_outlined_and_what_has_no_bound_reaches_the_edge() -> None:
    frame = replace(FRAME, selected=Selection(p_low=0.5, y_high=1.28))
    (outline,) = plane(DENSITY, dropped(), boundaries(), frame, LIGHT).layout.selections
    assert (outline.x0, outline.x1, outline.y0, outline.y1) == (0.0, 4.0, -1.0, pytest.approx(math.log(1.28)))
    on_divergence = replace(frame, y="divergence", y_low=-6.0, y_high=0.2, selected=Selection(p_high=0.0, y_low=0.01))
    (outline,) = plane(DENSITY, dropped(), boundaries(), on_divergence, LIGHT).layout.selections
    assert (outline.x0, outline.x1, outline.y0, outline.y1) == (-4.0, -4.0, pytest.approx(-2.0), 0.2)
    assert not plane(DENSITY, dropped(), boundaries(), FRAME, LIGHT).layout.selections
