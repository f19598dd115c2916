"""A run in which it is known on paper which tokens are dropped. No model: logged log-probs only.

Under ε .2/.28 and δ_TV .15, μ → new_logprobs, step 0. Each line: copies × (μ → π), and what drops it.

    A = +1   "the"   8 × (.5 → .55)   neither      A = −1   "the"    3 × (.5 → .45)   neither
                     2 × (.01 → .018) PPO                   "wait"   1 × (.6 → .3)    both
             "wait"  2 × (.01 → .018) PPO          A = 0    "wait"   1 × (.3 → .6)    no gradient
                     1 × (.7 → .86)   DPPO         A = +1   "wait"   1 × (?  → .5)    μ not logged: unknown
                     1 × (.5 → .55)   neither               "wait"   1 masked
             "Wait"  6 × (.5 → .55)   neither

With A > 0 that is 20 tokens with a known decision: PPO drops 4 of them, DPPO 1, only one of the two 5; with A < 0 it
is 4, of which both drop 1. PPO's two "wait" are in two prompts, its two "the" in one.
Step 1 is a response of two turns, and one of 8,192 tokens in a group of two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.live import Server
from tests.web.hand import HOSTILE, Pair, record, save_tokenizer

if TYPE_CHECKING:
    import httpx

    from tests.web.conftest import Site

RUN = "counted"
THE, WAIT, CAPITAL, MARKUP, TURNED, LINE = range(6)
PIECES = ["the", " wait", " Wait", HOSTILE, "\u202eevil", "\n"]
LONG = 8192
FAR = {100: (0.01, 0.018), 7000: (0.7, 0.86), 8100: (0.01, 0.018)}  # of the long response: PPO, DPPO, PPO

KEPT: Pair = (0.5, 0.55)
PPO: Pair = (0.01, 0.018)
DPPO: Pair = (0.7, 0.86)


def _record(sample: str, group: str, tokens: list[tuple[int, Pair]], advantage: float, **fields: Any) -> dict[str, Any]:
    ids = [token for token, _ in tokens]
    made = record(sample, [pair for _, pair in tokens], advantage, group_id=group)
    return {**made, "response_token_ids": ids, **fields}


def records() -> list[dict[str, Any]]:
    """Step 0 as above; step 1: the turns, the long response and its sibling."""
    first = [(THE, PPO)] * 2 + [(WAIT, PPO), (WAIT, DPPO), (CAPITAL, KEPT)]
    second = (
        [(THE, KEPT)] * 8 + [(WAIT, PPO), (WAIT, KEPT)] + [(CAPITAL, KEPT)] * 5 + [(WAIT, (None, 0.5)), (WAIT, KEPT)]
    )
    masked = _record("second", "g2", second, 1.0)
    masked["response_mask"][-1] = 0
    below: list[tuple[int, Pair]] = [(THE, (0.5, 0.45))] * 3 + [(WAIT, (0.6, 0.3))]
    # turn 0: two kept; turn 1 (a tool's output): masked; turn 2: PPO, DPPO, kept
    rounds = _record(
        "rounds", "g3", [(THE, KEPT), (THE, KEPT), (LINE, KEPT), (WAIT, PPO), (WAIT, DPPO), (THE, KEPT)], 1.0
    )
    rounds |= {"step": 1, "turn": [0, 0, 1, 2, 2, 2], "response_mask": [1, 1, 0, 1, 1, 1]}
    long = [(LINE if place % 20 == 19 else THE, FAR.get(place, KEPT)) for place in range(LONG)]
    return [
        _record("first", "g1", first, 1.0),
        masked,
        _record("below", "g1", below, -1.0),
        _record("still", "g1", [(WAIT, (0.3, 0.6))], 0.0),
        rounds,
        _record("long", "g4", long, 1.0, step=1, reward=0.25),
        _record("short", "g4", [(THE, PPO), (MARKUP, KEPT), (TURNED, KEPT)], 1.0, step=1, reward=0.75),
    ]


def fill(server: Server) -> str:
    """Make the run on a server and wait for its analysis: the analysis's id."""
    tokenizer = save_tokenizer(server.data_dir / "checkpoints" / "counted", PIECES)
    assert server.api.post("/runs", json={"run": RUN, "tokenizer": str(tokenizer)}).status_code == 201
    uploaded = server.upload(RUN, records())
    assert uploaded["state"] == "done", uploaded
    done = server.analyze(RUN, source="logged")
    assert done["state"] == "done", done
    return str(done["result"]["analysis"])


def table(site: Site, name: str, **query: Any) -> list[dict[str, Any]]:
    """The rows of a table of the analysis under a view."""
    answer = site.server.api.get(f"/analyses/{site.analysis}/tables/{name}", params=query)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()
    return rows


def page(site: Site, path: str, **query: Any) -> httpx.Response:
    """A page of the analysis as a browser asks for it."""
    answer = site.get(f"/analyses/{site.analysis}/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer
