"""A run whose four cells are known on paper, and one made of markup. No model: logged log-probs only.

Under ε .2/.28 and δ_TV .15, μ → new_logprobs. Each line: copies × (μ → π), r, |π − μ|, what drops it.

    A = +1   4 × (.5  → .55)  r 1.1    .05   neither          A = −1   6 × (.5 → .45)  r .9     .05   neither
             1 × (.1  → .05)  r .5     .05   neither (toward)          4 × (.1 → .05)  r .5     .05   PPO only
             3 × (.01 → .018) r 1.8    .008  PPO only                  1 × (.9 → .74)  r .8222  .16   DPPO only
             2 × (.7  → .86)  r 1.2286 .16   DPPO only                 3 × (.6 → .3)   r .5     .3    both
             1 × (.2  → .5)   r 2.5    .3    both             A = 0    3 × (.3 → .6)   no gradient
             1 × (?   → .5)   μ not logged: unknown
             2 masked tokens
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tests.live import Server

RUN, STEP = "hand", 0
HOSTILE = "<script>window.owned=1</script>"
HOSTILE_ID = f"a/b?c=1&d=%2e#\"x'{HOSTILE}é 京"
HOSTILE_GROUP = "<img src=x onerror=window.owned=1>"
PIECES = [
    "The",
    " sum",
    " of",
    " 2",
    " and",
    " 3",
    " is",
    " 5",
    ".",
    "\n",
    HOSTILE,
    "<img src=x onerror=window.owned=1>",
    "<a href='javascript:window.owned=1'>x</a>",
    "\u202eevil",
    "\x00",
    "<b>bold</b>",
    "&lt;",
    "%{x}",
    "$x^2$",
    "\t",
]

Pair = tuple[float | None, float]
POSITIVE: list[Pair] = (
    [(0.5, 0.55)] * 4 + [(0.1, 0.05)] + [(0.01, 0.018)] * 3 + [(0.7, 0.86)] * 2 + [(0.2, 0.5)] + [(None, 0.5)]
)
NEGATIVE: list[Pair] = [(0.5, 0.45)] * 6 + [(0.1, 0.05)] * 4 + [(0.9, 0.74)] + [(0.6, 0.3)] * 3
ZERO: list[Pair] = [(0.3, 0.6)] * 3


def record(sample: str, pairs: list[Pair], advantage: float, masked: int = 0, **fields: Any) -> dict[str, Any]:
    """A rollout whose tokens have these (μ, π), then `masked` tokens that do not count."""

    def log(p: float | None) -> float | None:
        return None if p is None else math.log(p)

    n = len(pairs)
    return {
        "step": STEP,
        "sample_id": sample,
        "group_id": "g",
        "prompt_token_ids": [0, 1],
        "response_token_ids": [place % 10 for place in range(n + masked)],
        "response_mask": [1] * n + [0] * masked,
        "rollout_logprobs": [log(mu) for mu, _ in pairs] + [None] * masked,
        "old_logprobs": [log(mu if mu is not None else 0.5) for mu, _ in pairs] + [None] * masked,
        "new_logprobs": [log(pi) for _, pi in pairs] + [None] * masked,
        "advantage": advantage,
        "reward": max(advantage, 0.0),
        "prompt_text": "What is 2 + 3?",
        **fields,
    }


def records() -> list[dict[str, Any]]:
    """Step 0: three responses with A > 0, A < 0 and A = 0. Step 1: one made of markup."""
    markup = list(range(len(PIECES)))
    return [
        record("positive", POSITIVE, 1.0, masked=2),
        record("negative", NEGATIVE, -1.0),
        record("zero", ZERO, 0.0),
        record(
            HOSTILE_ID,
            [(0.01, 0.05)] * len(markup),
            0.5,
            step=1,
            group_id=HOSTILE_GROUP,
            response_token_ids=markup,
            prompt_text=HOSTILE + "\u202e\x07",
            response_text=HOSTILE_GROUP,
            finish_reason=HOSTILE,
            **{"note " + HOSTILE: HOSTILE},
        ),
    ]


def save_tokenizer(folder: Path, pieces: list[str] = PIECES) -> Path:
    """A tokenizer directory whose ids are the places of `pieces`."""
    folder.mkdir(parents=True, exist_ok=True)
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "normalizer": None,
                "pre_tokenizer": None,
                "post_processor": None,
                "decoder": None,
                "added_tokens": [{"id": len(pieces), "content": "[UNK]", **added}],
                "model": {
                    "type": "WordLevel",
                    "unk_token": "[UNK]",
                    "vocab": {piece: place for place, piece in enumerate([*pieces, "[UNK]"])},
                },
            }
        ),
        encoding="utf-8",
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def fill(server: Server) -> str:
    """Make the run on a server and wait for its analysis: the analysis's id."""
    tokenizer = save_tokenizer(server.data_dir / "checkpoints" / "tokenizer")
    body = {"run": RUN, "framework": HOSTILE, "tokenizer": str(tokenizer)}
    response = server.api.post("/runs", json=body)
    assert response.status_code == 201, response.text
    uploaded = server.upload(RUN, records(), filename=HOSTILE_GROUP)
    assert uploaded["state"] == "done", uploaded
    refused = server.upload(RUN, [{**record("x", ZERO, 0.0), "rollout_logprob" + HOSTILE: 1, "step": HOSTILE}])
    assert refused["state"] == "failed", refused
    done = server.analyze(RUN, source="logged")
    assert done["state"] == "done", done
    return str(done["result"]["analysis"])
