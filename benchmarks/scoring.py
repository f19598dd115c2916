"""Parts `statistics` and `end-to-end`: passes of the scorer beside naive ones, phases timed inside each pass."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor

from benchmarks.naive import LAYOUTS, naive_pass
from benchmarks.sizes import Source
from benchmarks.table import Line
from benchmarks.timing import Phases, Spread, rotated, spread
from benchmarks.workload import Workload, load
from dppo_core.two_policy import LogitRows, TwoPolicyScorer
from service.worker.pairs import lay_out
from service.worker.score import CHUNK_ROWS

__all__ = ["run", "scored_pass"]

AT_MOST = {"float32": 0.05, "bfloat16": 0.10}
"""Targets of statistics over backbone + head, by the backbone's dtype; the LM head is float32 in both."""
AT_LEAST = 1.6
"""Target of the naive form's time over ours."""
OURS, AGAIN = "ours", "ours again"


def scored_pass(workload: Workload, scorer: TwoPolicyScorer, *, share_prompts: bool = True) -> Phases:
    """Score the workload as the worker does; whatever is no forward and no LM-head product counts as statistics."""
    phases = Phases()

    def timed(write: LogitRows) -> LogitRows:
        def timed_write(start: int, stop: int, out: Tensor) -> None:
            with phases.spent_on("head"):
                write(start, stop, out)

        return timed_write

    policies = [workload.old, workload.new]
    with phases.spent_on("statistics"):
        for batch in lay_out(workload.responses, policies, share_prompts=share_prompts):
            writers = []
            for policy in policies:
                with phases.spent_on("backbone"):
                    rows_ND = policy.hidden_rows(batch)
                writers.append(timed(policy.logits_of(rows_ND)))
            old, new = writers
            scorer.score(old, new, batch.sampled)
    return phases


def run(source: Source, parts: Collection[str], repeats: int, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the parts `statistics` and `end-to-end`, as far as `parts` names them.

    Each dtype measures one pass against itself (A/A): what that ratio differs from 1 by is noise.
    """
    lines: list[Line] = []
    for dtype in AT_MOST:
        naive = list(LAYOUTS) if dtype == "float32" and "end-to-end" in parts else []
        if naive or "statistics" in parts:
            progress(f"{dtype}: loading")
            workload = load(source, getattr(torch, dtype))
            lines += _lines(_measure(workload, dtype, naive, repeats, progress), workload.tokens, dtype, parts)
    return sorted(lines, key=lambda line: line.part, reverse=True)


def _measure(
    workload: Workload, dtype: str, naive: list[str], repeats: int, progress: Callable[[str], None]
) -> dict[str, list[Phases]]:
    scorer = TwoPolicyScorer(workload.old.vocab_size, chunk_rows=CHUNK_ROWS["cpu"])
    ways = dict.fromkeys((OURS, AGAIN), partial(scored_pass, workload, scorer))
    ways |= {layout: partial(naive_pass, workload, layout) for layout in naive}
    return rotated(ways, repeats, lambda text: progress(f"{dtype}: {text}"))


def _lines(found: dict[str, list[Phases]], tokens: int, dtype: str, parts: Collection[str]) -> list[Line]:
    ours = found[OURS]

    def ratios(name: str) -> Spread:
        return spread([way.total / our.total for way, our in zip(found[name], ours, strict=True)])

    lines = []
    if "statistics" in parts:
        shares = spread([phases.share_of_statistics for phases in ours + found[AGAIN]])
        what = f"statistics over backbone + head, {dtype} backbone"
        lines.append(Line.of("statistics", what, shares, "%", AT_MOST[dtype]))
    if "end-to-end" in parts:
        for layout in [name for name in LAYOUTS if name in found]:
            what = f"naive over ours, {layout}"
            lines.append(Line.of("end-to-end", what, ratios(layout), "×", AT_LEAST, at_most=False))
    part = "statistics" if "statistics" in parts else "end-to-end"
    lines.append(Line.of(part, f"A/A control, {dtype}", ratios(AGAIN), "×"))
    each = spread([1000 * phases.total / tokens for phases in ours])
    return [*lines, Line.of(part, f"both policies, per response token, {dtype}", each, "ms")]
