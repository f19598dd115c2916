"""Part `accuracy`: the scorer against float64 (`dppo_core.reference`) on the same real float32 logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.naive import naive_statistics
from benchmarks.sizes import Source
from benchmarks.table import Line
from benchmarks.workload import Workload, full_logits, load
from dppo_core.reference import reference_token
from dppo_core.two_policy import TwoPolicyScorer, rows_of
from service.worker.pairs import lay_out

__all__ = ["run"]

TARGETS = {"tv_exact": 1e-7, "kl_exact": 1e-6, "tv_topk": 1e-7, "kl_topk": 1e-7, "tv_binary": 1e-7, "kl_binary": 1e-7}
"""Largest absolute error (probability or nats) of each divergence."""


def run(source: Source, tokens: int, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the part: the largest error of each divergence over `tokens` tokens, and the naive form's beside it."""
    progress("loading")
    workload = load(source, torch.float32)
    old, new, sampled = _logits(workload, tokens)
    fast = TwoPolicyScorer(old.shape[1]).score(rows_of(old), rows_of(new), sampled)
    naive = naive_statistics(old, new, sampled)
    # A' of the naive form keeps K slots
    reference: dict[str, list[dict[str, float]]] = {"paper": [], "slots": []}
    for row in range(len(sampled)):
        if row % 8 == 0:
            progress(f"float64, token {row} of {len(sampled)}")
        for mode, rows in reference.items():
            rows.append(reference_token(old[row], new[row], int(sampled[row]), topk_mode=mode))

    def error(values: Tensor, name: str, mode: str) -> float:
        expected = torch.tensor([row[name] for row in reference[mode]], dtype=torch.float64)
        return float((values.double() - expected).abs().max())

    lines = [
        Line("accuracy", f"{name}, largest error", error(getattr(fast, name), name, "paper"), "absolute", target)
        for name, target in TARGETS.items()
    ]
    return lines + [
        Line("accuracy", f"{name}, largest error, naive", error(naive[name], name, "slots"), "absolute")
        for name in TARGETS
    ]


def _logits(workload: Workload, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real float32 logits [N, V] of both policies and the sampled ids, N tokens spread over the first batch."""
    policies = [workload.old, workload.new]
    batch = lay_out(workload.responses, policies)[0]
    chosen = torch.linspace(0, len(batch.at) - 1, min(tokens, len(batch.at))).long()
    old, new = (full_logits(policy, policy.hidden_rows(batch)[chosen]) for policy in policies)
    return old, new, batch.sampled[chosen]
