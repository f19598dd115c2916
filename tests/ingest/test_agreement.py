"""`check` and `examine` hold the same rules: one on columns, one with words."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from service.ingest.check import doubtful
from service.ingest.examine import examine
from service.ingest.lines import Lines
from service.ingest.ndjson import JsonLines, RecordReader
from tests.ingest.test_same_rows import records

NUMBERS: list[Any] = [
    -1,
    0,
    1,
    -0.5,
    0.5,
    1.5,
    2,
    2**31,
    2**32,
    2**63,
    2**64,
    -(2**63) - 1,
    1e300,
    10**30,
    None,
    True,
    False,
]
ODD: list[Any] = [*NUMBERS, "", "x", "y" * 201, "\x01", [], {}, [None], [[]], [[1]], [[None]], [1, "x"]]


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """A valid record with a few values exchanged."""
    record = draw(records())
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(record)))
        value = record[name]
        if isinstance(value, list) and value and draw(st.booleans()):
            change = draw(st.sampled_from(["element", "shorter", "longer", "inner"]))
            place = draw(st.integers(0, len(value) - 1))
            value = list(value)
            if change == "element":
                value[place] = draw(st.sampled_from(NUMBERS + ODD))
            elif change == "inner" and isinstance(value[place], list) and value[place]:
                value[place] = [draw(st.sampled_from(NUMBERS)), *value[place][1:]]
            else:
                value = value[1:] if change == "shorter" else [*value, value[-1]]
            record[name] = value
        else:
            record[name] = draw(st.sampled_from(ODD))
    return record


def suspects(some: list[dict[str, Any]], step: int | None) -> set[int]:
    """The places that the quick reading does not vouch for."""
    lines = Lines()
    for number, one in enumerate(some, 1):
        lines.append(number, json.dumps(one).encode())
    reading = JsonLines(lines, RecordReader()).read()
    found = set(reading.unread)
    if reading.columns is not None:
        places = np.delete(np.arange(len(some)), reading.unread)
        found.update(places[doubtful(reading.columns, step)].tolist())
    return found


@settings(max_examples=100, deadline=None)
@given(broken(), st.none() | st.integers(0, 2))
def test_what_is_wrong_is_suspect(record: dict[str, Any], step: int | None) -> None:
    errors = examine(1, record, step).errors
    if errors:
        assert suspects([record], step) == {0}


@settings(max_examples=60, deadline=None)
@given(records(), st.none() | st.integers(0, 2))
def test_what_is_right_is_not(record: dict[str, Any], step: int | None) -> None:
    wrong_step = step is not None and record["step"] != step
    assert bool(examine(1, record, step).errors) == wrong_step
    assert suspects([record], step) == ({0} if wrong_step else set())


@settings(max_examples=40, deadline=None)
@given(st.lists(broken() | records(), min_size=2, max_size=5))
def test_wrong_records_beside_right_ones(some: list[dict[str, Any]]) -> None:
    wrong = {place for place, one in enumerate(some) if examine(place, one, None).errors}
    assert wrong <= suspects(some, None)
