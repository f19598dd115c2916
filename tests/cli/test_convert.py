"""`dppo convert`: real torch files in, a file that the real import takes out; no pickle is ever run."""

from __future__ import annotations

import contextlib
import gzip
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.cli.dumps import plain, read_torch
from service.cli.whole import record_file
from service.errors import Invalid
from tests.cli.dumps import Bomb, convert, miles_loss, samples, slime_rollout
from tests.ingest.files import Importing

FORMATS = Path(__file__).parents[1] / "data" / "formats"
FIRST: dict[str, Any] = {  # what slime's and miles' first sample is, written by either
    "upload": "u1",
    "step": 7,
    "sample_id": "40",
    "group_id": "20",
    "prompt_token_ids": [5, 9],
    "response_token_ids": [11, 12, 30, 31, 13],
    "response_mask": [True, True, False, False, True],
    "rollout_logprobs": [-0.5, -0.25, None, None, -1.5],
    "old_logprobs": [-0.625, -0.375, None, None, -1.25],
    "reward": 1.0,
    "advantage": [0.5, 0.5, None, None, 0.5],
    "policy_version": [7] * 5,
    "prompt_text": "2+2?",
    "response_text": "call 4 four",
    "finish_reason": "completed",
    "prompt_tokens": 2,
    "response_tokens": 5,
    "counted_tokens": 3,
}
COUNTERS = {  # of its serving
    "spec_info": dict.fromkeys(
        ("spec_accept_token_num", "spec_draft_token_num", "spec_verify_ct", "completion_token_num"), 0
    ),
    "prefix_cache_info": {"cached_tokens": 0, "total_prompt_tokens": 0},
}


def test_slime_rollout_and_train_as_slime_writes_them(importing: Importing, tmp_path: Path) -> None:
    """Every field of both files, joined, as the import keeps it; the inputs: tests/data/formats/write_slime.py."""
    out = tmp_path / "out.jsonl.gz"
    files = FORMATS / "slime-624b824-rollout.pt", FORMATS / "slime-624b824-train.pt"
    summary = json.loads(convert("auto", *files, "-o", out, "--json").stdout)
    assert (summary["format"], summary["records"], summary["tokens"]) == ("slime", 4, 10)
    assert summary["steps"] == {"7": 4}
    assert summary["fields"]["old_logprobs"] == 4
    assert summary["fields_left_out"] == [
        *("returns", "rollout_routed_experts"),
        *("rollout_top_p_token_ids", "rollout_top_p_token_offsets", "teacher_log_probs"),
    ]
    manifest = importing(out)
    assert (manifest["rollouts"], manifest["warnings"]) == (4, [])
    first, second, third, fourth = importing.rows()
    meta = json.loads(first.pop("meta"))
    assert {name: value for name, value in first.items() if value is not None and name != "row_hash"} == {
        **FIRST,
        "minibatch": [0] * 5,
    }
    assert meta == {
        "label": "4",
        "metadata": {"source_name": "math"},
        "session_id": "s-40",
        "old_logprobs": "log_probs of the dump: recomputed before the update, or captured from the training forward",
        "data_parallel_rank": 0,
        "truncated": 0,
        "normalized_reward": 0.5,
        "rollout_id": 0,  # of the execution, which the trainer counts where the rollout gives none
        "source": "math",
        "entropy": [0.5, 0.5, None, None, 0.5],
        "rollout_mask_sums": 3,
        "total_lengths": 7,
        "rank": 0,
        "non_generation_time": 0,
        **COUNTERS,
    }
    assert (second["finish_reason"], second["group_id"], second["minibatch"]) == ("truncated", "20", [0, 0])
    assert (second["rollout_logprobs"], second["old_logprobs"]) == ([-0.5, -0.75], [-0.5, -1.0])
    assert (second["reward"], second["advantage"]) == (0.0, [-0.5, -0.5])
    assert second["policy_version"] is None  # two versions; which token is whose is not in the file
    assert json.loads(second["meta"])["weight_versions"] == ["6", "7"]
    (told,) = [note for note in manifest["notes"] if note["code"] == "several_policy_versions"]
    assert (told["count"], told["examples"][0]["sample_id"]) == (1, "41")
    assert (third["group_id"], third["minibatch"], third["prompt_text"]) == ("21", [1], None)
    assert (third["rollout_logprobs"], third["old_logprobs"], third["advantage"]) == ([-0.125], [-0.25], [1.0])
    assert json.loads(third["meta"])["prompt"] == [{"role": "user", "content": "3+3?"}]
    assert fourth["response_mask"] == [False, False]  # remove_sample
    assert fourth["rollout_logprobs"] == fourth["old_logprobs"] == fourth["advantage"] == [None, None]
    assert (fourth["reward"], fourth["policy_version"], fourth["finish_reason"]) == (-1.0, None, "failed")
    meta = json.loads(fourth["meta"])
    assert (meta["remove_sample"], meta["weight_versions"], meta["data_parallel_rank"]) == (True, ["default"], 1)
    notes = [note["message"] for note in summary["notes"]]
    assert len(notes) == 1
    assert "several weight versions" in notes[0]


