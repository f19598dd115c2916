"""Two runs over training whose numbers are known on paper.

`story`, nine steps, logged log-probs only. A step has five tokens with A > 0 and five with A < 0; each line says what
moves (μ → π). The first three steps are what later ones are compared with.

    step   A > 0            A < 0                                    mean |π − μ|    bad updates (A < 0, μ − π ≥ .5)
    0      .6 → .62         .6 → .58                                 .02             0
    1      .6 → .63         .6 → .57                                 .03             0
    2      .6 → .625        .6 → .575                                .025            0
    3      .6 → .64         .6 → .56                                 .04             0
    4      .6 → .65         .6 → .55                                 .05             0
    5      .6 → .62         4 × (.6 → .58), .95 → .35                .078            1 of 10
    6      .6 → .62         3 × (.6 → .58), .95 → .35, .75 → .25     .126            2 of 10, one of them exactly .5
    7      .6 → .62 and     3 × (.6 → .58), 2 × (.95 → .35),         2.66 / 12       2 of 11
           .95 → .35        and .95 → .25 with A = 0
    8      μ is not logged                                           not known       not known

Rewards are 0, 1, 0, 1, … and 1 in step 8.

`scored`, two steps of a segment as the worker would write it: mismatch, update, entropy, top-K mass, noise.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.layout import Layout
from service.schemas.rollout import ROLLOUT_SCHEMA
from service.schemas.segment import SEGMENT_SCHEMA
from service.settings import Settings
from service.store.store import Store
from tests.live import Server
from tests.web.hand import Pair, record

RUN, SCORED = "story", "scored"
MOVES = {0: 0.02, 1: 0.03, 2: 0.025, 3: 0.04, 4: 0.05, 5: 0.02, 6: 0.02, 7: 0.02, 8: 0.02}
FALLEN: dict[int, list[Pair]] = {5: [(0.95, 0.35)], 6: [(0.95, 0.35), (0.75, 0.25)], 7: [(0.95, 0.35)] * 2}
REWARDS = [0, 1, 0, 1, 0, 1, 0, 1, 1]


def records() -> list[dict[str, Any]]:
    """The responses of `story`."""
    found = []
    for step, move in MOVES.items():
        fallen = FALLEN.get(step, [])
        up: list[Pair] = [(0.6, 0.6 + move)] * 5 + ([(0.95, 0.35)] if step == 7 else [])
        down: list[Pair] = [(0.6, 0.6 - move)] * (5 - len(fallen)) + fallen
        if step == 8:
            up, down = ([(None, pi) for _, pi in pairs] for pairs in (up, down))
        common = {"step": step, "reward": REWARDS[step]}
        found += [record("up", up, 1.0, **common), record("down", down, -1.0, **common)]
        if step == 7:
            found.append(record("flat", [(0.95, 0.25)], 0.0, **common))
    return found


def fill(server: Server) -> str:
    """Make `story` on a server: its analysis's id."""
    assert server.api.post("/runs", json={"run": RUN}).status_code == 201
    assert server.upload(RUN, records())["state"] == "done"
    done = server.analyze(RUN, source="logged")
    assert done["state"] == "done", done
    return str(done["result"]["analysis"])


# Five tokens a step: four that count, and a masked one that no number may see. Values are sums of powers of two, each
# column for itself.
SEGMENTS: dict[int, dict[str, list[Any]]] = {
    0: {
        "entropy_old": [1.0, 2.0, 3.0, 2.0, None],
        "topk_mass_old": [0.75, 1.0, 0.875, 0.875, None],
        "log_ratio__rollout_old": [0.5, -0.5, 0.25, -0.25, None],
        "tv_binary__rollout_old": [0.125, 0.0625, 0.03125, 0.03125, None],
        "log_ratio__old_new": [0.25, 0.25, -0.25, -0.25, None],
        "tv_binary__old_new": [0.5, 0.25, 0.125, 0.125, None],
        "log_ratio__rollout_new": [0.75, -0.25, 0.0, -0.5, None],
        "tv_binary__rollout_new": [0.25, 0.125, 0.0, 0.125, None],
        "noise_tv": [0.0078125] * 4 + [None],
    },
    1: {
        "entropy_old": [1.0, 1.5, 1.25, 1.25, None],
        "topk_mass_old": [0.9375, 1.0, 0.96875, 0.96875, None],
        "log_ratio__rollout_old": [0.5, 0.5, 0.5, 0.5, None],
        "tv_binary__rollout_old": [0.25, 0.25, 0.25, 0.25, None],
        "log_ratio__old_new": [0.0, 0.0, 0.0, 0.0, None],
        "tv_binary__old_new": [0.0, 0.0, 0.0, 0.0, None],
        "log_ratio__rollout_new": [0.5, 0.5, 0.5, 0.5, None],
        "tv_binary__rollout_new": [0.25, 0.25, 0.25, 0.25, None],
        "noise_tv": [0.0078125] * 4 + [None],
    },
}


