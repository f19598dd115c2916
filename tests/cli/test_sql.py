"""How `dppo sql` words a result: whole numbers and ids, nothing a terminal would obey, JSON that every reader takes."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.cli.sql import as_text, write_table
from tests.live import Server


@pytest.fixture
def dppo(server: Server) -> Any:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["sql", *arguments, "--server", server.url])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_columns_are_aligned_and_whole() -> None:
    table = pa.table({"sample_id": ["a", "bcd"], "n": [1, 22], "x": [0.30000001192092896, None]})
    assert as_text(table).splitlines() == [
        "sample_id   n                    x",
        "a           1  0.30000001192092896",
        "bcd        22                 NULL",
    ]
    assert as_text(table.slice(0, 0)).split() == ["sample_id", "n", "x"]


def test_a_row_too_wide_for_the_terminal_is_lines() -> None:
    table = pa.table({"sample_id": ["a", "b"], "reward": [1.5, None]})
    assert len(as_text(table, 17).splitlines()) == 3
    assert as_text(table, 16).splitlines() == ["sample_id  a", "reward     1.5", "", "sample_id  b", "reward     NULL"]


def test_text_from_a_log_is_one_line_and_harmless() -> None:
    hostile = "\x1b[31mred\x1b[0m\n[b]x\u202e"
    (_, line) = as_text(pa.table({"response_text": [hostile]})).splitlines()
    assert line == "‹001B›[31mred‹001B›[0m↵[b]x‹202E›"
    (_, line) = as_text(pa.table({"texts": [[hostile]]})).splitlines()
    assert line.isprintable()


def test_wide_results_reach_a_pipe_whole(dppo: Any) -> None:
    columns = [f"'{number:040}' AS column_{number}" for number in range(10)]
    names, row = dppo(f"SELECT {', '.join(columns)} FROM range(1)").splitlines()
    assert names.split() == [f"column_{number}" for number in range(10)]
    assert row.split() == [f"{number:040}" for number in range(10)]


def test_json_is_json(dppo: Any) -> None:
    numbers = "sum(i) AS s, sum(i + .25) AS d, 'nan'::DOUBLE AS n, '-infinity'::DOUBLE AS i"
    printed = dppo(f"SELECT {numbers}, list('inf'::DOUBLE) AS l FROM range(3) r(i)", "--json")
    (row,) = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row == {"s": 3, "d": 3.75, "n": None, "i": None, "l": [None, None, None]}
    assert isinstance(row["s"], int)


def test_columns_of_one_name_are_told_apart(dppo: Any, tmp_path: Path) -> None:
    statement = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a"
    assert json.loads(dppo(statement, "--json")) == [{"a": 1, "a_1": 2, "a_1_1": 3, "a_2": 4}]
    dppo(statement, "-o", str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == '"a","a_1","a_1_1","a_2"'


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_a_format_cannot_hold_is_said(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"wait": pa.array([timedelta(days=1)]).cast(pa.duration("s")), "sum": [Decimal("1")]})
    interval = pa.table({"wait": pa.array([(0, 3, 0)], pa.month_day_nano_interval())})
    write_table(table, tmp_path / f"fine{suffix}")
    with pytest.raises(ValueError, match=r"interval.*cast the column to VARCHAR"):
        write_table(interval, tmp_path / f"out{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"fine{suffix}"]
