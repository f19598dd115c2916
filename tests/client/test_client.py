"""What notebooks and scripts get: tables, figures, and a data directory without a service."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.client import ApiError, Client
from tests.live import Server
from tests.tiny import records

TOKENS = sum(len(row["response_token_ids"]) for row in records())


def logged() -> list[dict[str, Any]]:
    """Rollouts that carry both policies, so that no model is needed."""
    rows = records()
    for row in rows:
        row["old_logprobs"] = row["rollout_logprobs"]
        row["new_logprobs"] = [value - 0.5 for value in row["rollout_logprobs"]]
    return rows


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    with Server(tmp_path_factory.mktemp("client") / "data") as server:
        server.api.post("/runs", json={"run": "mine"})
        assert server.upload("mine", logged())["state"] == "done"
        yield server, server.analyze("mine", source="logged", evaluated_at="logged")["result"]["analysis"]


def test_tables_and_lists(analysed: tuple[Server, str]) -> None:
    server, analysis = analysed
    with Client(server.url) as client:
        counted = client.sql(f"SELECT count(*) AS n, avg(log_ratio) AS r FROM tokens WHERE analysis = '{analysis}'")
        assert counted.to_pylist() == [{"n": TOKENS, "r": pytest.approx(-0.5, abs=1e-6)}]
        assert counted.to_pandas()["n"].tolist() == [TOKENS]
        sample = records()[0]
        tokens = client.tokens(analysis, 0, sample["sample_id"])
        assert tokens["token_id"].to_pylist() == sample["response_token_ids"]
        assert [row["analysis"] for row in client.analyses("mine")] == [analysis]
        assert [row["rollouts"] for row in client.uploads("mine")] == [12]
        assert client.checkpoints("mine") == []
        assert client.table(analysis, "step_summary").num_rows > 0


def test_figures_are_plotly_figures(analysed: tuple[Server, str]) -> None:
    import plotly.graph_objects as go

    server, analysis = analysed
    with Client(server.url) as client:
        plane = client.figure(analysis, "ratio_plane", delta_high=0.1, step=None)
        timeline = client.run_figure("mine", next(iter(_run_figures())))
        with pytest.raises(ApiError, match="no figure"):
            client.figure(analysis, "nothing")
    assert isinstance(plane, go.Figure)
    assert plane.data
    assert isinstance(timeline, go.Figure)


def _run_figures() -> dict[str, Any]:
    from service.api.views import RUN_FIGURES

    return RUN_FIGURES


def test_a_data_directory_beside_its_service(analysed: tuple[Server, str]) -> None:
    server, analysis = analysed
    with Client.local(server.data_dir) as local:
        assert [row["run"] for row in local.runs()] == ["mine"]
        assert [row["analysis"] for row in local.analyses("mine")] == [analysis]
        assert local.table(analysis, "tokens").num_rows == TOKENS
        assert local.rollouts("mine").num_rows == 12
        assert local.sql("SELECT keep_dppo(.2, .1, 1, .15, .15) AS keep").to_pylist() == [{"keep": False}]
        with pytest.raises(ValueError, match="step_summary"):
            local.table(analysis, 'tokens" UNION FROM "runs')
        server.api.post("/runs", json={"run": "later"})
        assert len(local.runs()) == 1  # as it was opened
        local.refresh()
        assert [row["run"] for row in local.runs()] == ["later", "mine"]
        assert server.api.delete("/runs/later").status_code == 204


def test_a_data_directory_that_moved(analysed: tuple[Server, str], tmp_path: Path) -> None:
    server, analysis = analysed
    moved = tmp_path / "it's here"
    shutil.copytree(server.data_dir, moved, ignore=shutil.ignore_patterns("catalog.duckdb*", ".lens"))
    for path in moved.rglob("part.parquet"):
        assert path.is_file()
    with Client.local(moved) as local:
        assert local.table(analysis, "tokens").num_rows == TOKENS
        files = local.sql("SELECT getvariable('dppo_data') AS place").to_pylist()
        assert files == [{"place": str(moved)}]
    with pytest.raises(FileNotFoundError, match=r"lens\.duckdb"):
        Client.local(tmp_path)


def test_the_service_of_a_data_directory(analysed: tuple[Server, str]) -> None:
    server, _ = analysed
    with Client.local(server.data_dir) as local:
        lock = server.data_dir / "serve.lock"
        kept = lock.read_text()
        assert local.service() is not None
        try:
            lock.write_text(f"PID {os.getpid()} at 0.0.0.0:{server.url.rpartition(':')[2]}\n")
            service = local.service()
            assert service is not None
            with service:
                assert [row["run"] for row in service.runs()] == ["mine"]
            lock.write_text("PID 4194305 at 127.0.0.1:8000\n")  # one more than the largest there can be
            assert local.service() is None
        finally:
            lock.write_text(kept)


def test_a_service_of_a_script_s_own(tmp_path: Path) -> None:
    with Client.serve(tmp_path / "data") as client:
        client.create_run("mine")
        with Client.local(tmp_path / "data") as local:
            found = local.service()
            assert found is not None
            assert found.url == client.url
            assert [row["run"] for row in found.runs()] == ["mine"]
            found.close()
            with pytest.raises(RuntimeError, match=r"in use by another `dppo serve` \(PID"):
                Client.serve(tmp_path / "data")
    with Client.local(tmp_path / "data") as local:
        assert local.service() is None
        assert [row["run"] for row in local.runs()] == ["mine"]


def test_sql_to_a_file(analysed: tuple[Server, str], tmp_path: Path) -> None:
    server, analysis = analysed
    statement = f"SELECT token_id, log_ratio FROM tokens WHERE analysis = '{analysis}' ORDER BY sample_id, position"

    def dppo(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["sql", *arguments, "--server", server.url])
        assert result.exit_code == code, result.output
        return result

    with Client(server.url) as client:
        expected = client.sql(statement)
    for suffix, read in (
        (".csv", pyarrow.csv.read_csv),
        (".parquet", pyarrow.parquet.read_table),
        (".arrow", lambda path: pa.ipc.open_file(path).read_all()),
    ):
        file = tmp_path / f"out{suffix}"
        said = json.loads(dppo(statement, "--output", str(file), "--json").stdout)
        assert said == {"file": str(file), "rows": TOKENS, "bytes": file.stat().st_size}
        assert read(file).to_pydict() == expected.to_pydict()
    assert ".parquet" in dppo(statement, "-o", str(tmp_path / "out.xlsx"), code=1).stderr
    nested = dppo("SELECT [1, 2] AS pair FROM runs", "-o", str(tmp_path / "pair.csv"), code=1).stderr
    assert "pair" in nested
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.arrow", "out.csv", "out.parquet"]
