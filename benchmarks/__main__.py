"""`make bench`: what the statistics cost beside the head products that they need. Writes benchmarks/statistics.json.

Each repeat times, in rotated order, the two LM-head products alone, the same with every statistic of both policies,
and the plain full-logits form; the table shows medians and ratios. A/A is the first measured against itself.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dppo_core.two_policy import TwoPolicyScorer

ROWS, WIDTH, REPEATS, CHUNK = 512, 576, 7, 128


def naive(old: torch.Tensor, new: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """TV, KL, entropies, top-20 and the sampled log-probs from full log-softmaxes, as trainers write them."""
    logp, logq = torch.log_softmax(old, -1), torch.log_softmax(new, -1)
    p, q = logp.exp(), logq.exp()
    tv, kl = 0.5 * (p - q).abs().sum(-1), (p * (logp - logq)).sum(-1)
    top = logp.topk(20, -1).indices
    inside = 0.5 * (p.gather(-1, top) - q.gather(-1, top)).abs().sum(-1)
    sampled = logp.gather(-1, ids[:, None]) + logq.gather(-1, ids[:, None])
    return tv + kl + inside + sampled.squeeze(-1) - (p * logp).sum(-1) - (q * logq).sum(-1) + (q * q).sum(-1)


def measure(vocab: int) -> dict[str, float]:
    """Median seconds of each way for ROWS tokens over a vocabulary."""
    torch.manual_seed(0)
    head = torch.randn(vocab, WIDTH) * 0.05
    hidden = torch.randn(ROWS, WIDTH)
    moved = hidden + 0.01 * torch.randn(ROWS, WIDTH)
    ids = torch.randint(0, vocab, (ROWS,))
    buffer = torch.empty(CHUNK, vocab)
    scorer = TwoPolicyScorer(vocab, chunk_rows=CHUNK)

    def rows_of(states: torch.Tensor) -> Callable[[int, int, torch.Tensor], None]:
        return lambda start, stop, out: torch.mm(states[start:stop], head.T, out=out)

    def products() -> None:
        for states in (hidden, moved):
            for start in range(0, ROWS, CHUNK):
                torch.mm(states[start : start + CHUNK], head.T, out=buffer)

    def plain() -> None:
        naive(hidden @ head.T, moved @ head.T, ids)

    ways: dict[str, Callable[[], object]] = {
        "head products": products,
        "head products (A/A)": products,
        "with every statistic": lambda: scorer.score(rows_of(hidden), rows_of(moved), ids),
        "plain full logits": plain,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repeat in range(REPEATS + 1):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            start = time.perf_counter()
            ways[name]()
            if repeat:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure, print the table and write it beside this file."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    report: dict[str, object] = {"machine": machine, "rows": ROWS, "repeats": REPEATS, "vocabularies": {}}
    sys.stdout.write(f"{'float32, median of ' + str(REPEATS):<28}{'V':>9}{'ms/token':>12}{'of head':>10}\n")
    for vocab in (49_152, 151_936):
        found = measure(vocab)
        report["vocabularies"][str(vocab)] = found  # type: ignore[index]
        for name, seconds in found.items():
            ratio = seconds / found["head products"]
            sys.stdout.write(f"{name:<28}{vocab:>9,}{1e3 * seconds / ROWS:>12.3f}{ratio:>9.2f}×\n")
    Path(__file__).with_name("statistics.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
