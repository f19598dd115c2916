"""The demo's two trainings: what `dppo demo` shows while it builds and scores the real model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from service.cli.demo import TRAINING, add_trainings
from service.cli.output import Output
from service.client import Client
from tests.live import REPOSITORY, Server

DATA = REPOSITORY / "service" / "cli" / "demo_data" / "lab"
DECIDES = {"lab-grpo": "ppo", "lab-dppo-binary-tv": "dppo_binary_tv"}


def test_two_trainings_without_a_model(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server, Client(server.url) as client:
        analyses = add_trainings(Output(True), client)
        assert add_trainings(Output(True), client) == analyses  # a second demo finds them
        for run, analysis in zip(TRAINING, analyses, strict=True):
            with gzip.open(DATA / f"{run}.jsonl.gz") as file:
                trained = [json.loads(line) for line in file]
            known = next(row for row in client.runs() if row["run"] == run)
            assert (known["n_steps"], known["n_rollouts"]) == (34, 34 * 32)
            assert [upload["warnings"] for upload in client.uploads(run)] == [[]]
            timeline = client.table(analysis, "timeline").to_pylist()
            assert [row["step"] for row in timeline] == list(range(0, 170, 5))
            dropped = sum(not keep for row in trained for keep in row["trainer_keep"] if row["advantage"])
            assert dropped > 50
            agreement = [
                row
                for row in client.table(analysis, "trainer_agreement").to_pylist()
                if row["method"] == DECIDES[run] and row["sign"]
            ]
            assert sum(row["n_both_drop"] for row in agreement) == dropped
            assert sum(row["n_only_trainer_drops"] + row["n_only_ours_drops"] for row in agreement) == 0
        page = server.api.get(f"{server.url}/compare?a={analyses[0]}&b={analyses[1]}")
        assert page.status_code == 200
        assert all(run in page.text for run in TRAINING)
