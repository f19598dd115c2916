"""Cuts the demo's two trainings out of two runs of the lab's declared experiment.

    dppo lab run grpo dppo_binary_tv --seeds 10 --dir LAB --log-files LOGS
    python -m benchmarks.cut_demo LOGS

Every fifth iteration, and of it the first 4 prompts with all their responses. What is kept is kept as it was logged.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "service" / "cli" / "demo_data" / "lab"
RUNS = {"grpo-s10": "lab-grpo", "dppo_binary_tv-s10": "lab-dppo-binary-tv"}
EVERY, RESPONSES = 5, 4 * 8


def main(logs: Path) -> None:
    """Write each run's cut."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for run, name in RUNS.items():
        steps = sorted((logs / run).glob("step_*.jsonl"))[::EVERY]
        lines = [line for step in steps for line in step.read_bytes().splitlines(keepends=True)[:RESPONSES]]
        path = FOLDER / f"{name}.jsonl.gz"
        path.write_bytes(gzip.compress(b"".join(lines), mtime=0))
        print(f"{path}: {len(lines)} responses, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
