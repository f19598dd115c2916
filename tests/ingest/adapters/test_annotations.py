"""prime-rl's stream and the annotations beside it, in the layout of `monitors/file/traces/update.py` (`make_update`).

prime-rl-65a1858-{stream,trainer,orchestrator}.jsonl are its own and verifiers', of the episode in
tests/data/formats/write_prime_rl_annotations.py. What is by hand here has one branch: the nodes hold what the episode
had when it arrived; the trainer's and the orchestrator's figures stand in the annotations alone, each list over all
tokens of the branch: 10 11 | 20→21 22 | 30 31 | 40→41.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from service.cli.main import _annotated, app
from tests.ingest.adapters.test_verifiers import episode, node, trace
from tests.ingest.files import Importing

FORMATS = Path(__file__).parents[2] / "data" / "formats"
ARRIVED = [
    node([10, 11], logprobs=[]),
    node([20, 21, 22], 0, 2, logprobs=[-0.5, -0.25]),
    node([30, 31], 1, logprobs=[]),
    node([40, 41], 2, 1, logprobs=[-2.0]),
]
TRAINER = {
    "index": 0,
    "trainer_logprobs": [None, -9.0, -9.0, -0.6, -0.3, -9.0, -9.0, -9.0, -1.5],
    "entropies": [None, 9.0, 9.0, 0.7, 0.8, 9.0, 9.0, 9.0, 0.9],
    "is_masked": [None, None, None, False, True, None, None, None, None],
}
ORCHESTRATOR = {"index": 0, "advantages": [None, None, None, 0.5, -0.5, None, None, None, 0.25]}


def update(*branches: dict[str, Any], trace_id: str = "t1", info: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"version": 1, "trace_id": trace_id, "info": info or {}, "branches": list(branches)}


def arrived(**changes: Any) -> dict[str, Any]:
    return episode(trace(nodes=json.loads(json.dumps(ARRIVED)), **changes))


def lines(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def convert(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`monitors/file/traces` of a run."""
    lines(tmp_path / "stream.jsonl", arrived())
    lines(tmp_path / "annotations" / "trainer.jsonl", update(TRAINER))
    lines(tmp_path / "annotations" / "orchestrator.jsonl", update(ORCHESTRATOR, info={"cohort": {"step": 6}}))
    return tmp_path


@pytest.mark.parametrize("format_", ["auto", "prime-rl"])
def test_the_stream_and_its_annotations_as_prime_rl_writes_them(
    importing: Importing, tmp_path: Path, format_: str
) -> None:
    """Two branches, 10 11 | 20→21 22 | 30 31 | 40→41 and, after the first answer, | 50 | 60→61 62.

    The records' log-probs have four decimals. A −inf is null, and a message with one is left as it was.
    """
    out = tmp_path / "out.jsonl.gz"
    files = [FORMATS / f"prime-rl-65a1858-{name}.jsonl" for name in ("stream", "trainer", "orchestrator")]
    summary = json.loads(convert(format_, *files, "-o", out, "--json").stdout)
    assert (summary["format"], summary["records"], summary["steps"], summary["notes"]) == ("prime-rl", 2, {"6": 2}, [])
    manifest = importing(out)
    assert manifest["warnings"] == []
    first, second = importing.rows()
    assert [(row["step"], row["sample_id"], row["group_id"]) for row in (first, second)] == [
        (6, "t1/0", "g7"),
        (6, "t1/1", "g7"),
    ]
    assert (first["prompt_token_ids"], first["response_token_ids"]) == ([10, 11, 20], [21, 22, 30, 31, 40, 41])
    assert first["response_mask"] == [True, True, False, False, False, True]
    assert first["turn"] == [0, 0, 1, 1, 1, 1]
    assert first["rollout_logprobs"] == [-0.5, -0.1235, None, None, None, -2.0]
    assert first["new_logprobs"] == [-0.625, -0.3735, None, None, None, -1.5]
    assert first["advantage"] == [0.5, -0.5, None, None, None, 0.25]
    assert first["trainer_keep"] == [True, False, None, None, None, None]  # −1: does not apply
    assert (first["reward"], first["policy_version"], first["finish_reason"]) == (1.0, [5] * 6, "stop")
    meta = json.loads(first["meta"])
    assert meta["entropy"] == [0.5, 0.5, None, None, None, 0.5]
    assert meta["info"] == {
        "kind": "train",
        "dispatch": {"step": 6, "time": 1},
        "arrival": {"step": 7, "time": 1.5},
        "effective": True,
        "ship": {"step": 8, "time": 2},
        "advantage": 0.25,
    }
    # the second begins with what the first trains
    assert second["prompt_token_ids"] == [10, 11, 20, 21, 22, 50, 60]
    assert (second["response_token_ids"], second["response_mask"]) == ([61, 62], [True, True])
    assert (second["rollout_logprobs"], second["new_logprobs"]) == ([-0.75, -0.25], None)
    assert (second["advantage"], second["trainer_keep"]) == ([0.0, 1.0], [False, None])
    assert json.loads(second["meta"])["entropy"] == [0.5, 0.5]


