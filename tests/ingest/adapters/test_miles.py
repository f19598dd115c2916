"""miles: a loss dump numbers its samples within a micro-batch, so they are found by μ. Floats are exact in float32."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.errors import BadRecord
from service.ingest.adapters import miles
from service.ingest.adapters.miles import Losses, miles_records
from tests.cli.dumps import miles_loss, miles_rollout, samples
from tests.ingest.files import Importing

Fields = dict[str, Any]
FORMATS = Path(__file__).parents[2] / "data" / "formats"


def sampled(index: int, tokens: list[int], rollout: list[float], **fields: Any) -> Fields:
    return {
        "index": index,
        "group_index": 5,
        "tokens": tokens,
        "response_length": len(rollout),
        "rollout_log_probs": rollout,
        **fields,
    }


def at_loss(row: Fields, **fields: Any) -> Fields:
    """The row's sample at the loss: old = μ − 1/8, new = μ − 1/4."""
    rollout, length = row["rollout_log_probs"], row["response_length"]
    return {
        "index": 0,
        "total_length": len(row["tokens"]),
        "response_length": length,
        "rollout_log_probs": rollout,
        "train_log_probs": [value - 0.25 for value in rollout],
        "old_log_probs": [value - 0.125 for value in rollout],
        "advantages": [0.5] * length,
        "local_loss_mask": [1.0] * length,
        **fields,
    }


def call(number: int, *found: Fields, rank: int = 0) -> Fields:
    return {"rank": rank, "call": number, "samples": list(found)}


def records(rows: list[Fields], *calls: Fields, columns: Fields | None = None) -> tuple[list[Fields], Counter[str]]:
    notes: Counter[str] = Counter()
    losses = Losses()
    for one in calls:
        losses.add(one, notes)
    return list(miles_records(3, {"rollout_id": 3, "samples": rows}, columns, losses, notes)), +notes


A = sampled(40, [1, 2, 7, 8], [-0.5, -0.75])
B = sampled(41, [1, 2, 9, 8], [-0.5, -0.25])


def test_loss_samples_are_found_by_what_the_engine_logged() -> None:
    (first, second), notes = records([A, B], call(9, at_loss(B), at_loss(A, advantages=[-0.5, -0.5])))
    assert (first["old_logprobs"], first["new_logprobs"]) == ([-0.625, -0.875], [-0.75, -1.0])
    assert (first["advantage"], second["advantage"]) == ([-0.5, -0.5], [0.5, 0.5])
    assert second["new_logprobs"] == [-0.75, -0.5]
    assert first["meta"] == {"loss_call": 9, "loss_rank": 0}
    assert notes == {}


def test_what_the_engine_logged_is_float64_in_one_file_and_float32_in_the_other() -> None:
    row = sampled(40, [1, 7], [-0.1])
    (record,), notes = records([row], call(0, at_loss(row, rollout_log_probs=[-0.10000000149011612])))
    assert record["rollout_logprobs"] == [-0.1]
    assert "new_logprobs" in record
    assert notes == {}


def test_masked_tokens_are_null() -> None:
    row = sampled(40, [1, 2, 7, 8, 9], [-0.5, 0.0, -0.75], loss_mask=[1, 0, 1])
    (record,), _ = records([row], call(0, at_loss(row, local_loss_mask=[1.0, 0.0, 1.0])))
    assert record["response_mask"] == [1, 0, 1]
    for name in ("rollout_logprobs", "old_logprobs", "new_logprobs", "advantage"):
        assert [value is None for value in record[name]] == [False, True, False]


def test_two_responses_with_the_same_log_probs_get_nothing() -> None:
    twin = {**A, "index": 42, "tokens": [1, 2, 7, 6]}
    found, notes = records([A, B, twin], call(0, at_loss(A), at_loss(B)))
    assert ["new_logprobs" in record for record in found] == [False, True, False]
    assert notes == {miles.SAME: 2}


def test_copies_of_tensor_parallel_ranks_are_one() -> None:
    copies = [call(4, at_loss(A, train_log_probs=[-1.0 - rank] * 2), rank=rank) for rank in (1, 0)]
    (record,), notes = records([A], *copies)
    assert (record["new_logprobs"], record["meta"]["loss_rank"]) == ([-1.0, -1.0], 0)
    assert notes == {}


def test_several_calls_of_one_rank_say_nothing() -> None:
    (record,), notes = records([A], call(4, at_loss(A)), call(5, at_loss(A)))
    assert "new_logprobs" not in record
    assert notes == {miles.TWICE: 1}


def test_what_cannot_be_joined_is_counted() -> None:
    sliced = at_loss({**A, "rollout_log_probs": A["rollout_log_probs"][:1]}, advantages=[0.5], local_loss_mask=[1.0])
    blind = at_loss(A, rollout_log_probs=None)
    found, notes = records([A, B], call(0, sliced, blind, at_loss(B)))
    assert ["new_logprobs" in record for record in found] == [False, True]
    assert notes == {miles.SLICED: 1, miles.NO_MU: 1, miles.NO_LOSS: 1}


