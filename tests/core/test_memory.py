"""The statistics' memory does not grow with the number of tokens."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch
from dppo_core.two_policy import TwoPolicyScorer

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

tokens, vocab, width = int(sys.argv[1]), 49152, 64
torch.manual_seed(0)
head = torch.randn(vocab, width)
hidden = torch.randn(5000, width)          # the last backbone forward's result, the same for both
ids = torch.randint(0, vocab, (tokens,))
open("/proc/self/clear_refs", "w").write("5")
before = peak()
rows = lambda start, stop, out: torch.mm(hidden[start:stop], head.T, out=out)
TwoPolicyScorer(vocab).score(rows, rows, ids)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_at_5000_tokens_is_that_at_500() -> None:
    def peak(tokens: int) -> int:
        command = [sys.executable, "-c", SCRIPT, str(tokens)]
        # large blocks go back to the system at once, so that the peak is what is in use, not what glibc kept
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)

    small, large = peak(500), peak(5000)
    assert small > 50_000, "kiB: the two logits buffers alone are 48 MiB"
    assert large <= 1.1 * small, (small, large)
