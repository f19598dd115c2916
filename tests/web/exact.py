"""A run whose exact, top-K and binary divergences are known on paper, and one whose mismatch is. No model, no server.

Step 0, OLD → NEW over a vocabulary of four, K = 2 (a second analysis: K = 3), δ_TV = .15. μ = π_old. Probabilities are
sums of powers of two, so float32 holds them. A token: a, P, Q; r; binary, top-2, exact TV; mass of A' = top-2 ∪ {a}:

    T1  a=0  (.5 .25 .125 .125)       (.25 .25 .25 .25)           r .5     .25     .25     .25     .75      .5
    U1  a=0  (.25 .25 .25 .25)        (.5 .25 .125 .125)          r 2      .25     .25     .25     .5       .75
    T2  a=3  (.5 .25 .125 .125)       (.25 .5 .0625 .1875)        r 1.5    .0625   .3125   .3125   .875     .9375
    T3  a=0  (.5 .25 .125 .125)       (.375 .25 .3125 .0625)      r .75    .125    .125    .1875   .75      .625
    T4  a=0  (.5 .25 .125 .125)       (.53125 .25 .125 .09375)    r 1.0625 .03125  .03125  .03125  .75      .78125
    T5  a=0  Q and P of T4            …                           r .941   .03125  .03125  .03125  .78125   .75
    T6  a=0  (.96875 2⁻⁶ 2⁻⁷ 2⁻⁷)     (.9375 2⁻⁵ 2⁻⁶ 2⁻⁶)         r .968   .03125  .03125  .03125  .984375  .96875

    A = +1  3 T2, 1 U1, 6 T4, 2 T3      A = −1  2 T1, 4 T3, 4 T4, 6 T5, 4 T6      A = 0  2 T1

Step 1, a vocabulary of two (every TV is the binary one): copies × (μ, π_old, π). μ of `up` is one version behind.

    up, A = +1    4 × (.75 .75 .75)   2 × (.25 .4375 .4375)   (.25 .25 .4375)   (.625 .3125 .546875)
                  (2⁻⁷ 2⁻⁵ 2⁻⁴)   (.1875 .1875 .84375)
    down, A = −2  3 × (.75 .75 .75)   (.625 .3125 .3125)   2 × (.75 .75 .375)   (2⁻⁷ 2⁻⁷ 2⁻⁵)

Steps 2 and 3: rare tokens of a large vocabulary, both sides' logits rounded to bfloat16, and not rounded.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from service.jobs.planning import plan
from service.schemas.requests import CreateAnalysis
from service.schemas.rollout import ROLLOUT_SCHEMA
from service.schemas.segment import SEGMENT_SCHEMA
from service.settings import Settings
from service.store.checkpoints import Inspected
from service.store.store import Store

RUN = "exact"
UNIFORM, PEAKED = (0.25, 0.25, 0.25, 0.25), (0.5, 0.25, 0.125, 0.125)
NUDGED = (0.53125, 0.25, 0.125, 0.09375)
Row = dict[str, Any]
Policy = tuple[float, ...]

T1, U1 = (0, PEAKED, UNIFORM), (0, UNIFORM, PEAKED)
T2 = (3, PEAKED, (0.25, 0.5, 0.0625, 0.1875))
T3 = (0, PEAKED, (0.375, 0.25, 0.3125, 0.0625))
T4, T5 = (0, PEAKED, NUDGED), (0, NUDGED, PEAKED)
T6 = (0, (0.96875, 2**-6, 2**-7, 2**-7), (0.9375, 2**-5, 2**-6, 2**-6))
STEP_0 = {
    "positive": (1.0, [T2] * 3 + [U1] + [T4] * 6 + [T3] * 2),
    "negative": (-1.0, [T1] * 2 + [T3] * 4 + [T4] * 4 + [T5] * 6 + [T6] * 4),
    "zero": (0.0, [T1] * 2),
}
STILL, ENGINE = (0.75, 0.75, 0.75), (0.25, 0.4375, 0.4375)
UP = [STILL] * 4 + [ENGINE] * 2 + [(0.25, 0.25, 0.4375), (0.625, 0.3125, 0.546875), (2**-7, 2**-5, 2**-4)]
STEP_1 = {
    "up": (1.0, [*UP, (0.1875, 0.1875, 0.84375)]),
    "down": (-2.0, [STILL] * 3 + [(0.625, 0.3125, 0.3125)] + [(0.75, 0.75, 0.375)] * 2 + [(2**-7, 2**-7, 2**-5)]),
}


def merged(p: Policy, sampled: int, k: int, q: Policy) -> list[tuple[float, float]]:
    """(P, Q) of every part of the partition {top-k of p} ∪ {sampled}, then the rest."""
    inside = sorted(range(len(p)), key=lambda token: (-p[token], token))[:k]
    inside += [sampled] if sampled not in inside else []
    parts = [(p[token], q[token]) for token in inside]
    return [*parts, (1 - sum(a for a, _ in parts), 1 - sum(b for _, b in parts))]


def tv(parts: list[tuple[float, float]]) -> float:
    return sum(abs(a - b) for a, b in parts) / 2


def kl(parts: list[tuple[float, float]]) -> float:
    return sum(a * math.log(a / b) for a, b in parts if a > 0)


def pair(name: str, p: float, q: float) -> Row:
    """The binary statistics of one pair of policies at the sampled token."""
    parts = [(p, q), (1 - p, 1 - q)]
    return {f"log_ratio__{name}": math.log(q / p), f"tv_binary__{name}": tv(parts), f"kl_binary__{name}": kl(parts)}


def token(mu: float, sampled: int, p: Policy, q: Policy, k: int) -> Row:
    """One row of a segment: μ(a), and both full policies."""
    whole, some = list(zip(p, q, strict=True)), merged(p, sampled, k, q)
    return {
        "logp_rollout": math.log(mu),
        "logp_old": math.log(p[sampled]),
        "logp_new": math.log(q[sampled]),
        **pair("rollout_old", mu, p[sampled]),
        **pair("rollout_new", mu, q[sampled]),
        **pair("old_new", p[sampled], q[sampled]),
        "tv_topk__old_new": tv(some),
        "kl_topk__old_new": kl(some),
        "tv_exact__old_new": tv(whole),
        "kl_exact__old_new": kl(whole),
        "topk_mass_old": sum(a for a, _ in some[:-1]),
        "topk_mass_new": sum(b for _, b in some[:-1]),
        "token_id": sampled,
    }


def step_0(k: int) -> list[Row]:
    return [
        {"sample_id": sample, "advantage": advantage, "position": place, **token(p[a], a, p, q, k)}
        for sample, (advantage, tokens) in STEP_0.items()
        for place, (a, p, q) in enumerate(tokens)
    ]


def step_1() -> list[Row]:
    return [
        {"sample_id": sample, "advantage": advantage, "position": place, "token": f" {place}"}
        | token(mu, 0, (p, 1 - p), (q, 1 - q), 2)
        for sample, (advantage, tokens) in STEP_1.items()
        for place, (mu, p, q) in enumerate(tokens)
    ]


def rare(*, rounded: bool) -> list[Row]:
    """Tokens sampled from 512 logits around 20. Two kernels differ a little, and both round to bfloat16 or neither."""
    draw = torch.Generator().manual_seed(5)
    logits = 20 + 1.5 * torch.randn(2000, 512, generator=draw)

    def side() -> torch.Tensor:
        seen = logits + 0.05 * torch.randn(logits.shape, generator=draw)
        return torch.log_softmax(seen.bfloat16().float() if rounded else seen, dim=1)

    engine, trainer = side(), side()
    sampled = torch.multinomial(engine.exp(), 1, generator=draw)
    pairs = zip(
        engine.gather(1, sampled).flatten().tolist(), trainer.gather(1, sampled).flatten().tolist(), strict=True
    )
    return [
        {"sample_id": "rare", "advantage": 1.0, "position": place, "token_id": 0, "logp_rollout": mu, "logp_old": old}
        | {"log_ratio__rollout_old": old - mu, "tv_binary__rollout_old": abs(math.exp(old) - math.exp(mu))}
        for place, (mu, old) in enumerate(pairs)
    ]


def write_segment(rows: list[Row], path: Path) -> None:
    common = {"group_id": "g", "counted": True, "reward": 0.0}
    pq.write_table(pa.Table.from_pylist([{**common, **row} for row in rows], schema=SEGMENT_SCHEMA), path)


VERSIONS = {"up": 0, "down": 1}
FINDINGS = {
    "warnings": [{"code": "b", "message": "without a level", "count": 1, "examples": []}],
    "notes": [{"code": "a", "level": "note", "message": "a note <b>", "count": 1, "examples": [{"line": 7}]}],
}


def log(step: int, rows: list[Row]) -> pa.Table:
    """The rollouts that these rows would have come from."""
    samples = list(dict.fromkeys(row["sample_id"] for row in rows))
    records = []
    for sample in samples:
        of = [row for row in rows if row["sample_id"] == sample]
        version = VERSIONS.get(sample)
        records.append(
            {
                "upload": "u1",
                "step": step,
                "group_id": "g",
                "sample_id": sample,
                "row_hash": sample,
                "prompt_token_ids": [0],
                "response_token_ids": [row["token_id"] for row in of],
                "response_mask": [True] * len(of),
                "rollout_logprobs": [row["logp_rollout"] for row in of],
                "advantage": [row["advantage"] for row in of],
                "policy_version": None if version is None else [version] * len(of),
                "prompt_tokens": 1,
                "response_tokens": len(of),
                "counted_tokens": len(of),
            }
        )
    return pa.Table.from_pylist(records, schema=ROLLOUT_SCHEMA)


@dataclass(frozen=True)
class Filled:
    """The analyses of the run: with K = 2 over all steps, and with K = 3 over step 0."""

    two: str
    three: str


def fill(data_dir: Path) -> Filled:
    """Make the run in a data directory that no service has open."""
    store = Store(Settings(data_dir=data_dir))
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs_mode": "processed"}
    run = store.runs.create(RUN, None, sampling, None, {})
    steps = [step_0(2), step_1(), rare(rounded=True), rare(rounded=False)]
    for step in range(len(steps) + 1):
        mark = hashlib.sha256(str(step).encode()).hexdigest()
        store.checkpoints.add(run["run_id"], step, None, Inspected(f"/{step}", None, mark, mark, None, 512, None, []))
    staging = store.layout.incoming / "exact"
    staging.mkdir()
    listed = []
    for step, rows in enumerate(steps):
        rollouts = log(step, rows)
        pq.write_table(rollouts, staging / f"p{step}.parquet")
        counts = {"rollouts": rollouts.num_rows, "tokens": len(rows), "counted_tokens": len(rows)}
        pieces = [{"file": f"p{step}.parquet", "rows": rollouts.num_rows}]
        listed.append({"step": step, "content": f"s{step}", **counts, "pieces": pieces})
    found = {"format": "native", "rollouts": 7, "tokens": sum(map(len, steps)), "skipped": 0, **FINDINGS}
    upload = {"upload": "u1", "filename": "exact.jsonl", "bytes": 0, "sha256": ""}
    store.uploads.add(run["run_id"], upload, {**found, "steps": listed}, staging, replace=False)
    analyses = []
    for request, of_steps in ((CreateAnalysis(top_k=2), steps), (CreateAnalysis(top_k=3, steps=[0]), [step_0(3)])):
        planned = plan(store, run, request, "float32")
        store.analyses.add(planned.analysis, planned.steps)
        for step, rows in zip(planned.steps, of_steps, strict=True):
            shard = store.layout.work / "shard.parquet"
            write_segment(rows, shard)
            store.analyses.finish(step["scoring"], [shard], {"counted": len(rows)}, "cpu")
        analyses.append(planned.analysis["analysis"])
    store.lens.publish()
    store.close()
    return Filled(*analyses)
