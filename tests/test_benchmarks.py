"""The benchmarks at toy size: every part runs, and what they compare is the same thing."""

from __future__ import annotations

import gzip
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import dashboards
from benchmarks.__main__ import PARTS, main
from benchmarks.dashboards import views
from benchmarks.naive import LAYOUTS, naive_batch, naive_statistics
from benchmarks.scoring import scored_pass
from benchmarks.sizes import Dashboards, Sizes, Source
from benchmarks.table import Line, as_text
from benchmarks.timing import Phases, Progress, rotated, spread
from benchmarks.workload import load
from dppo_core.two_policy import TwoPolicyScorer
from service.worker.pairs import score_responses
from tests.conftest import Checkpoints
from tests.tiny import VOCAB, records

LN2 = math.log(2)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Sizes:
    """Two tiny policies, and a group of four responses of which one has an uncounted token."""
    rollouts = tmp_path_factory.mktemp("benchmarks") / "rollouts.jsonl.gz"
    rows = records(groups=2, samples=4)
    rows[1]["response_mask"][2] = 0
    with gzip.open(rollouts, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    old, new = checkpoints.adapters
    source = Source(checkpoints.steps[0], old, new, rollouts, group="s0/g0")
    return Sizes(
        source,
        memory_vocabularies=(8192,),
        memory_tokens=(16, 32),
        prompt=24,
        responses=(2, 4),
        whole_pass=4,
        ingest_bytes=200_000,
        logger_steps=6,
        logger_step=0.01,
        logger_outage=0,
        dashboards=(Dashboards(steps=2, tokens=1000, distinct=1),),
    )


def test_every_part_runs_and_is_written(
    sizes: Sizes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few of the dashboards' addresses stand for all of them, which tests of the pages open."""
    monkeypatch.setattr(dashboards, "views", lambda step: dict(list(views(step).items())[::6]))
    out = tmp_path / "results.json"
    assert main(["--repeats", "2", "--tokens", "4", "--out", str(out)], sizes) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert {line["part"] for line in report["lines"]} == set(PARTS)
    for line in report["lines"]:
        assert math.isfinite(line["value"]), line
        assert line["what"] in printed
    assert report["machine"].keys() >= {"processor", "threads", "torch", "vector_flags", "load_average"}
    assert report["repeats"] == 2
    exact = [line for line in report["lines"] if line["part"] == "accuracy" and line["target"] is not None]
    assert len(exact) == 6
    assert all(line["holds"] for line in exact), exact
    (lost,) = (line for line in report["lines"] if line["unit"] == "steps")
    assert lost["what"].endswith("of 6 acknowledged")
    assert lost["value"] == 0


def test_one_part_leaves_the_results_file_alone(sizes: Sizes, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accuracy", "--tokens", "1"], sizes) == 0
    assert "written to" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["speed"], ["--repeats", "0"], ["--tokens", "0"], ["--ingest-mb", "0"]])
def test_impossible_arguments(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_naive_statistics_by_hand() -> None:
    p, q = [0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]
    found = naive_statistics(torch.tensor([p]).log(), torch.tensor([q]).log(), torch.tensor([3]), top_k=2)
    expected = {
        "tv_exact": 0.25,  # ½ (¼ + 0 + ⅛ + ⅛)
        "kl_exact": 0.25 * LN2,  # ½ ln 2 + 0 − 2·⅛ ln 2
        "tv_binary": 0.125,
        # ⅛ ln ½ + ⅞ ln (⅞ / ¾)
        "kl_binary": -0.125 * LN2 + 0.875 * math.log(7 / 6),
        # two slots {0, 3}: the sampled token takes the second one's. ½ (¼ + ⅛ + |⅜ − ½|)
        "tv_topk": 0.25,
        # ½ ln 2 − ⅛ ln 2 + ⅜ ln (⅜ / ½)
        "kl_topk": 0.375 * LN2 + 0.375 * math.log(0.75),
        "topk_mass_old": 0.625,
        "topk_mass_new": 0.5,
        "entropy_old": 1.75 * LN2,  # ½·1 + ¼·2 + 2·⅛·3 bits
        "entropy_new": 2 * LN2,
        "grad_norm_new": math.sqrt(0.75),  # 1 − 2·¼ + 4/16
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_naive_layouts_score_the_same_tokens(sizes: Sizes, layout: str) -> None:
    workload = load(sizes.source, torch.float32)
    ours = score_responses(workload.old, workload.new, workload.responses, _scorer())
    found = [naive_batch(workload, batch, Phases()) for batch in LAYOUTS[layout](workload.responses)]
    columns = ("logp_old", "logp_new", "tv_exact", "entropy_new")
    naive = torch.stack([torch.cat([part[name].flatten() for part in found]) for name in columns], dim=1).double()
    wanted = torch.stack([getattr(ours, name) for name in columns], dim=1)
    assert len(wanted) == workload.tokens
    # padding, prompts and the uncounted token have rows of their own in some layouts
    assert len(naive) >= len(wanted)
    assert (torch.cdist(wanted, naive).amin(1) < 1e-5).all()


def test_a_pass_times_its_phases(sizes: Sizes) -> None:
    workload = load(sizes.source, torch.float32)
    start = time.perf_counter()
    phases = scored_pass(workload, _scorer())
    elapsed = time.perf_counter() - start
    assert min(phases.backbone, phases.head, phases.statistics) > 0
    assert phases.total <= elapsed


def test_a_phase_inside_a_phase_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 9.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    phases = Phases()
    with phases.spent_on("statistics"), phases.spent_on("head"):  # 0 … [1 … 4] … 9
        pass
    assert (phases.backbone, phases.head, phases.statistics) == (0.0, 3.0, 1.0 + 5.0)
    assert phases.share_of_statistics == 2.0


def test_repeats_start_with_another_way_each_time() -> None:
    ran: list[str] = []

    def way(name: str) -> Callable[[], Phases]:
        def run() -> Phases:
            ran.append(name)
            return Phases()

        return run

    found = rotated({name: way(name) for name in "abc"}, 3, lambda _: None)
    assert "".join(ran) == "a" + "abc" + "bca" + "cab"
    assert [len(times) for times in found.values()] == [3, 3, 3]


def test_quartiles() -> None:
    found = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    assert spread([7.0]).low == 7.0


def test_a_line_says_whether_its_target_holds() -> None:
    lines = [
        Line("a", "share", 0.034, "%", 0.05),
        Line("b", "ratio", 1.5, "×", 1.6, at_most=False, between=(1.4, 1.7)),
        Line("c", "peak", 12.25, "MiB"),
    ]
    _, share, ratio, peak = as_text(lines).splitlines()
    assert share.split() == ["a", "share", "3.4", "%", "≤", "5.0", "%", "✓"]
    assert ratio.split() == ["b", "ratio", "1.50×", "1.40×", "–", "1.70×", "≥", "1.60×", "✗"]
    assert peak.split() == ["c", "peak", "12.2", "MiB"]


def test_progress_off_a_terminal_is_plain_lines() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.of("memory")("4,096 tokens")
    progress.close()
    assert stream.getvalue() == "[   0 s] memory: 4,096 tokens\n"


def _scorer() -> TwoPolicyScorer:
    return TwoPolicyScorer(VOCAB)