def test_miles_rollout_and_loss_as_miles_writes_them(importing: Importing, tmp_path: Path) -> None:
    """Every field of the three files, joined; the inputs: tests/data/formats/write_miles.py."""
    out = tmp_path / "out.jsonl"
    files = [FORMATS / f"miles-31f1ca9-{name}.pt" for name in ("loss-1", "rollout", "loss-0")]
    summary = json.loads(convert("auto", *files, "-o", out, "--json").stdout)
    assert (summary["format"], summary["records"], summary["steps"]) == ("miles", 4, {"7": 4})
    left_out = ["finite", "pg_loss", "ppo_kl", "rollout_routed_experts", "train_rollout_abs_diff"]
    assert summary["fields_left_out"] == left_out
    manifest = importing(out)
    assert (manifest["rollouts"], manifest["warnings"]) == (4, [])
    first, second, third, fourth = importing.rows()
    meta = json.loads(first.pop("meta"))
    assert {name: value for name, value in first.items() if value is not None and name != "row_hash"} == {
        **FIRST,
        "new_logprobs": [-0.75, -0.5, None, None, -1.75],
    }
    assert meta == {
        "label": "4",
        "routing_key": "r-40",
        "loss_call": 0,
        "loss_rank": 0,
        "non_generation_time": 0,
        **COUNTERS,
    }
    assert (second["rollout_logprobs"], second["response_mask"]) == ([-0.5, -0.75], [True, True])  # no mask: all count
    assert (second["old_logprobs"], second["new_logprobs"]) == ([-0.5, -1.0], [-0.25, -1.25])
    assert (second["advantage"], second["reward"], second["finish_reason"]) == ([-0.5, -0.5], 0.0, "truncated")
    assert second["policy_version"] is None
    meta = json.loads(second["meta"])
    assert (meta["loss_call"], meta["weight_versions"]) == (1, ["6", "7"])
    assert (third["rollout_logprobs"], third["old_logprobs"], third["new_logprobs"]) == ([-0.125], [-0.25], [-0.375])
    assert (third["advantage"], third["policy_version"], third["prompt_text"]) == ([1.0], [7], None)
    assert json.loads(third["meta"])["prompt"] == [{"role": "user", "content": "3+3?"}]
    assert fourth["response_mask"] == [False, False]  # remove_sample
    assert fourth["old_logprobs"] == fourth["new_logprobs"] == fourth["advantage"] == [None, None]
    assert (fourth["reward"], fourth["finish_reason"]) == (-1.0, "failed")


def test_the_step_and_what_is_no_dump(tmp_path: Path) -> None:
    dump, out = slime_rollout(tmp_path / "7.pt"), tmp_path / "out.jsonl"
    assert (
        "7.pt is of rollout_id 7, but --step 8 was given"
        in convert("auto", dump, "-o", out, "--step", 8, code=1).stderr
    )
    other = tmp_path / "weights.pt"
    torch.save({"layer.weight": torch.zeros(2)}, other)
    assert "weights.pt is no dump that is known here" in convert("auto", other, "-o", out, code=1).stderr
    torch.save([1], other)
    assert "weights.pt holds a list" in convert("auto", other, "-o", out, code=1).stderr
    twice = slime_rollout(tmp_path / "again.pt")
    assert "are both the rollout dump of step 7" in convert("auto", dump, twice, "-o", out, code=1).stderr
    loss = miles_loss(tmp_path / "rank_0_call_0.pt", 0, 0, [0])
    assert "Loss dumps hold no tokens" in convert("auto", loss, "-o", out, code=1).stderr
    assert "rank_0_call_0.pt is no dump of slime" in convert("slime", dump, loss, "-o", out, code=1).stderr
    assert "there is no format 'trl'" in convert("trl", dump, "-o", out, code=1).stderr
    assert not out.exists()