def segment(step: int) -> pa.Table:
    """What the worker would write for a step of `scored`: two responses, of two prompts."""
    columns: dict[str, list[Any]] = {
        "group_id": ["g1", "g1", "g2", "g2", "g2"],
        "sample_id": ["a", "a", "b", "b", "b"],
        "position": [0, 1, 0, 1, 2],
        "token_id": [5, 6, 7, 8, 9],
        "counted": [True, True, True, True, False],
        "advantage": [1.0, 1.0, -1.0, -1.0, None],
        "reward": [1.0, 1.0, None, None, None],
        **{name: [-1.0, -1.0, -2.0, -2.0, None] for name in ("logp_rollout", "logp_old", "logp_new")},
        **SEGMENTS[step],
    }
    return pa.table(
        [pa.array(columns.get(field.name, [None] * 5), field.type) for field in SEGMENT_SCHEMA], schema=SEGMENT_SCHEMA
    )


def write_scored(data_dir: Path) -> str:
    """Make `scored` in a data directory that no service holds: its analysis's id."""
    store = Store(Settings(data_dir=data_dir))
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs_mode": None}
    run_id = store.runs.create(SCORED, None, sampling, None, {})["run_id"]
    _upload(store, run_id, data_dir)
    nothing = {"inputs": {}, "old_checkpoint": None, "new_checkpoint": None, "span": 1}
    steps = [{"step": step, "scoring": f"x{step}", **nothing} for step in SEGMENTS]
    analysis = {
        "analysis": "a0scored",
        "run_id": run_id,
        "created_at": datetime(2026, 1, 1),
        "source": "scored",
        "anchor": "rollout",
        "evaluated_at": "end",
        "dtype": "float32",
        "eps_low": 0.2,
        "eps_high": 0.28,
        "dual_clip": None,
        "weight_cap": None,
        "delta_tv_low": 0.15,
        "delta_tv_high": 0.15,
        "delta_kl_low": 0.05,
        "delta_kl_high": 0.05,
        "top_k": 20,
        "topk_mode": "paper",
        "stale": False,
        "warnings": "[]",
        "skipped_steps": "[]",
    }
    store.analyses.add(analysis, steps)
    for step in SEGMENTS:
        shard = Layout(data_dir).shards(f"x{step}") / "h.parquet"
        shard.parent.mkdir(parents=True)
        pq.write_table(segment(step), shard)
        store.analyses.finish(f"x{step}", [shard], {"counted": 4}, "cpu")
    store.lens.publish()
    store.close()
    return "a0scored"


def _upload(store: Store, run_id: str, data_dir: Path) -> None:
    """The responses of `scored` as an import leaves them: rewards 1 and, of the second, none."""
    staging = data_dir / "staging"
    staging.mkdir()
    described = []
    for step in SEGMENTS:
        rows = [
            {
                "upload": "u0",
                "step": step,
                "group_id": group,
                "sample_id": sample,
                "row_hash": sample,
                "prompt_token_ids": [0],
                "response_token_ids": [1] * length,
                "response_mask": [True] * length,
                "reward": reward,
                "prompt_tokens": 1,
                "response_tokens": length,
                "counted_tokens": 2,
            }
            for group, sample, length, reward in (("g1", "a", 2, 1.0), ("g2", "b", 3, None))
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=ROLLOUT_SCHEMA), staging / f"{step}.parquet")
        described.append(
            {
                "step": step,
                "content": f"c{step}",
                "rollouts": 2,
                "tokens": 5,
                "counted_tokens": 4,
                "pieces": [{"file": f"{step}.parquet"}],
            }
        )
    upload = {"upload": "u0", "filename": "scored.parquet", "bytes": 1, "sha256": "0"}
    said: dict[str, Any] = {"warnings": [], "notes": []}
    manifest = {"format": "native", "rollouts": 4, "tokens": 10, "skipped": 0, **said, "steps": described}
    store.uploads.add(run_id, upload, manifest, staging, replace=False)