def test_without_them_nothing_is_known_of_the_trainer(importing: Importing, folder: Path) -> None:
    importing(folder / "stream.jsonl")
    (row,) = importing.rows()
    assert {row[name] for name in ("new_logprobs", "advantage", "trainer_keep")} == {None}


def test_an_upload_of_the_stream_alone_says_what_it_lacks(folder: Path) -> None:
    assert _annotated(folder / "stream.jsonl")
    assert _annotated(folder / "stream" / "00000.jsonl.zst")
    assert not _annotated(folder / "train_data_step3.jsonl")
    assert not _annotated(folder / "annotations" / "stream.jsonl")


def test_the_later_update_wins_and_a_hole_changes_nothing(importing: Importing, folder: Path) -> None:
    """A message is covered whole or not at all; the last one is beyond the second list's end."""
    later = [*TRAINER["trainer_logprobs"][:3], -0.7, -0.4, -9.0, -9.0]
    hole = [*TRAINER["trainer_logprobs"][:3], -0.1, None, -9.0, -9.0, -9.0, -0.2]
    updates = [update({"index": 0, "trainer_logprobs": values}) for values in (hole, later)]
    trainer = lines(folder / "annotations" / "trainer.jsonl", update(TRAINER), *updates)
    out = folder / "out.jsonl"
    summary = json.loads(convert("auto", folder / "stream.jsonl", trainer, "-o", out, "--json").stdout)
    assert importing.row_of(out)["new_logprobs"] == [-0.7, -0.4, None, None, None, -0.2]
    (note,) = summary["notes"]
    assert note["count"] == 1
    assert "covered in part" in note["message"]


def test_branches_share_nodes(importing: Importing, folder: Path) -> None:
    """A second leaf after the first answer: 10 11 20 21 22 | 50→51."""
    forked = arrived()
    forked["traces"][0]["nodes"].append(node([50, 51], 1, 1, logprobs=[-0.125]))
    lines(folder / "stream.jsonl", forked)
    second = {"index": 1, "trainer_logprobs": [None, -9, -9, -0.65, -0.35, -9, -0.0625]}
    third = {"index": 2, "trainer_logprobs": [-1.0]}
    trainer = lines(folder / "annotations" / "trainer.jsonl", update(TRAINER, second, third))
    out = folder / "out.jsonl"
    said = convert("auto", folder / "stream.jsonl", trainer, "-o", out).stderr
    importing(out)
    first, other = importing.rows()
    assert first["new_logprobs"] == [-0.65, -0.35, None, None, None, -1.5]
    assert (other["response_token_ids"], other["new_logprobs"]) == ([51], [-0.0625])
    assert "1 annotated branches are not in their trace" in said


