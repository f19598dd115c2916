"""Twelve prompts that are alike, each with a response of A = +1 and one of A = −1. No model: logged log-probs only.

Under ε .2/.28 and δ_TV .15, μ → new_logprobs. Each line: copies × (μ → π), r, |π − μ|, what drops it.

    A = +1   2 × (.5  → .55)  r 1.1    .05   neither          A = −1   2 × (.5  → .45)  r .9   .05   neither
             1 × (.02 → .04)  r 2      .02   PPO only                  1 × (.02 → .01)  r .5   .01   PPO only
             1 × (.6  → .76)  r 1.2667 .16   DPPO only                 1 × (.6  → .3)   r .5   .3    both

The trainer's own mask, as logged, is that of PPO.
"""

from __future__ import annotations

from typing import Any

from tests.live import Server
from tests.web.hand import record

RUN, PROMPTS = "prompts", 12
POSITIVE: list[tuple[float | None, float]] = [(0.5, 0.55), (0.5, 0.55), (0.02, 0.04), (0.6, 0.76)]
NEGATIVE: list[tuple[float | None, float]] = [(0.5, 0.45), (0.5, 0.45), (0.02, 0.01), (0.6, 0.3)]
KEPT = {1.0: [True, True, False, True], -1.0: [True, True, False, False]}


def records() -> list[dict[str, Any]]:
    return [
        record(f"{group}{side}", pairs, advantage, group_id=f"p{group}", trainer_keep=KEPT[advantage])
        for group in range(PROMPTS)
        for side, pairs, advantage in (("up", POSITIVE, 1.0), ("down", NEGATIVE, -1.0))
    ]


def fill(server: Server) -> str:
    """Make the run on a server and wait for its analysis: the analysis's id."""
    assert server.api.post("/runs", json={"run": RUN}).status_code == 201
    assert server.upload(RUN, records())["state"] == "done"
    done = server.analyze(RUN, source="logged")
    assert done["state"] == "done", done
    return str(done["result"]["analysis"])
