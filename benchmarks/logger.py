"""`python -m benchmarks.logger`: what `RolloutLogger.log` costs a training loop, and whether an outage loses a step.

A real service runs beside a training loop: forward and backward passes of a small network that fill at least 250 ms,
then `log` with 64 responses of 100 tokens. In the middle the service is killed, and started again `--outage` seconds
later. Printed: quantiles of the call as shares of a step, of the steps while the service was there and while it was
not, the same of an idle loop, the training step's own slow-down, and which steps the service has in the end. Run it on
a machine that does nothing else: other processes lengthen the calls as they lengthen the loop.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.client import Client, RolloutLogger
from tests.live import Server

LIMIT = 0.02  # of a step, at the 99 % quantile


def records(step: int, responses: int, tokens: int) -> list[dict[str, Any]]:
    """What a trainer has at hand: tensors of float32 and int64."""
    import torch

    generator = torch.Generator().manual_seed(step)

    def ids() -> Any:
        return torch.randint(150_000, (tokens,), generator=generator)

    def logprobs() -> Any:
        return -torch.empty(tokens).exponential_(1.0, generator=generator)

    return [
        {
            "sample_id": f"{step}/{at}",
            "group_id": f"{step}/{at // 8}",
            "prompt_token_ids": ids(),
            "response_token_ids": ids(),
            "response_mask": torch.ones(tokens, dtype=torch.int64),
            "rollout_logprobs": logprobs(),
            "old_logprobs": logprobs(),
            "advantage": random.Random(at).uniform(-1, 1),
            "reward": float(at % 2),
        }
        for at in range(responses)
    ]


def training(seconds: float) -> Callable[[], float]:
    """A step that takes at least `seconds` on this machine when it is calibrated; returns what it took."""
    import torch

    torch.set_num_threads(1)  # the service runs on the same machine
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


def idle_loop() -> float:
    """Nothing, for about as long as the call computes: what it takes longer at times is the machine's doing."""
    started = time.perf_counter()
    for _ in range(40_000):
        pass
    return time.perf_counter() - started


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def as_line(name: str, calls: Sequence[float], step: float) -> str:
    p50, p99 = quantile(calls, 0.5), quantile(calls, 0.99)
    return (
        f"{name:<22} {len(calls):>4} calls   median {1e3 * p50:6.2f} ms   p99 {1e3 * p99:6.2f} ms = "
        f"{p99 / step:.2%} of a step   max {1e3 * max(calls):6.2f} ms"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; exit status 1 where a step is lost or the limit is passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logger", description=__doc__)
    parser.add_argument("--steps", type=int, default=160, help="training steps (%(default)s)")
    parser.add_argument("--step-seconds", type=float, default=0.25, help="of one training step (%(default)s)")
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--outage", type=float, default=30, help="seconds without a service, 0 = none (%(default)s)")
    parsed = parser.parse_args(argv)
    train = training(parsed.step_seconds)
    bare = [train() for _ in range(20)]

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        server = Server(place / "data").start()
        port = server.url.rpartition(":")[2]
        logger = RolloutLogger(server.url, "bench", spool=place / "spool")
        calls: dict[str, list[float]] = {"service there": [], "service away": []}
        steps: list[float] = []
        busy: list[float] = []  # without what other processes on the machine take
        noise: list[float] = []
        refused, outage = [], None
        for step in range(parsed.steps):
            if step == parsed.steps // 3 and parsed.outage:
                server.stop(signal.SIGKILL)
                outage = threading.Timer(parsed.outage, lambda: Server.start(server))
                server._arguments = ("--port", port)
                outage.start()
            steps.append(train())
            rows = records(step, parsed.responses, parsed.tokens)
            started, computed = time.perf_counter(), time.thread_time()
            kept = logger.log(step, rows)
            busy.append(time.thread_time() - computed)
            noise.append(idle_loop())
            away = outage is not None and outage.is_alive()
            calls["service away" if away else "service there"].append(time.perf_counter() - started)
            if not kept:
                refused.append(step)
        if outage:
            outage.join()
        drained = logger.close(120)
        with Client(server.url) as client:
            table = client.sql("SELECT step, count(*) AS n FROM rollouts WHERE run = 'bench' GROUP BY step")
        server.stop()

    found = {row["step"]: row["n"] for row in table.to_pylist()}
    lost = [step for step in range(parsed.steps) if step not in refused and found.get(step) != parsed.responses]
    typical, every = statistics.median(bare), [call for part in calls.values() for call in part]
    print(f"a bare step: median {1e3 * typical:.0f} ms; while logging: {1e3 * statistics.median(steps):.0f} ms")
    for name, part in [*calls.items(), ("all", every)]:
        if part:
            print(as_line(name, part, typical))
    print(f"{parsed.steps} steps, {len(refused)} not acknowledged, {len(lost)} acknowledged and lost {lost[:10]}")
    print(f"its processor time: median {1e3 * quantile(busy, 0.5):.2f} ms   p99 {1e3 * quantile(busy, 0.99):.2f} ms")
    print(as_line("control: an idle loop", noise, typical))
    holds = quantile(every, 0.99) <= LIMIT * typical
    print(f"p99 <= {LIMIT:.0%} of a step: {'holds' if holds else 'does not hold'}")
    return 0 if holds and not lost and drained else 1


if __name__ == "__main__":
    sys.exit(main())