def test_evaluation_dumps_are_left_out(tmp_path: Path) -> None:
    files = slime_rollout(tmp_path / "7.pt"), slime_rollout(tmp_path / "eval_7.pt")
    said = convert("auto", *files, "-o", tmp_path / "out.jsonl")
    assert "4 responses" in said.stdout
    assert "1 evaluation dump was left out" in said.stderr


def test_a_bad_sample_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    rows = samples()
    rows[2]["rollout_log_probs"] = [-0.1, -0.2]
    dump = slime_rollout(tmp_path / "7.pt", rows=rows)
    said = convert("auto", dump, "-o", tmp_path / "out.jsonl", "--json", code=1).stderr
    problem = json.loads(said.splitlines()[-1])
    assert problem["errors"] == [
        {
            "line": 3,
            "field": "rollout_log_probs",
            "message": "has 2 entries, but the response has 1 tokens (one more: shifted?)",
        }
    ]
    assert problem["detail"].startswith("7.pt: Sample 3, rollout_log_probs: ")
    assert [path.name for path in tmp_path.iterdir()] == ["7.pt"]


@pytest.mark.parametrize(
    "change", [{"samples": [1]}, {"samples": [{"response_length": 1, "tokens": "abc"}]}, {"samples": {}}]
)
def test_another_layout_is_no_crash(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "7.pt"
    torch.save({"rollout_id": 7, **change}, path)
    assert "7.pt" in convert("auto", path, "-o", tmp_path / "out.jsonl", code=1).stderr


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.gz"
    with contextlib.suppress(KeyboardInterrupt), record_file(out) as write:
        write({"a": 1})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with record_file(out) as write:
        write({"a": float("nan"), "b": [1.0, float("inf")]})
        assert not out.exists()
    assert gzip.decompress(out.read_bytes()) == b'{"a":null,"b":[1.0,null]}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.gz"]
    with pytest.raises(Invalid, match="nothing was written"), record_file(tmp_path / "no" / "out.jsonl"):
        pass


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    dump, out = slime_rollout(tmp_path / "7.pt"), tmp_path / "out.jsonl"
    out.write_text("mine")
    assert "exists" in convert("auto", dump, "-o", out, code=1).stderr
    assert out.read_text() == "mine"
    convert("auto", dump, "-o", out, "--force")
    assert len(out.read_text().splitlines()) == 4


def test_without_torch_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = slime_rollout(tmp_path / "7.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch is not installed here" in convert("auto", dump, "-o", tmp_path / "out.jsonl", code=1).stderr


def test_the_base_install_is_enough() -> None:
    """Beside a trainer there are httpx, pyarrow and typer; torch is imported when a file is opened."""
    code = "import sys, service.cli.main, service.cli.convert; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert loaded.isdisjoint({"torch", "numpy", "msgspec", "pydantic", "duckdb", "fastapi", "plotly"})


def test_help() -> None:
    assert "--json" in convert("--help").stdout


def test_a_shard_of_one_rank_is_refused(tmp_path: Path) -> None:
    """miles' train_data (`train_dump_utils.py`): log-probs may be slices of context parallelism."""
    path = tmp_path / "7_0.pt"
    torch.save({"rollout_id": 7, "rank": 0, "rollout_data": {"tokens": []}, "cp_rank": 0, "cp_size": 1}, path)
    assert "7_0.pt is a rank's shard" in convert("auto", path, "-o", tmp_path / "out.jsonl", code=1).stderr


def test_plain() -> None:
    value = {1: torch.tensor([1.5, 2.0], dtype=torch.bfloat16), "b": (np.int64(3), True, None, {"c"})}
    assert plain(value) == {"1": [1.5, 2.0], "b": [3, True, None, "{'c'}"]}


def test_a_zip_that_is_no_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(Exception, match=r"x.pt is not opened: it is a pickle that runs code of posix.system"):
        read_torch(path)
    assert not (tmp_path / "mark").exists()
