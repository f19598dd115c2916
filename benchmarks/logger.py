"""Part `logger`: what `RolloutLogger.log` costs a training loop, and whether an outage loses a step.

A real service runs beside a training loop: forward and backward passes of a small network that fill at least 250 ms,
then `log` with 64 responses of 100 tokens. In the middle the service is killed, and started again half a minute
later. Other processes lengthen the calls as they lengthen the loop, and so they do an idle loop, the control.
"""

from __future__ import annotations

import math
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.sizes import Sizes
from benchmarks.table import Line
from service.client import Client, RolloutLogger
from tests.live import Server

__all__ = ["quantile", "run"]

AT_MOST = 0.02
"""Target of a call, at the 99 % quantile, over a training step."""
RUN = "bench"
RESPONSES, TOKENS = 64, 100


@dataclass
class Loop:
    """Seconds of what a training loop did, step by step."""

    steps: list[float] = field(default_factory=list)
    there: list[float] = field(default_factory=list)  # calls of `log` while the service was there
    away: list[float] = field(default_factory=list)  # … and while it was not
    busy: list[float] = field(default_factory=list)  # the calls' processor time: without what other processes take
    idle: list[float] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)  # the steps for which `log` returned True


def run(sizes: Sizes, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the part: calls as shares of the bare step's median, what an outage lost, the control."""
    progress("calibrating the training step")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the service runs on the same machine
    try:
        train = _training(sizes.logger_step)
        bare = statistics.median(train() for _ in range(20))
        with tempfile.TemporaryDirectory() as folder:
            loop, stored = _measure(sizes, train, Path(folder), progress)
    finally:
        torch.set_num_threads(threads)
    lost = [step for step in loop.kept if stored.get(step) != RESPONSES]
    calls = loop.there + loop.away
    what = f"log, 99 % quantile of {len(calls)} calls with {RESPONSES} responses of {TOKENS} tokens, "
    what += f"over a training step of {1e3 * bare:.0f} ms"
    lines = [
        Line("logger", what, quantile(calls, 0.99) / bare, "%", AT_MOST),
        Line("logger", "log, median", quantile(calls, 0.5) / bare, "%"),
        Line("logger", "log, processor time alone, 99 % quantile", quantile(loop.busy, 0.99) / bare, "%"),
        Line("logger", "control: an idle loop, 99 % quantile", quantile(loop.idle, 0.99) / bare, "%"),
        Line("logger", "training steps while logging over bare ones", statistics.median(loop.steps) / bare, "×"),
    ]
    if loop.away:
        what = f"log while the service is away for {sizes.logger_outage:g} s, 99 % quantile of {len(loop.away)} calls"
        lines.append(Line("logger", what, quantile(loop.away, 0.99) / bare, "%", AT_MOST))
    lines.append(Line("logger", f"steps lost of {len(loop.kept)} acknowledged", len(lost), "steps", 0))
    return lines


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _measure(
    sizes: Sizes, train: Callable[[], float], place: Path, progress: Callable[[str], None]
) -> tuple[Loop, dict[int, int]]:
    """The loop beside a service, and the responses of each step that the service has in the end."""
    loop, outage = Loop(), None
    server = Server(place / "data").start()
    again = Server(place / "data", "--port", server.url.rpartition(":")[2])
    logger = RolloutLogger(server.url, RUN, spool=place / "spool")
    for step in range(sizes.logger_steps):
        progress(f"step {step + 1} of {sizes.logger_steps}")
        if step == sizes.logger_steps // 3:
            server.stop(signal.SIGKILL)
            outage = threading.Timer(sizes.logger_outage, again.start)
            outage.start()
        loop.steps.append(train())
        rows = _records(step)
        started, computed = time.perf_counter(), time.thread_time()
        kept = logger.log(step, rows)
        seconds = time.perf_counter() - started
        loop.busy.append(time.thread_time() - computed)
        (loop.away if outage is not None and outage.is_alive() else loop.there).append(seconds)
        loop.kept += [step] if kept else []
        loop.idle.append(_idle_loop())
    progress("sending what waits")
    assert outage is not None
    outage.join()
    try:
        if not logger.close(120):
            raise RuntimeError("two minutes after the loop some steps have not been sent")
        with Client(again.url) as client:
            rows = client.sql(f"SELECT step, count(*) AS n FROM rollouts WHERE run = '{RUN}' GROUP BY step").to_pylist()
    finally:
        again.stop()
    return loop, {row["step"]: row["n"] for row in rows}


def _records(step: int) -> list[dict[str, Any]]:
    """What a trainer has at hand: tensors of float32 and int64."""
    generator = torch.Generator().manual_seed(step)

    def ids() -> torch.Tensor:
        return torch.randint(150_000, (TOKENS,), generator=generator)

    def logprobs() -> torch.Tensor:
        return -torch.empty(TOKENS).exponential_(1.0, generator=generator)

    return [
        {
            "sample_id": f"{step}/{at}",
            "group_id": f"{step}/{at // 8}",
            "prompt_token_ids": ids(),
            "response_token_ids": ids(),
            "response_mask": torch.ones(TOKENS, dtype=torch.int64),
            "rollout_logprobs": logprobs(),
            "old_logprobs": logprobs(),
            "advantage": random.Random(at).uniform(-1, 1),
            "reward": float(at % 2),
        }
        for at in range(RESPONSES)
    ]


def _training(seconds: float) -> Callable[[], float]:
    """A step that takes at least `seconds` on this machine when it is calibrated; returns what it took."""
    network = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 512))
    batch = torch.randn(256, 512)
    passes = 1

    def step() -> float:
        started = time.perf_counter()
        for _ in range(passes):
            network(batch).square().mean().backward()
        return time.perf_counter() - started

    step()
    passes = max(1, round(1.3 * seconds / min(step() for _ in range(5))))
    while min(step() for _ in range(3)) < seconds:
        passes = round(1.2 * passes) + 1
    return step


def _idle_loop() -> float:
    """Nothing, for about as long as the call computes: what it takes longer at times is the machine's doing."""
    started = time.perf_counter()
    for _ in range(40_000):
        pass
    return time.perf_counter() - started
