"""The figure of bins, from a hand-made table."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from web.figures.bins import dumbbells
from web.figures.theme import THEMES
from web.words import bin_label

LIGHT = THEMES["light"]
HOSTILE = "<a href='javascript:x'>&</a>"


def row(
    sign: int, low: float | None, high: float | None, n: int, first: int, second: int, **more: Any
) -> dict[str, Any]:
    found = {"sign": sign, "low": low, "high": high, "n": n, "n_first": first, "n_second": second}
    return {**found, "n_only_first": 1, "n_only_second": 0, "token": None, "token_id": None, **more}


def test_a_mark_stands_at_the_share_of_its_bin() -> None:
    rows = [row(1, 0.0, 0.1, 10, 5, 1), row(1, 0.1, 1.0, 4, 0, 1), row(-1, 0.0, 0.1, 8, 2, 2)]
    figure = dumbbells(pa.Table.from_pylist(rows), "probability", ("PPO", "IcePop"), "end", LIGHT)
    lines, first, second, _, below, _ = figure.data
    assert (first.name, list(first.x), list(first.y)) == ("PPO", [50.0, 0.0], [0, 1])
    assert (second.name, list(second.x)) == ("IcePop", [10.0, 25.0])
    assert list(lines.x) == [50.0, 10.0, None, 0.0, 25.0, None]
    assert (below.yaxis, list(below.x)) == ("y2", [25.0])
    assert list(figure.layout.yaxis.ticktext) == ["0 – 0.1", "0.1 – 1"]
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]  # A > 0 above A < 0
    assert figure.layout.xaxis.title.text == "share that would be dropped at the step’s end"
    assert first.hovertext[0] == "<b>0 – 0.1</b><br>PPO: 5 of 10 (50.0 %)<br>only PPO: 1"
    taller = dumbbells(pa.Table.from_pylist(rows * 2), "probability", ("PPO", "IcePop"), "logged", LIGHT)
    assert taller.layout.height > figure.layout.height
    assert taller.layout.xaxis.title.text == "share dropped"


def test_no_tokens_are_said_so_and_a_sign_alone_is_a_panel() -> None:
    table = pa.Table.from_pylist([row(-1, 0.0, 0.1, 8, 0, 0)])
    assert len(dumbbells(table, "probability", ("PPO", "DPPO"), "end", LIGHT).data) == 3
    nothing = dumbbells(table.slice(0, 0), "probability", ("PPO", "DPPO"), "end", LIGHT)
    assert not nothing.data
    assert nothing.layout.annotations[0].text == "no tokens with a gradient here"


def test_a_token_s_text_is_never_markup() -> None:
    rows = [row(1, None, None, 3, 1, 0, token=HOSTILE, token_id=7), row(1, None, None, 3, 1, 0, token_id=9)]
    figure = dumbbells(pa.Table.from_pylist(rows), "token", ("PPO", "DPPO"), "end", LIGHT)
    assert "<a" not in json.dumps(figure.to_plotly_json(), default=str)
    assert figure.layout.yaxis.ticktext[1] == "id 9"


def test_bins_are_named_by_what_they_hold() -> None:
    assert bin_label("position", 0, 0) == "0"
    assert bin_label("decile", 1200, 4000) == "1,200 – 4,000"
    assert bin_label("entropy", 0.5, 1.0) == "0.5 – 1 nats"
    assert bin_label("entropy", 3.0, None) == "≥ 3 nats"
    assert bin_label("entropy", None, None) == "not known"
