"""`dppo convert` and pickles: nothing in one is ever run, and what needs a class has an export of six lines."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.cli import exports
from service.cli.dumps import classes_of
from tests.cli.dumps import Bomb, convert, sample, samples, slime_rollout
from tests.ingest.files import Importing


@pytest.mark.parametrize("writer", ["torch", "torch-legacy", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_a_hostile_file_is_refused_and_never_run(tmp_path: Path, writer: Any) -> None:
    mark, dump, out = tmp_path / "mark", tmp_path / "samples_7.pt", tmp_path / "out.jsonl"
    content = {"rollout_id": 7, "samples": [sample(tokens=[1, 2], response_length=1, metadata={"x": Bomb(mark)})]}
    if isinstance(writer, str):
        torch.save(content, dump, _use_new_zipfile_serialization=writer == "torch")
    else:
        dump.write_bytes(pickle.dumps(content, protocol=writer))
    said = convert("auto", dump, "-o", out, code=1).stderr
    assert "samples_7.pt is not opened" in said
    assert "posix.system" in said
    assert "run this where the trainer runs" in said
    assert not mark.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples_7.pt"]  # nothing half-written either
    pickle.loads(pickle.dumps(Bomb(mark)))  # the trap is one
    assert mark.exists()


def test_a_hostile_class_hidden_behind_numpy(tmp_path: Path) -> None:
    """The allowed makers of arrays make arrays of allowed things only."""
    mark, dump = tmp_path / "mark", tmp_path / "x.pt"
    torch.save({"rollout_id": 0, "samples": [], "x": np.array([Bomb(mark)], dtype=object)}, dump)
    assert "is not opened" in convert("auto", dump, "-o", tmp_path / "out.jsonl", code=1).stderr
    assert not mark.exists()


def test_numbers_of_numpy_are_no_code(importing: Importing, tmp_path: Path) -> None:
    rows = [{**samples()[0], "reward": np.float64(0.5), "metadata": {"a": np.arange(2), "b": float("nan")}}]
    convert("slime", slime_rollout(tmp_path / "7.pt", rows=rows), "-o", tmp_path / "out.jsonl")
    row = importing.row_of((tmp_path / "out.jsonl").read_bytes())
    assert row["reward"] == 0.5
    assert json.loads(row["meta"])["metadata"] == {"a": [0, 1]}


class TensorBatch(dict[str, Any]):
    """SkyRL's: a dict of tensors that is pickled as a class."""

    metadata: dict[str, Any] | None = None

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), dict(self), self.metadata)


class TrainingInputBatch(TensorBatch):
    pass


def _rebuild(kind: type, state: dict[str, Any], metadata: dict[str, Any] | None) -> Any:
    batch = kind(state)
    batch.metadata = metadata
    return batch


class TensorDict(list[dict[str, Any]]):
    """Rows of a TensorDict, to iterate over."""


class DataProto:
    """verl's: its state holds a torch.save file, which makes the pickle look like one."""

    def __init__(self, batch: dict[str, Any], non_tensor_batch: dict[str, Any]) -> None:
        self.batch, self.non_tensor_batch = batch, non_tensor_batch

    def __getstate__(self) -> tuple[bytes, dict[str, Any]]:
        buffer = io.BytesIO()
        torch.save({**self.batch, "class": TensorDict()}, buffer)
        return buffer.getvalue(), self.non_tensor_batch

    def __setstate__(self, state: tuple[bytes, dict[str, Any]]) -> None:
        self.batch = torch.load(io.BytesIO(state[0]), weights_only=False)
        self.non_tensor_batch = state[1]


def skyrl_batch() -> TrainingInputBatch:
    """Two rows, and a copy of the first to fill the batch up."""
    batch = TrainingInputBatch(
        sequences=torch.tensor([[0, 0, 5, 9, 11, 12, 2], [5, 9, 8, 11, 30, 31, 2], [0, 0, 5, 9, 11, 12, 2]]),
        attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7, [0, 0, 1, 1, 1, 1, 1]]),
        response_mask=torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]),
        loss_mask=torch.tensor([[0.0, 1, 1, 1], [1.0, 0, 0, 1], [0.0] * 4]),
        rollout_logprobs=torch.tensor([[0.0, -0.5, -0.25, -1], [-0.5, 0.0, 0.0, -2], [0.0, -0.5, -0.25, -1]]),
        action_log_probs=None,
    )
    batch.metadata = {"pad_size": 1}
    return batch


def data_proto() -> DataProto:
    """verl: prompts of 3 padded on the left, responses of 4 on the right."""
    batch = {
        "prompts": torch.tensor([[0, 5, 9], [5, 9, 8]]),
        "responses": torch.tensor([[11, 12, 2, 0], [11, 30, 31, 2]]),
        "response_mask": torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1]]),
        "input_ids": torch.tensor([[0, 5, 9, 11, 12, 2, 0], [5, 9, 8, 11, 30, 31, 2]]),
        "attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1, 0], [1] * 7]),
        "rollout_log_probs": torch.tensor([[-0.5, -0.25, -1, 0.0], [-0.5, 0.0, 0.0, -2]]),
    }
    return DataProto(batch, {"uid": np.array(["a", "b"], dtype=object), "__num_turns__": np.array([2, 4])})


