"""Cuts the demo's two trainings out of two runs of the lab's declared experiment.

    dppo lab run grpo dppo_binary_tv --seeds 10 --dir LAB --log-files LOGS
    python -m benchmarks.cut_demo LOGS

Every fifth iteration, and of it the first 4 prompts with all their responses. What is kept is kept as it was logged.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parents[1] / "service" / "cli" / "demo_data" / "lab"
RUNS = {"grpo-s10": "lab-grpo", "dppo_binary_tv-s10": "lab-dppo-binary-tv"}
EVERY, RESPONSES = 5, 4 * 8
SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("group_id", pa.string()),
        ("sample_id", pa.string()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("response_token_ids", pa.list_(pa.int32())),
        ("response_mask", pa.list_(pa.uint8())),
        *((f"{policy}_logprobs", pa.list_(pa.float64())) for policy in ("rollout", "old", "new")),
        ("trainer_keep", pa.list_(pa.bool_())),
        *((name, pa.float64()) for name in ("reward", "advantage")),
        *((name, pa.int32()) for name in ("policy_version", "minibatch")),
        *((name, pa.string()) for name in ("prompt_text", "response_text")),
    ]
)


def main(logs: Path) -> None:
    """Write each run's cut as Parquet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for run, name in RUNS.items():
        rows = []
        for file in sorted((logs / run).glob("step_*.jsonl"))[::EVERY]:
            rows += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:RESPONSES]]
        path = FOLDER / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd", compression_level=19)
        print(f"{path}: {len(rows)} responses, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
