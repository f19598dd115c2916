"""Part `memory`: peak memory over the backbone's, each size in a child process of its own.

python -m benchmarks.memory VOCAB TOKENS     prints the peak in KiB
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.sizes import Sizes
from benchmarks.table import Line

__all__ = ["run"]

AT_MOST = 1.1
"""Target: the peak at the most tokens over that at the fewest."""
_WIDTH = 64  # of the hidden states: the head's size is no part of what is measured
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def run(sizes: Sizes, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the part: every peak, and the largest size over the smallest. Linux only: none elsewhere."""
    lines: list[Line] = []
    if not _CLEAR.exists():
        progress("skipped: peaks are read from /proc")
        return lines
    tokens = sizes.memory_tokens
    for vocab in sizes.memory_vocabularies:
        peaks = []
        for count in tokens:
            progress(f"V = {vocab:,}, {count:,} tokens")
            peaks.append(_peak_of_child(vocab, count) / 1024)
            lines.append(Line("memory", f"peak over the backbone's, V = {vocab:,}, {count:,} tokens", peaks[-1], "MiB"))
        what = f"{tokens[-1]:,} tokens over {tokens[0]:,}, V = {vocab:,}"
        lines.append(Line("memory", what, peaks[-1] / peaks[0], "×", AT_MOST))
    return lines


def _peak_of_child(vocab: int, tokens: int) -> int:
    # large blocks go back to the system at once, so that the peak is what is in use, not what glibc kept
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.memory", str(vocab), str(tokens)]
    root = Path(__file__).parent.parent
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=root).stdout)


def _peak() -> int:
    """The process's highest resident size so far, in KiB."""
    text = _STATUS.read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def _child(vocab: int, tokens: int) -> int:
    """KiB that scoring adds to what is there after the backbone: both policies' hidden rows and the LM head."""
    import torch

    from dppo_core.two_policy import LogitRows, TwoPolicyScorer
    from service.worker.score import CHUNK_ROWS

    def rows(states: torch.Tensor) -> LogitRows:
        def write(start: int, stop: int, out: torch.Tensor) -> None:
            torch.mm(states[start:stop], head.T, out=out)

        return write

    torch.manual_seed(0)
    head = torch.randn(vocab, _WIDTH)
    hidden = torch.randn(tokens, _WIDTH)
    moved = hidden + 0.01 * torch.randn(tokens, _WIDTH)
    sampled = torch.randint(0, vocab, (tokens,))
    _CLEAR.write_text("5", encoding="utf-8")  # the peak starts again from here
    before = _peak()
    scorer = TwoPolicyScorer(vocab, chunk_rows=CHUNK_ROWS["cpu"])
    scorer.score(rows(hidden), rows(moved), sampled)
    return _peak() - before


if __name__ == "__main__":
    sys.stdout.write(f"{_child(int(sys.argv[1]), int(sys.argv[2]))}\n")
