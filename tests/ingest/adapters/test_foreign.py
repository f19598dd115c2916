"""Files that lie beside a trainer's rollouts: the refusal says what each is, and what to hand over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import Invalid
from tests.ingest.adapters.test_annotations import TRAINER, update
from tests.ingest.adapters.test_verifiers_results import result
from tests.ingest.files import Importing, parquet

FORMATS = Path(__file__).parents[2] / "data" / "formats"
EVALS = json.loads((FORMATS / "skyrl-0.3.0-evals.jsonl").read_text())  # write_skyrl.py
AGENTIC = {  # ROLL `pipeline/agentic/utils.py:298-333`
    "trajectory_data": "[]",
    "messages": "[]",
    "tools": "[]",
    "exp_name": "agentic",
    "global_step": 5,
}
METADATA = {"run_name": "r", "git_commit": "e6c3044aa", "model_name": "m", "timestamp": "2026-08-20"}  # open-instruct
RESULTS = {name: value for name, value in result().items() if name != "trajectory"}


@pytest.mark.parametrize(
    ("record", "what", "do"),
    [
        (EVALS, "This is SkyRL's dumped_evals", "`dppo convert skyrl` says how"),
        (AGENTIC, "This is ROLL's agentic trajectories", "`dppo convert roll` says how"),
        (METADATA, "This is open-instruct's metadata", "Upload its rollouts: {run}_rollouts_*.jsonl"),
        (RESULTS, "This is verifiers' results without a trajectory", 'state_columns=["trajectory"]'),
        (update(TRAINER), "This is prime-rl's annotations", "`dppo convert prime-rl stream.jsonl"),
        (
            {"trace_id": "t1", "chunk": 0, "offset": 9, "info": {}},
            "This is an index of prime-rl's",
            "Upload the stream",
        ),
    ],
)
def test_what_it_is_and_what_to_do(importing: Importing, record: dict[str, Any], what: str, do: str) -> None:
    refused = importing.refused([record])
    assert isinstance(refused, Invalid)
    assert what in refused.detail
    assert do in refused.detail


def test_miles_columns(importing: Importing) -> None:
    """`ray/rollout/debug_data.py:36-72`."""
    row = {"sample_index": [40], "response_length": [2], "total_length": [4], "tokens": [[5, 9, 11, 2]]}
    path = parquet(importing.folder / "rollout_7.parquet", {**row, "rollout_log_probs": [[-0.5, -0.25]]})
    refused = importing.refused(path)
    assert "This is miles' dashboard columns. `dppo convert miles rollout_N.parquet" in refused.detail


@pytest.mark.parametrize("format_", ["slime", "miles"])
def test_a_format_that_is_converted(importing: Importing, format_: str) -> None:
    refused = importing.refused([{"samples": []}], format=format_)
    assert f"`dppo convert {format_} FILES -o FILE.jsonl.gz` makes the file to upload" in refused.detail


def test_what_nobody_knows_is_read_as_native(importing: Importing) -> None:
    assert "sample_id" in {field for _, field, _ in importing.errors([json.loads('{"a": 1}')])}
