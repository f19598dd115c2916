"""Part `ingest`: an NDJSON file through the import as the service runs it, beside a bare parse of the same lines."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.sizes import Sizes
from benchmarks.table import Line
from benchmarks.timing import rotated, spread
from service.ingest.record import Record
from service.jobs.imports import INGEST_MEMORY
from service.process import Child
from service.settings import Settings

__all__ = ["run", "write_log"]

AT_LEAST = 0.45
"""Target of the import's throughput over the bare parse's."""
AT_MOST_MB = 300
"""Target of the import's peak resident memory."""
REPEATS = 3  # at most: each reads the whole file twice
GROUP, GROUPS_OF_A_STEP = 8, 32
VOCAB = 150_000


def run(sizes: Sizes, repeats: int, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the part: the import's throughput over the bare parse's, both by themselves, the import's memory.

    The import is all that a user waits for: the child's start, every check, hashes and Parquet on the disk. The bare
    parse reads lines and decodes each into the import's own record, which is dropped at once.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "rollouts.jsonl"
        progress(f"writing {sizes.ingest_bytes / 1e6:,.0f} MB")
        responses = write_log(log, sizes.ingest_bytes)
        size, peaks = log.stat().st_size, list[int]()
        ways = {"bare parse": partial(_parse, log), "import": partial(_import, log, responses, peaks)}
        parsed, imported = rotated(ways, min(repeats, REPEATS), progress).values()
    of_file = f"{size / 1e6:,.0f} MB of NDJSON, {responses:,} responses"
    ratio = spread([bare / whole for bare, whole in zip(parsed, imported, strict=True)])
    lines = [Line.of("ingest", f"import over bare msgspec parse, {of_file}", ratio, "×", AT_LEAST, at_most=False)]
    for name, seconds in (("import", imported), ("bare parse", parsed)):
        lines.append(Line.of("ingest", name, spread([size / each / 1e6 for each in seconds]), "MB/s"))
    if peaks:
        lines.append(Line("ingest", "peak resident memory of the import", max(peaks) / 1e6, "MB", AT_MOST_MB))
    return lines


def write_log(path: Path, size: int) -> int:
    """Write native records until the file has `size` bytes; how many."""
    written = 0
    with path.open("wb", buffering=1 << 20) as file:
        for record in _records():
            file.write(msgspec.json.encode(record) + b"\n")
            written += 1
            if file.tell() >= size:
                return written
    raise AssertionError("records have no end")


def _records() -> Iterator[dict[str, Any]]:
    """Groups of responses to one prompt, some 400 tokens each, as a trainer's `tolist()` gives them: float32 log-probs
    with all their digits, the trainer's own beside the engine's, one advantage, text."""
    random = np.random.default_rng(0)
    words = [f" word{number}" for number in range(1000)]

    def text(length: int) -> str:
        return "".join(words[at] for at in random.integers(len(words), size=length))

    group = 0
    while True:
        step, prompt_tokens = group // GROUPS_OF_A_STEP, int(random.integers(100, 400))
        prompt, prompt_text = random.integers(VOCAB, size=prompt_tokens).tolist(), text(prompt_tokens)
        for sample in range(GROUP):
            length = int(np.clip(random.lognormal(5.8, 0.6), 16, 4096))
            rollout = -random.exponential(0.4, length).astype(np.float32)
            old = np.minimum(rollout + random.normal(0, 0.02, length).astype(np.float32), 0)
            reward = float(random.random() < 0.5)
            yield {
                "step": step,
                "sample_id": f"s{step}/g{group}/{sample}",
                "group_id": f"s{step}/g{group}",
                "prompt_token_ids": prompt,
                "response_token_ids": random.integers(VOCAB, size=length).tolist(),
                "response_mask": [1] * length,
                "rollout_logprobs": rollout.tolist(),
                "old_logprobs": old.tolist(),
                "reward": reward,
                "advantage": reward - 0.5,
                "prompt_text": prompt_text,
                "response_text": text(length),
                "finish_reason": "stop",
            }
        group += 1


def _parse(log: Path) -> float:
    """Seconds to decode every line, without the garbage collector, as the import does it."""
    decode = msgspec.json.Decoder(Record).decode
    gc.disable()
    try:
        started = time.perf_counter()
        with log.open("rb", buffering=1 << 20) as file:
            for line in file:
                decode(line)
        return time.perf_counter() - started
    finally:
        gc.enable()


def _import(log: Path, responses: int, peaks: list[int]) -> float:
    """Seconds of one import in a child process of its own; its peak is added to `peaks` where /proc tells it."""
    settings = Settings()
    limits = {
        "line_bytes": settings.max_line_bytes,
        "expanded_bytes": settings.max_expanded_bytes,
        "expansion": settings.max_expansion,
        "memory_bytes": INGEST_MEMORY,
    }
    with tempfile.TemporaryDirectory(dir=log.parent) as out:
        child = Child("service.ingest")
        try:
            started = time.perf_counter()
            manifest = child.call({"path": str(log), "out_dir": out, "upload": "u0", "limits": limits})
            seconds = time.perf_counter() - started
            assert manifest["rollouts"] == responses, manifest
            assert manifest["warnings"] == [], manifest["warnings"]
            status = Path(f"/proc/{child.pid}/status")
            if status.exists():
                (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
                peaks.append(int(peak.split()[1]) * 1024)
        finally:
            child.kill()
    return seconds
