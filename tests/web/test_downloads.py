"""What can be taken home of a page: the rows of a figure or a table, and the statement that gives them."""

from __future__ import annotations

import io

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from service.api.views import FIGURES, TABLES
from tests.web.conftest import Site

RESPONSE = {"step": 0, "sample_id": "positive"}
NEEDED = {
    **dict.fromkeys(("tokens", "strip", "turns", "siblings"), RESPONSE),
    "token": {**RESPONSE, "at": 5},
    "token_places": {"step": 0, "token_id": 3},
}


def fetch(site: Site, name: str, kind: str) -> bytes:
    other = {"b": site.analysis, "b_step": 1} if name.startswith("compare_") else {}
    response = site.server.api.get(
        f"/analyses/{site.analysis}/tables/{name}",
        params={"eps_high": 0.3, "delta_low": 0.1, **NEEDED.get(name, {"step": 0}), **other, "format": kind},
    )
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.parametrize("name", TABLES)
def test_the_statement_of_a_table_gives_its_rows_in_a_notebook(site: Site, name: str) -> None:
    rows = pa.ipc.open_stream(fetch(site, name, "arrow")).read_all()
    with duckdb.connect(site.server.data_dir / "lens.duckdb", read_only=True) as notebook:
        found = notebook.sql(fetch(site, name, "sql").decode()).to_arrow_table()
    assert found.schema == rows.schema
    assert found.equals(rows)
    assert pa.parquet.read_table(io.BytesIO(fetch(site, name, "parquet"))).num_rows == rows.num_rows
    assert pa.csv.read_csv(io.BytesIO(fetch(site, name, "csv"))).column_names == rows.column_names


def test_the_rows_are_those_of_the_view(site: Site) -> None:
    (row,) = (
        row
        for row in pa.ipc.open_stream(fetch(site, "cells", "arrow")).read_all().to_pylist()
        if (row["step"], row["sign"], row["cell"]) == (0, 1, "ppo_only_drops")
    )
    assert row["n"] == 3  # 1 + ε_high = 1.3 lies below 1.8


def test_every_figure_names_its_table() -> None:
    assert {figure.table for figure in FIGURES.values()} <= TABLES.keys()


def test_an_unknown_table_is_answered_with_the_known_ones(site: Site) -> None:
    response = site.server.api.get(f"/analyses/{site.analysis}/tables/celsl")
    assert response.status_code == 404
    assert "cells" in response.json()["detail"]
