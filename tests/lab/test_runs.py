"""Runs as files: made once, resumed, the same in any process, and made again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dppo_core.lab.settings import Run
from dppo_core.lab.train import Trainer
from dppo_core.lab.warmup import Start
from service.cli.main import app
from service.lab import execute as executing
from service.lab.execute import Options, execute
from service.lab.store import Store
from service.lab.workers import run_all
from tests.lab.conftest import SET, SMALL

RUN = Run("dppo_binary_tv", 10, SMALL)


@pytest.fixture
def options(tmp_path: Path, warmups: Path, start: Start) -> Options:
    return Options(tmp_path / "lab", warmups)


class Interrupted(Exception):
    pass


def interrupt_at(number: int) -> Any:
    def on_step(steps: int) -> None:
        if steps == number:
            raise Interrupted

    return on_step


def test_a_stored_run_is_never_made_twice(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    first = execute(RUN, options)
    assert len(first["columns"]["reward"]) == 6
    before = Store(options.folder).path(RUN).read_bytes()

    def never(_: Trainer) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr(Trainer, "step", never)
    assert execute(RUN, options) == first
    assert run_all([RUN, RUN], options, 1, lambda *_: None) == []
    assert Store(options.folder).path(RUN).read_bytes() == before
    with pytest.raises(FileExistsError):
        Store(options.folder).save(RUN, {}, {})


def test_an_interrupted_run_goes_on_to_the_same_end(
    options: Options, tmp_path: Path, warmups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(RUN, options)
    elsewhere = Options(tmp_path / "elsewhere", warmups)
    monkeypatch.setattr(executing, "SAVE_EVERY", 2)
    with pytest.raises(Interrupted):
        execute(RUN, elsewhere, interrupt_at(5))
    assert RUN not in Store(elsewhere.folder)
    steps: list[int] = []
    resumed = execute(RUN, elsewhere, steps.append)
    assert steps == [4, 5, 6]  # from the state after step 4, not from the start
    for made in (whole, resumed):
        made.pop("seconds")
    assert resumed == whole
    assert not Store(elsewhere.folder).state(RUN).exists()


def test_a_state_of_other_code_is_not_gone_on_from(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "SAVE_EVERY", 2)
    with pytest.raises(Interrupted):
        execute(RUN, options, interrupt_at(5))
    monkeypatch.setattr(executing, "code_hash", lambda: "other")
    steps: list[int] = []
    execute(RUN, options, steps.append)
    assert steps == [0, 1, 2, 3, 4, 5, 6]


def test_two_processes_make_what_one_makes(options: Options, tmp_path: Path, warmups: Path) -> None:
    runs = [RUN, Run("pg_is", 10, SMALL)]
    progress: list[tuple[int, int]] = []
    assert run_all(runs, options, 2, lambda *at: progress.append(at)) == [run.name for run in runs]
    assert progress[-1] == (12, 12)
    alone = Options(tmp_path / "alone", warmups)
    for run in runs:
        here, there = execute(run, alone), Store(options.folder).load(run)
        assert here["columns"] == there["columns"]
        assert here["weights"] == there["weights"]


def test_one_command_at_a_time(options: Options) -> None:
    with Store(options.folder).writing(), pytest.raises(BlockingIOError, match="another `dppo lab run`"):
        run_all([RUN], options, 1, lambda *_: None)


def dppo(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["lab", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_the_command_line(options: Options, tmp_path: Path) -> None:
    """The run is logged, which measures where its mismatch comes from over all responses; so does `rerun`."""
    place = ["--dir", str(options.folder)]
    options.folder.mkdir()
    (options.folder / "warmups").symlink_to(options.cache)
    logged = ["--log-files", str(tmp_path / "logs")]
    made = json.loads(dppo("run", "pg_is", "--seeds", "10", *SET, *place, *logged, "--json").stdout)
    assert [(row["run"], row["made"]) for row in made] == [(Run("pg_is", 10, SMALL).name, True)]
    again = json.loads(dppo("run", "pg_is", "--seeds", "10", *SET, *place, "--json").stdout)
    assert again == [{**made[0], "made": False}]
    assert "stored before" in dppo("run", "pg_is", "--seeds", "10", *SET, *place).stdout

    assert "identical" in dppo("rerun", made[0]["run"], *place).stdout
    file = Path(made[0]["file"])
    stored = json.loads(gzip.decompress(file.read_bytes()))
    stored["columns"]["reward"][3] += 1 / 32
    file.write_bytes(gzip.compress(json.dumps(stored).encode()))
    changed = dppo("rerun", made[0]["run"], *place, code=1)
    assert "reward differs in 1 of 6 steps, from step 3 on" in changed.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "ppo"], "there is no method 'ppo'"),
        (["run", "pg_is", "--set", "speed=1"], "'speed=1' is not name=value"),
        (["run", "pg_is", "--seeds", "ten"], "seeds are numbers and ranges"),
        (["run", "--experiment", "secondary"], "there is no experiment 'secondary'; one of: main"),
        (["run", "pg_is", "--experiment", "main"], "give either"),
        (["rerun", "pg_is-s10"], "no run pg_is-s10"),
        (["rerun", "pg_is"], "not the name of a run"),
        (["report"], "no runs in"),
    ],
)
def test_errors_say_what_to_do(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = dppo(*arguments, "--dir", str(tmp_path / "none"), code=1)
    assert words in result.stderr


def test_a_run_of_other_defaults_is_not_taken_for_this_one(options: Options) -> None:
    execute(RUN, options)
    file = Store(options.folder).path(RUN)
    stored = json.loads(gzip.decompress(file.read_bytes()))
    stored["settings"]["max_norm"] = 2.0
    file.write_bytes(gzip.compress(json.dumps(stored).encode()))
    with pytest.raises(ValueError, match="made with other defaults of max_norm"):
        Store(options.folder).load(RUN)


@pytest.mark.parametrize("command", ["run", "report", "rerun"])
def test_help_teaches(command: str) -> None:
    assert "--json" in dppo(command, "--help").output
