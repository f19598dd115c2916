"""Verdicts from handmade results, and a report from a few stored runs."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from dppo_core.lab.metrics import COLUMNS
from dppo_core.lab.settings import Run
from dppo_core.lab.statistics import Estimate
from dppo_core.lab.token_statistics import STATISTICS
from service.lab import report
from service.lab.claims import CLAIMS, Statement, judge
from service.lab.claims import _verdict as verdict
from service.lab.outcomes import Results, outcomes
from service.lab.plan import EXPERIMENTS, MAIN, runs_of
from service.lab.store import Store

STEPS = 170
TOKENS = {name: Estimate(0.3, 0.2, 0.4, None, 50) for name in STATISTICS}


def columns(reward: float, drift: float, seed: int) -> dict[str, list[float]]:
    noise = [0.001 * ((7 * step + 3 * seed) % 5 - 2) + 0.002 * (seed % 3) for step in range(STEPS)]
    made = {name: [0.01] * STEPS for name in COLUMNS}
    made["reward"] = [reward + each for each in noise]
    made["mean_abs_dp"] = [drift + each / 10 for each in noise]
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three methods of three seeds: DPPO and GRPO tie, PG-IS is worse."""
    made = Store(tmp_path)
    about = {"warmup_reward": 0.65, "weights": "0", "code": "0", "versions": {"torch": "0"}, "seconds": 1.0}
    for method, reward, drift in (("dppo_binary_tv", 0.7, 0.02), ("grpo", 0.7, 0.02), ("pg_is", 0.6, 0.04)):
        for seed in (10, 11, 12):
            extra = 0.0 if method != "grpo" else 0.0005 * (seed - 11)
            made.save(Run(method, seed), columns(reward + extra, drift, seed), about)
    return made


def test_outcomes_by_hand() -> None:
    made = {name: [0.0] * 50 for name in COLUMNS}
    made["reward"] = [0.0] * 20 + [1.0] * 30
    made["mean_abs_dp"] = [9.0] * 10 + [1.0] * 10 + [2.0] * 30
    found = outcomes({"columns": made, "warmup_reward": 0.4})
    assert found["final"] == 1.0
    assert found["auc"] == 0.6
    assert found["gain"] == 0.6
    assert found["drift"] == (10 * 1 + 30 * 2) / 40  # without the first ten steps
    assert found["drift_change"] == pytest.approx(2 - (10 * 1 + 20 * 2) / 30)


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.05, 0.15, 0.01, "seen"),
        (0.01, 0.15, 0.20, "undecided"),  # the interval says yes, Holm does not
        (-0.05, 0.15, 0.50, "undecided"),
        (-0.02, 0.02, 0.90, "not seen"),  # smaller than what matters
        (-0.15, -0.05, 0.01, "not seen"),  # the opposite
    ],
)
def test_verdicts(low: float, high: float, p: float, expected: str) -> None:
    found = Estimate((low + high) / 2, low, high, p / 3, 8)
    assert verdict(Statement("x", 1, "a", "b", "final"), found, p) == expected
    mirrored = Estimate(-found.value, -high, -low, p / 3, 8)
    assert verdict(Statement("x", -1, "a", "b", "final"), mirrored, p) == expected


def test_claims_on_handmade_runs(store: Store) -> None:
    results = Results(store, EXPERIMENTS["main"])
    judged, verdicts = judge(results, TOKENS)
    assert verdicts["trust region"] == "seen"
    assert verdicts["efficiency"] == "not seen"  # a tie within the margin
    assert verdicts["C4"] is None
    assert {each.claim for each in judged} == set(CLAIMS)
    comparison = results.difference("dppo_binary_tv", "pg_is", "final")
    assert comparison is not None
    assert comparison.estimate.value == pytest.approx(0.1)
    assert results.below_warmup("pg_is") == (3, 3, pytest.approx(0.2924, abs=1e-4), 1.0)
    family = results.family(["grpo", "pg_is"], "dppo_binary_tv", "final")
    assert [each.p_holm for each in family] == [
        pytest.approx(max(family[0].estimate.p or 0, 2 * (family[1].estimate.p or 0))),
        pytest.approx(2 * (family[1].estimate.p or 0)),
    ]


def test_a_report_of_what_there_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.token_study, "study", lambda *_: (TOKENS, 50, 1000))
    written = report.write_report(store.folder)
    text = (store.folder / "REPORT.md").read_text()
    planned = len({name for names in EXPERIMENTS.values() for name in names})
    assert f"9 of {planned} declared runs are stored; **{planned - 9} are missing**" in text
    assert "| DPPO binary TV | 3 |" in text
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert len(manifest["runs"]) == 9
    with (store.folder / "tables" / "comparisons.csv").open() as file:
        rows = list(csv.DictReader(file))
    (row,) = (
        row for row in rows if (row["arm"], row["reference"], row["outcome"]) == ("pg_is", "dppo_binary_tv", "final")
    )
    assert float(row["value"]) == pytest.approx(-0.1)
    figure = json.loads((store.folder / "figures" / "reward.json").read_text())
    assert len([trace for trace in figure["data"] if trace["name"].startswith("seed")]) == 9  # every seed is drawn
    for path in written:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    # the second report does not study tokens again
    monkeypatch.setattr(report.token_study, "study", None)
    assert report.write_report(store.folder) == written


def test_the_declared_runs() -> None:
    main = runs_of("main")
    assert len(main) == len(MAIN) * 8
    assert {run.seed for run in main} == set(range(10, 18))
    assert {run.warmup for run in main} == {0, 1}
    assert [run.seed for run in main[: len(MAIN)]] == [10] * len(MAIN)  # seed by seed
    everything = {run.name for run in runs_of("all")}
    assert replace(Run.parse("pg_is,staleness=8-s10"), seed=13).name in everything
    with pytest.raises(ValueError, match="there is no experiment"):
        runs_of("second")
