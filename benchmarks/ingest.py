"""Part `ingest`: an NDJSON file through the import as the service runs it, beside a bare parse of the same lines."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Imported:
    """Seconds of an import, of one response before it in the same process, and the process's peak in bytes."""

    seconds: float
    first: float
    peak: int | None


def run(sizes: Sizes, repeats: int, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the part: the import's throughput over the bare parse's, both by themselves, the import's memory.

    The import runs in a child process as the service starts it, with every check, hashes and Parquet on the disk. The
    bare parse reads lines and decodes each into the import's own record, which is dropped at once. Neither includes the
    start of Python: an import of one response, which takes little else, has a line of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        log, one = Path(folder) / "rollouts.jsonl", Path(folder) / "one.jsonl"
        progress(f"writing {sizes.ingest_bytes / 1e6:,.0f} MB")
        write_log(one, 1)
        responses = write_log(log, sizes.ingest_bytes)
        size, imports = log.stat().st_size, list[Imported]()

        def import_() -> float:
            imports.append(_import(log, one, responses))
            return imports[-1].seconds

        parsed, imported = rotated(
            {"bare parse": partial(_parse, log), "import": import_}, min(repeats, REPEATS), progress
        ).values()
    of_file = f"{size / 1e6:,.0f} MB of NDJSON, {responses:,} responses"
    ratio = spread([bare / whole for bare, whole in zip(parsed, imported, strict=True)])
    lines = [Line.of("ingest", f"import over bare msgspec parse, {of_file}", ratio, "×", AT_LEAST, at_most=False)]
    for name, seconds in (("import", imported), ("bare parse", parsed)):
        lines.append(Line.of("ingest", name, spread([size / each / 1e6 for each in seconds]), "MB/s"))
    first = spread([1e3 * each.first for each in imports])
    lines.append(Line.of("ingest", "import of one response, the process's start included", first, "ms"))
    if peaks := [each.peak for each in imports if each.peak is not None]:
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


def _import(log: Path, one: Path, responses: int) -> Imported:
    """Both files through one new child process."""
    child = Child("service.ingest")
    try:
        first, rollouts = _timed(child, one)
        assert rollouts == 1
        seconds, rollouts = _timed(child, log)
        assert rollouts == responses
        return Imported(seconds, first, _peak(Path(f"/proc/{child.pid}/status")))
    finally:
        child.kill()


def _timed(child: Child, log: Path) -> tuple[float, int]:
    """Seconds and responses of one import under the limits of a service with default settings."""
    settings = Settings()
    limits = {
        "line_bytes": settings.max_line_bytes,
        "expanded_bytes": settings.max_expanded_bytes,
        "expansion": settings.max_expansion,
        "memory_bytes": INGEST_MEMORY,
    }
    with tempfile.TemporaryDirectory(dir=log.parent) as out:
        started = time.perf_counter()
        manifest = child.call({"path": str(log), "out_dir": out, "upload": "u0", "limits": limits})
        seconds = time.perf_counter() - started
    assert manifest["warnings"] == [], manifest["warnings"]
    return seconds, manifest["rollouts"]


def _peak(status: Path) -> int | None:
    """Bytes of a process's highest resident size so far; None where there is no /proc."""
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
