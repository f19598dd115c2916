"""A run logged as it happens, in a real service: its decisions are the trainer's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from dppo_core.lab.settings import Run
from dppo_core.lab.warmup import Start
from service.lab.execute import Options, execute
from service.lab.logs import service_name
from tests.lab.conftest import changed
from tests.live import Server

METHODS = {"grpo": ("ppo", 20), "dppo_binary_tv": ("dppo_binary_tv", 6), "dppo_binary_kl": ("dppo_binary_kl", 6)}
"""The lab's method → the service's, and how many steps are logged."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Server]:
    with Server(place / "data", env={"DPPO_CHECKPOINT_ROOTS": str(place / "checkpoints")}) as running:
        yield running


@pytest.fixture(scope="module")
def compared() -> list[tuple[str, str]]:
    """Run and analysis of the tests before this one."""
    return []


def options(place: Path, warmups: Path, service: Server, **more: object) -> Options:
    return Options(place / "lab", warmups, service.url, place / "files", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_the_service_decides_as_the_trainer_did(
    method: str, place: Path, warmups: Path, start: Start, service: Server, compared: list[tuple[str, str]]
) -> None:
    ours_is, steps = METHODS[method]
    # a high learning rate, so that there is something to drop
    run = Run(method, 10, changed(steps=steps, staleness=4, lr=2e-3, lr_rise=1))
    execute(run, options(place, warmups, service))
    name = service_name(run)
    known = service.api.get(f"/runs/{name}").json()
    assert (known["framework"], known["n_steps"], known["n_rollouts"]) == ("dppo-lab", steps, steps * 32)
    job = service.analyze(name, source="logged", anchor="rollout", evaluated_at="logged")
    assert job["state"] == "done", job
    analysis = job["result"]["analysis"]

    with duckdb.connect(str(place / "data" / "lens.duckdb"), read_only=True) as lens:
        rows = lens.execute(
            f"SELECT sample_id, position, keep_{ours_is}, advantage FROM tokens WHERE analysis = ?", [analysis]
        ).fetchall()
    ours = {(sample, position): keep for sample, position, keep, _ in rows}
    trainer: dict[tuple[str, int], bool] = {}
    dropped = 0
    for file in sorted((place / "files" / name).glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            trainer |= {(row["sample_id"], place_): keep for place_, keep in enumerate(row["trainer_keep"])}
            dropped += row["trainer_keep"].count(False)
    assert len(trainer) > 300 * steps
    assert dropped > steps
    assert ours == trainer

    page = service.api.get(f"{service.url}/analyses/{analysis}")
    assert page.status_code == 200
    compared.append((name, analysis))
    side_by_side = service.api.get(f"{service.url}/compare?a={compared[0][1]}&b={analysis}")
    assert side_by_side.status_code == 200
    assert all(each in side_by_side.text for each, _ in (compared[0], compared[-1]))
    agreement = service.api.get(f"/analyses/{analysis}/tables/trainer_agreement?format=json").json()
    of_method = [row for row in agreement if row["method"] == ours_is and row["sign"]]
    assert [row["n_only_trainer_drops"] + row["n_only_ours_drops"] for row in of_method] == [0, 0]


def test_its_checkpoints_are_scored(place: Path, warmups: Path, start: Start, service: Server) -> None:
    run = Run("dppo_binary_tv", 10, changed(steps=3))
    execute(run, options(place, warmups, service, checkpoints=place / "checkpoints", lists=True))
    name = service_name(run)
    checkpoints = service.api.get(f"/runs/{name}/checkpoints").json()
    assert sorted(row["step"] for row in checkpoints) == [0, 1, 2, 3]
    job = service.analyze(name, steps=[2], anchor="rollout")
    assert job["state"] == "done", job["error"]
    assert job["warnings"] == []
    with duckdb.connect(str(place / "data" / "lens.duckdb"), read_only=True) as lens:
        (tokens, worst, unknown) = lens.execute(
            "SELECT count(*), max(abs(logp_old - logp_old_logged)), count(*) FILTER (tv_topk IS NULL) FROM tokens "
            "WHERE analysis = ?",
            [job["result"]["analysis"]],
        ).fetchall()[0]
    assert tokens > 300
    assert worst < 1e-4
    assert unknown == 0


def test_a_service_that_is_away_is_said(
    place: Path, warmups: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lab.execute.FLUSH_SECONDS", 0.2)
    run = Run("pg_is", 10, changed(steps=1))
    away = Options(place / "away", warmups, "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="has not taken all steps of pg_is"):
        execute(run, away)
