"""The command line against a real server: what it prints, `--json`, exit codes, errors that say what to do."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from typer.testing import CliRunner

from service.cli.main import app
from tests.conftest import Checkpoints
from tests.ingest.adapters.test_nemo_rl import logged as nemo_rl
from tests.ingest.adapters.test_prime_rl import exported as prime_rl
from tests.live import Server
from tests.tiny import records

COMMANDS = ("serve", "demo", "upload", "checkpoint", "analyze", "export", "runs", "sql", "doctor")


@pytest.fixture
def dppo(server: Server) -> Any:
    def run(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--server", server.url])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output
    assert len(result.output.splitlines()) > 6


def test_from_a_file_to_a_database(dppo: Any, server: Server, checkpoints: Checkpoints, tmp_path: Path) -> None:
    log = tmp_path / "rollouts.jsonl.gz"
    log.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in records())))
    uploaded = dppo("upload", "mine", str(log), "--temperature", "1.0", "--framework", "verl")
    assert "12 rollouts" in uploaded.stdout
    assert server.api.get("/runs/mine").json()["framework"] == "verl"
    for step, arguments in ((0, ["--step", "0"]), (1, ["--after", "0"])):
        registered = dppo("checkpoint", "mine", str(checkpoints.steps[step]), *arguments, "--json")
        assert json.loads(registered.stdout)["step"] == step
    done = json.loads(dppo("analyze", "mine", "--wait", "--json", "--delta-tv", "0.1").stdout)
    assert done["state"] == "done"
    analysis = done["result"]["analysis"]
    out = tmp_path / "out.duckdb"
    dppo("export", analysis, str(out))
    with duckdb.connect(out, read_only=True) as connection:
        counted = connection.execute("SELECT count(*), any_value(run) FROM tokens").fetchone()
    assert counted == (sum(len(row["response_token_ids"]) for row in records()), "mine")
    assert "exists" in dppo("export", analysis, str(out), code=1).stderr
    rows = json.loads(dppo("sql", f"SELECT delta_tv_low FROM analyses WHERE analysis = '{analysis}'", "--json").stdout)
    assert rows == [{"delta_tv_low": 0.1}]
    assert re.search(r"mine\s+verl\s+1\s+12\s+\d+\s+2\s+1", dppo("runs").stdout)


def test_what_an_import_found(dppo: Any, tmp_path: Path) -> None:
    log = tmp_path / "odd.jsonl"
    rows = [{**row, "response_mask": None, "colour": "red"} for row in records()]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = dppo("upload", "odd", str(log)).stderr
    first = "warning: 12 records have no response_mask: every response token counts."
    second = "note: Fields that the rollout record does not have were kept in meta: 'colour' (12). First in line 1."
    assert 0 < said.index(first) < said.index(second)
    assert "log the mask. First in lines 1, 2 and 3.\n" in said


@pytest.mark.parametrize("trainer", ["nemo-rl", "prime-rl"])
def test_a_trainer_s_file_in_two_commands(dppo: Any, server: Server, tmp_path: Path, trainer: str) -> None:
    """No format, no step, no checkpoint: the file says it all, and the log-probs are those of the log."""
    if trainer == "nemo-rl":
        file, rows, step, point, ratio = "train_data_step12.jsonl", nemo_rl(), 12, "start", -0.11 - -0.1
    else:
        file, rows, step, point, ratio = "rank_0.jsonl", [prime_rl()], 3, "logged", -1.1 - -1.0
    (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert f"{len(rows)} rollouts" in dppo("upload", "theirs", str(tmp_path / file)).stdout
    said = dppo("analyze", "theirs", "--wait")
    assert "as the trainer logged them" in said.stderr
    (address,) = re.findall(rf"{server.url}/analyses/(\w+)", said.stdout)
    assert httpx.get(f"{server.url}/analyses/{address}").status_code == 200
    plane = server.api.get(f"/analyses/{address}/figures/ratio_plane").json()
    assert plane["data"]
    assert server.api.get(f"/analyses/{address}").json()["evaluated_at"] == point
    statement = f"SELECT step, log_ratio FROM tokens WHERE analysis = '{address}' ORDER BY sample_id, position LIMIT 1"
    (token,) = json.loads(dppo("sql", statement, "--json").stdout)
    assert (token["step"], token["log_ratio"]) == (step, pytest.approx(ratio, abs=1e-6))


def test_errors_say_what_and_where(dppo: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    rows = records()
    rows[4]["rollout_logprobs"][1] = 0.5
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = dppo("upload", "bad", str(bad), code=1)
    assert "line 5" in result.stderr
    assert "rollout_logprobs[1]" in result.stderr
    as_json = dppo("upload", "bad", str(bad), "--json", code=1)
    assert json.loads(as_json.stderr.splitlines()[-1])["errors"][0]["line"] == 5
    assert "there is no run" in dppo("analyze", "nothing", code=1).stderr
    assert "either --step N" in dppo("checkpoint", "bad", str(tmp_path), code=1).stderr
    assert "read_text" in dppo("sql", "SELECT * FROM read_text('x')", code=1).stderr


def test_no_server() -> None:
    result = CliRunner().invoke(app, ["runs", "--server", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "dppo serve" in result.stderr


def test_doctor(dppo: Any) -> None:
    found = json.loads(dppo("doctor", "--json").stdout)
    assert found["worker"]["device"].startswith(("cpu", "cuda"))
    assert found["server"]["status"] == "ready"
    assert found["packages"]["duckdb"] == duckdb.__version__
