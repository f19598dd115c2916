"""Part `sharing`: a group's long prompt computed once, against once for each response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.scoring import scored_pass
from benchmarks.sizes import Sizes
from benchmarks.table import Line
from benchmarks.timing import Phases, rotated, spread
from benchmarks.workload import Workload, load
from dppo_core.two_policy import TwoPolicyScorer
from service.worker.batches import Response
from service.worker.pairs import lay_out
from service.worker.score import CHUNK_ROWS

__all__ = ["run"]

GROUP = 8
AT_LEAST = 2.0
"""Target of the whole pass's speed-up."""
REPEATS = 2  # at most: these are the longest passes, and their ratios are far from 1


def run(sizes: Sizes, repeats: int, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the part: whole passes of both policies at `sizes.whole_pass`, OLD's backbone once at other lengths.

    The ceiling G(P + L)/(P + G·L) is the ratio of the tokens that run through the backbone.
    """
    progress("loading")
    workload = load(sizes.source, torch.float32)
    scorer = TwoPolicyScorer(workload.old.vocab_size, chunk_rows=CHUNK_ROWS["cpu"])

    lines, prompt = [], sizes.prompt
    for length in sizes.responses:
        whole = length == sizes.whole_pass
        group = replace(workload, responses=_group(workload.responses, prompt, length))
        one_pass = partial(scored_pass, group, scorer) if whole else partial(_backbone_pass, group)
        ways = {
            f"responses of {length}, prompt {GROUP} times": partial(one_pass, share_prompts=False),
            f"responses of {length}, prompt once": partial(one_pass, share_prompts=True),
        }
        alone, shared = rotated(ways, min(repeats, REPEATS) if whole else 1, progress, warm_up=False).values()
        pairs = list(zip(alone, shared, strict=True))
        ceiling = GROUP * (prompt + length) / (prompt + GROUP * length)
        ratio = spread([a.backbone / b.backbone for a, b in pairs])
        what = f"P = {prompt}, G = {GROUP}, responses of {length}: "
        lines.append(Line.of("sharing", f"{what}backbone, ceiling {ceiling:.2f}×", ratio, "×"))
        if whole:
            ratio = spread([a.total / b.total for a, b in pairs])
            lines.append(Line.of("sharing", f"{what}whole pass", ratio, "×", AT_LEAST, at_most=False))
    return lines


def _backbone_pass(workload: Workload, *, share_prompts: bool) -> Phases:
    phases = Phases()
    for batch in lay_out(workload.responses, [workload.old], share_prompts=share_prompts):
        with phases.spent_on("backbone"):
            workload.old.hidden_rows(batch)
    return phases


def _group(real: list[Response], prompt: int, length: int) -> list[Response]:
    """GROUP responses of `length` tokens to one prompt, out of real text: prompts end to end, responses end to end."""
    prompts = np.concatenate([item.prompt for item in real])
    answers = np.concatenate([item.response for item in real])
    question = np.resize(prompts, prompt)
    counted = np.ones(length, dtype=np.bool_)
    shift = max(1, len(answers) // GROUP)
    return [Response(row, question, np.resize(np.roll(answers, -row * shift), length), counted) for row in range(GROUP)]