def test_sealed_chunks_and_traces_that_are_elsewhere(importing: Importing, folder: Path) -> None:
    """`chunks.py`: frames of zstd and, as a skippable frame at the end, the table of their places."""
    codec = pa.Codec("zstd")
    frames = [codec.compress(json.dumps(one).encode() + b"\n", asbytes=True) for one in (update(TRAINER), update())]
    sealed = folder / "annotations" / "00000.jsonl.zst"
    sealed.write_bytes(b"".join(frames) + struct.pack("<II", 0x184D2A5E, 9) + b"seektable")
    other = lines(folder / "annotations" / "other.jsonl", update(TRAINER, trace_id="t9"))
    out = folder / "out.jsonl"
    said = convert("auto", folder / "stream.jsonl", sealed, other, "-o", out).stderr
    assert importing.row_of(out)["new_logprobs"] == [-0.6, -0.3, None, None, None, -1.5]
    assert "1 annotated traces are in none of the streams given" in said


def test_a_last_line_that_does_not_end(folder: Path) -> None:
    stream = folder / "stream.jsonl"
    stream.write_text(stream.read_text() + '{"id": "e2", "task"')
    said = convert("auto", stream, "-o", folder / "out.jsonl")
    assert "1 responses of 1 step" in said.stdout
    assert "1 last line was left out" in said.stderr


def test_evaluations_are_left_out(importing: Importing, folder: Path) -> None:
    """The stream holds episodes "whatever their kind"."""
    work = {"type": "eval", "step": 6}
    lines(folder / "stream.jsonl", arrived(), episode(id="e2", run={"type": "train", "id": "r", "work": work}))
    said = convert("auto", folder / "stream.jsonl", "-o", folder / "out.jsonl")
    assert "1 responses of 1 step" in said.stdout
    assert "1 traces or episodes were left out: it is work of an evaluation" in said.stderr
    manifest = importing(folder / "stream.jsonl")
    assert manifest["rollouts"] == 1
    assert "it is work of an evaluation" in manifest["warnings"][0]["message"]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"version": 2}, "Line 2: version is not 1"),
        ({"trace_id": None}, "Line 2: trace_id is required and missing"),
        ({"branches": [{"index": 0, "trainer_logprobs": [-1.0, "x"]}]}, "branches[0].trainer_logprobs[1] 'x' is not a"),
        ({"branches": [{"index": 0, "is_masked": [2]}]}, "branches[0].is_masked[0] 2 is not 0 or 1"),
        ({"branches": [{"advantages": []}]}, "branches[0].index is required and missing"),
        ({"branches": [{"index": "0"}]}, "branches[0].index '0' is not an integer"),
        ({"info": []}, "info expected an object, found a list"),
    ],
)
def test_a_broken_annotation(folder: Path, broken: dict[str, Any], says: str) -> None:
    bad = lines(folder / "annotations" / "trainer.jsonl", update(TRAINER), {**update(), **broken})
    said = convert("auto", folder / "stream.jsonl", bad, "-o", folder / "out.jsonl", code=1).stderr
    assert f"trainer.jsonl: {says}" in said or (says in said and "trainer.jsonl: Line 2" in said)
    assert not (folder / "out.jsonl").exists()


def test_other_files(folder: Path) -> None:
    out, trainer = folder / "out.jsonl", folder / "annotations" / "trainer.jsonl"
    assert "give the stream of episodes" in convert("auto", trainer, "-o", out, code=1).stderr
    index = lines(folder / "stream.index.jsonl", {"id": "e1", "chunk": 0, "offset": 0})
    assert "stream.index.jsonl is an index" in convert("auto", index, "-o", out, code=1).stderr
    bare = lines(folder / "bare.jsonl", trace())
    assert "bare.jsonl: Line 1, run.work.step: does not say the step" in convert("auto", bare, "-o", out, code=1).stderr
    assert "1 responses of 1 step" in convert("auto", bare, "-o", out, "--step", 3).stdout
    stream = folder / "stream.jsonl"
    assert "is 6, but --step 3" in convert("auto", stream, "-o", out, "--step", 3, "--force", code=1).stderr
    stream.write_text("[]\n")
    assert "is not an object" in convert("prime-rl", stream, "-o", out, "--force", code=1).stderr