def transfer_queue_batch() -> dict[str, Any]:
    """What verl's RolloutTqSkip gives to torch.save: the same rows without padding."""
    first, second = [5, 9, 11, 12, 2], [5, 9, 8, 11, 30, 31, 2]
    mask, mu = ([1, 1, 1], [1, 0, 0, 1]), ([-0.5, -0.25, -1.0], [-0.5, 0.0, 0.0, -2.0])
    rows = TensorDict(
        {
            "input_ids": torch.tensor(ids),
            "responses": torch.tensor(ids[-len(mask[row]) :]),
            "response_mask": torch.tensor(mask[row]),
            "rollout_log_probs": torch.tensor(mu[row]),
            "uid": "of the prompt",
        }
        for row, ids in enumerate([first, second])
    )
    tags = [{"min_global_steps": 2, "max_global_steps": 2, "seq_len": len(row["input_ids"])} for row in rows]
    return {"tensordict": rows, "tags": tags, "keys": ["a_0_0", "b_0_0"], "global_steps": 3}


@dataclass(frozen=True)
class Case:
    """A dump of a class, and what is said of it."""

    content: Any
    format: str
    named: str
    export: exports.Export


CASES = {
    "skyrl": Case(skyrl_batch(), "skyrl", "TrainingInputBatch", exports.SKYRL),
    "verl": Case(data_proto(), "verl", "DataProto", exports.DATAPROTO),
    "verl-v1": Case(transfer_queue_batch(), "verl", "TensorDict", exports.TRANSFER_QUEUE),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("chosen", ["auto", "named"])
def test_class_pickles_are_refused_and_their_export_is_imported(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case, chosen: str
) -> None:
    """What the exports make of the frameworks' own classes: tests/ingest/adapters/test_exported_rows.py."""
    dump = tmp_path / "dump"
    if case.export is exports.TRANSFER_QUEUE:
        torch.save(case.content, dump)
    else:
        dump.write_bytes(pickle.dumps(case.content))
    said = convert("auto" if chosen == "auto" else case.format, dump, "-o", tmp_path / "out.jsonl", code=1).stderr
    assert (f"{__name__}.{case.named}" in said) == (chosen == "auto")
    printed = [line.removeprefix("    ") for line in said.splitlines() if line.startswith("    ")]
    assert printed == case.export.snippet("dump").splitlines()
    knows_its_step = case.export is exports.TRANSFER_QUEUE
    assert said.endswith(f"dppo upload RUN rollouts.jsonl{'' if knows_its_step else ' --step N'}\n")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(printed), {})
    manifest = importing((tmp_path / "rollouts.jsonl").read_bytes(), step=None if knows_its_step else 3)
    assert manifest["format"] == ("skyrl" if case.export is exports.SKYRL else "dataproto")
    assert manifest["warnings"] == []
    first, second = importing.rows()
    assert first["step"] == second["step"] == 3
    assert (first["prompt_token_ids"], first["response_token_ids"]) == ([5, 9], [11, 12, 2])
    assert (second["prompt_token_ids"], second["response_token_ids"]) == ([5, 9, 8], [11, 30, 31, 2])
    assert second["response_mask"] == [True, False, False, True]
    assert second["rollout_logprobs"] == [-0.5, None, None, -2]
    if case.export is not exports.SKYRL:
        assert (first["group_id"], second["group_id"]) == ("a", "b")


def test_a_dump_that_says_nothing_of_itself(tmp_path: Path) -> None:
    """The format's usual dump is then spoken of."""
    (tmp_path / "dump").write_bytes(b"")
    for format_, about in (("verl", "a DataProto of verl"), ("skyrl", "a SkyRL batch")):
        said = convert(format_, tmp_path / "dump", "-o", tmp_path / "out", code=1).stderr
        assert f"dump is not opened. If it is {about}" in said


@dataclass(frozen=True)
class AdapterRef:
    """An object of the trainer's in a dump that is plain otherwise, as miles has with many adapters."""

    name: str
    slot: int


def test_the_export_of_a_dump_with_objects_is_converted(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**samples()[0], "adapter": AdapterRef("lora", 1), "rollout_routed_experts": np.zeros((2, 2), np.int32)}]
    dump = slime_rollout(tmp_path / "7.pt", rows=rows)
    said = convert("auto", dump, "-o", tmp_path / "out.jsonl", code=1).stderr
    assert f"{__name__}.AdapterRef" in said
    monkeypatch.chdir(tmp_path)
    exec(exports.PLAIN.snippet("7.pt"), {})
    convert("auto", tmp_path / "plain.pt", "-o", tmp_path / "out.jsonl")
    assert importing.row_of((tmp_path / "out.jsonl").read_bytes())["sample_id"] == "40"


@pytest.mark.parametrize("export", [exports.SKYRL, exports.DATAPROTO, exports.TRANSFER_QUEUE, exports.PLAIN])
def test_an_export_is_six_lines(export: exports.Export) -> None:
    assert len(export.code.splitlines()) == 6


def test_what_a_pickle_names_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps([skyrl_batch(), skyrl_batch(), Bomb(tmp_path / "no")], protocol))
        assert {f"{__name__}._rebuild", f"{__name__}.TrainingInputBatch", "posix.system"} <= set(classes_of(path))
    archive = b"PK\x03\x04\ncno\nclass\n."  # which could be read as a pickle
    for junk in (b"", b"junk", archive, b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"):
        path.write_bytes(junk)
        assert classes_of(path) == []
        assert "x is not opened" in convert("auto", path, "-o", tmp_path / "out", code=1).stderr