def test_old_log_probs_that_are_no_recomputation_are_said() -> None:
    """`losses.py`: old is μ with --use-rollout-logprobs, and the policy at the loss with --skip-actor-forward-only."""
    _, notes = records([A], call(0, at_loss(A, old_log_probs=A["rollout_log_probs"])))
    assert notes == {miles.OLD_IS_MU: 1}
    _, notes = records([A], call(0, at_loss(A, old_log_probs=[-0.75, -1.0])))
    assert notes == {miles.OLD_IS_NEW: 1}


def test_without_loss_dumps_nothing_is_missed() -> None:
    (record,), notes = records([A])
    assert "old_logprobs" not in record
    assert notes == {}


def test_bad_lists_are_named() -> None:
    with pytest.raises(BadRecord) as caught:
        records([A], call(0, at_loss(B), at_loss(A, old_log_probs=[-1.0])))
    (error,) = caught.value.errors
    assert (error.line, error.field) == (2, "old_log_probs")
    assert error.message == "has 1 entries, but rollout_log_probs has 2 (one short: shifted?)"


def test_columns_fill_what_the_dump_lacks_and_must_agree() -> None:
    bare = {**A, "rollout_log_probs": None}
    row = {"sample_index": 40, "tokens": A["tokens"], "rollout_log_probs": [-0.5, -0.75], "loss_mask": None}
    (record,), _ = records([bare], columns={"rows": [row]})
    assert record["rollout_logprobs"] == [-0.5, -0.75]
    with pytest.raises(BadRecord, match="of another step"):
        records([bare], columns={"rows": [{**row, "tokens": [1, 2, 7, 9]}]})


def columns(path: Path) -> Path:
    """dashboard_columns/rollout_7.parquet as miles 31f1ca9 wrote it (tests/data/formats/write_miles.py)."""
    return Path(shutil.copy(FORMATS / "miles-31f1ca9-columns.parquet", path))


def convert(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize(("name", "step", "expected"), [("rollout_7", [], 7), ("mine", ["--step", 9], 9)])
def test_columns_and_loss_as_miles_writes_them(
    importing: Importing, tmp_path: Path, name: str, step: list[Any], expected: int
) -> None:
    """No group, no reward and no text are in the columns; the step is in their name, or given."""
    files = columns(tmp_path / f"{name}.parquet"), FORMATS / "miles-31f1ca9-loss-0.pt"
    said = convert("auto", *files, "-o", tmp_path / "out.jsonl", *step).stderr
    assert f"2 {miles.NO_LOSS}" in said
    importing(tmp_path / "out.jsonl")
    first, second, third, fourth = importing.rows()
    assert (first["step"], first["sample_id"]) == (expected, "40")
    assert (first["prompt_token_ids"], first["response_token_ids"]) == ([5, 9], [11, 12, 30, 31, 13])
    assert first["response_mask"] == [True, True, False, False, True]
    assert first["rollout_logprobs"] == [-0.5, -0.25, None, None, -1.5]
    assert first["old_logprobs"] == [-0.625, -0.375, None, None, -1.25]
    assert first["new_logprobs"] == [-0.75, -0.5, None, None, -1.75]
    assert first["advantage"] == [0.5, 0.5, None, None, 0.5]
    assert first["group_id"] == second["group_id"] != third["group_id"] == fourth["group_id"]
    assert first["reward"] is first["response_text"] is None
    assert second["response_mask"] == [True, True]  # null in the file: the trainer fills in ones
    assert (second["rollout_logprobs"], second["old_logprobs"]) == ([-0.5, -0.75], None)  # of the other loss dump
    assert (third["response_token_ids"], third["new_logprobs"], third["advantage"]) == ([14], [-0.375], [1.0])
    assert fourth["response_mask"] == [True, True]  # that it was removed from the loss is not in the columns
    assert fourth["rollout_logprobs"] == [-2.0, -3.0]


def test_columns_without_a_step(tmp_path: Path) -> None:
    said = convert("auto", columns(tmp_path / "mine.parquet"), "-o", tmp_path / "out.jsonl", code=1).stderr
    assert "mine.parquet does not say its rollout_id; give the step with --step N" in said


def test_several_steps_and_a_loss_of_none_of_them(tmp_path: Path) -> None:
    files = miles_rollout(tmp_path / "8.pt", 8, samples()[1:2]), miles_rollout(tmp_path / "7.pt", 7, samples()[:1])
    loss = miles_loss(tmp_path / "rank_0_call_5.pt", 0, 5, [0, 1, 2])
    said = convert("miles", *files, loss, "-o", tmp_path / "out.jsonl")
    assert "2 responses of 2 steps" in said.stdout
    assert "1 responses at the loss belong to no sample of these files" in said.stderr
