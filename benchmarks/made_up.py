"""A data directory with a made-up run of any size, as a service would have left it: for views at millions of tokens.

Nothing is scored. Probabilities come from a logistic model of tokens (most nearly certain, a tail of unlikely ones),
whose logits the engine's rounding and the update each move by Student-t noise; ratios and binary divergences then
follow by their formulas, and top-K and exact ones lie above them. Steps beyond `distinct` repeat the segments of the
first ones, as hard links.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.schemas.rollout import ROLLOUT_SCHEMA
from service.schemas.segment import SEGMENT_SCHEMA
from service.settings import Settings
from service.store.store import Store
from tests.store.handmade import asked

__all__ = ["ANALYSIS", "RUN", "make"]

RUN, ANALYSIS, UPLOAD = "made-up", "abench", "ubench"
GROUP, VOCAB = 8, 50_000
Floats = npt.NDArray[np.float64]


def make(root: Path, steps: int, tokens: int, distinct: int, progress: Callable[[str], None]) -> None:
    """A run of `steps` steps with about `tokens` response tokens each, and one analysis of it, μ → NEW."""
    store = Store(Settings(data_dir=root))
    try:
        run = asked(store, RUN, ANALYSIS, {step: f"x{step:05}" for step in range(steps)})
        staging, written = root / "staging", []
        staging.mkdir()
        for step in range(steps):
            progress(f"step {step + 1} of {steps}")
            if step < distinct:
                columns = _tokens(step, tokens)
                pq.write_table(_segment(columns), root / f"shard{step}.parquet")
                responses = _rollouts(columns)
            else:
                responses = pq.read_table(staging / _piece(step % distinct), partitioning=None)
            written.append(_write(step, responses, staging))
        manifest = {
            "format": "native",
            "rollouts": sum(step["rollouts"] for step in written),
            "tokens": sum(step["tokens"] for step in written),
            "skipped": 0,
            "warnings": [],
            "notes": [],
            "steps": written,
        }
        upload = {"upload": UPLOAD, "filename": "made-up.jsonl", "bytes": 0, "sha256": "0" * 64}
        store.uploads.add(run["run_id"], upload, manifest, staging, replace=False)
        for step in range(steps):
            progress(f"segment {step + 1} of {steps}")
            first = store.layout.segment(f"x{step % distinct:05}")
            if step >= distinct:
                segment = store.layout.segment(f"x{step:05}")
                segment.parent.mkdir()
                for file in first.parent.iterdir():
                    os.link(file, segment.parent / file.name)
            shard = root / f"shard{step % distinct}.parquet"
            store.analyses.finish(f"x{step:05}", [shard], {"counted": pq.read_metadata(shard).num_rows}, "cpu")
        progress("publishing")
        store.lens.publish()
    finally:
        store.close()
        for shard in root.glob("shard*.parquet"):
            shard.unlink()
        shutil.rmtree(root / "staging", ignore_errors=True)


def _tokens(seed: int, about: int) -> dict[str, Any]:
    """Columns of a step's tokens; `lengths` of its responses."""
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(6.3, 0.6, GROUP * max(1, round(about / 660 / GROUP))), 16, 8192)
    lengths = np.maximum(1, np.round(lengths * about / lengths.sum())).astype(np.int64)
    n = int(lengths.sum())
    kind = random.random(n)
    logit = np.where(kind < 0.75, random.normal(7, 2.5, n), random.normal(0.5, 2, n))
    logit = np.where(kind > 0.99, random.normal(-5, 1.5, n), logit)
    old = logit + 0.03 * random.standard_t(3, n) * (1 + np.exp(-np.abs(logit)))
    new = old + 0.06 * random.standard_t(2.5, n)
    return {
        "lengths": lengths,
        "token_id": np.minimum(random.zipf(1.3, n) - 1, VOCAB - 1).astype(np.uint32),
        "mu": -np.logaddexp(0, -logit),
        "old": -np.logaddexp(0, -old),
        "new": -np.logaddexp(0, -new),
        "beyond": 1 + random.gamma(0.3, 1, n),  # exact divergence over the binary one
        "advantage": np.repeat(random.normal(0, 1, len(lengths)) * (random.random(len(lengths)) < 0.9), lengths),
        "reward": np.repeat((random.random(len(lengths)) < 0.5).astype(np.float64), lengths),
        "random": random,
    }


def _kl(p: Floats, q: Floats) -> Floats:
    """Binary KL from log-probs, in float64."""
    rest_p, rest_q = np.maximum(-np.expm1(p), 1e-300), np.maximum(-np.expm1(q), 1e-300)
    return np.maximum(np.exp(p) * (p - q) + rest_p * np.log(rest_p / rest_q), 0)


def _segment(made: dict[str, Any]) -> pa.Table:
    """The step's rows as a worker writes them."""
    lengths, random = made["lengths"], made["random"]
    n, sample = int(lengths.sum()), np.repeat(np.arange(len(lengths)), lengths)
    mu, old, new, beyond = made["mu"], made["old"], made["new"], made["beyond"]
    given: dict[str, Any] = {
        "group_id": pa.array([f"g{at // GROUP:04}" for at in range(len(lengths))]).take(pa.array(sample)),
        "sample_id": pa.array([_name(at) for at in range(len(lengths))]).take(pa.array(sample)),
        "position": np.concatenate([np.arange(length) for length in lengths]),
        "token_id": made["token_id"],
        "token": pa.array([f" w{at}" for at in range(VOCAB)]).take(pa.array(made["token_id"])),
        "counted": np.ones(n, bool),
        "advantage": made["advantage"],
        "reward": made["reward"],
        "logp_rollout": mu,
        "logp_old": old,
        "logp_new": new,
    }
    for pair, (p, q) in {"rollout_old": (mu, old), "rollout_new": (mu, new), "old_new": (old, new)}.items():
        tv, kl = np.abs(np.exp(p) - np.exp(q)), _kl(p, q)
        given |= {
            f"log_ratio__{pair}": q - p,
            f"tv_binary__{pair}": tv,
            f"kl_binary__{pair}": kl,
            f"tv_topk__{pair}": np.minimum(tv * np.sqrt(beyond), 1),
            f"kl_topk__{pair}": kl * np.sqrt(beyond),
        }
        if pair == "old_new":
            given |= {f"tv_exact__{pair}": np.minimum(tv * beyond, 1), f"kl_exact__{pair}": kl * beyond}
    entropy = np.clip(-4 * np.expm1(np.minimum(old, -1e-6)) * random.gamma(4, 0.25, n), 1e-6, 10)
    rest = 0.01 * -np.expm1(np.minimum(old, -1e-9)) * random.random(n)
    given |= {
        "topk_mass_old": 1 - rest,
        "topk_mass_new": 1 - rest * random.lognormal(0, 0.1, n),
        "entropy_old": entropy,
        "entropy_new": entropy * random.lognormal(0, 0.03, n),
        "grad_norm_new": np.sqrt(1 - 2 * np.exp(new) + np.exp(2 * new) * (1 + 0.1 * random.random(n))),
    }
    twice = random.random(n) > 512 / n  # masked out: scored once only
    for name, scale in (("noise_logp", 1e-5), ("noise_tv", 2e-6), ("noise_kl", 1e-9)):
        given[name] = np.ma.masked_array(scale * np.abs(random.standard_t(3, n)), twice)
    arrays = []
    for field in SEGMENT_SCHEMA:
        column = given.get(field.name)
        if isinstance(column, np.ma.MaskedArray):
            arrays.append(pa.array(column.data, mask=column.mask).cast(field.type))
        else:
            arrays.append(pa.nulls(n, field.type) if column is None else pa.array(column).cast(field.type))
    return pa.table(arrays, schema=SEGMENT_SCHEMA)


def _name(sample: int) -> str:
    return f"g{sample // GROUP:04}/{sample % GROUP}"


def _piece(step: int) -> str:
    return f"{UPLOAD}-{step}.parquet"


def _rollouts(made: dict[str, Any]) -> pa.Table:
    """A step's responses as the import writes them, but for their step."""
    lengths = made["lengths"]
    n, offsets = len(lengths), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

    def lists(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values).cast(kind))

    given: dict[str, pa.Array] = {
        "upload": pa.array([UPLOAD] * n),
        "group_id": pa.array([f"g{at // GROUP:04}" for at in range(n)]),
        "sample_id": pa.array([_name(at) for at in range(n)]),
        "row_hash": pa.array([f"{at:032x}" for at in range(n)]),
        "prompt_token_ids": pa.array([[1, 2, 3]] * n, pa.list_(pa.uint32())),
        "response_token_ids": lists(made["token_id"], pa.uint32()),
        "response_mask": lists(np.ones(int(lengths.sum()), bool), pa.bool_()),
        "rollout_logprobs": lists(made["mu"], pa.float64()),
        "reward": pa.array(made["reward"][offsets[:-1]]),
        "advantage": lists(made["advantage"], pa.float64()),
        "prompt_text": pa.array(["What is 2 + 3?"] * n),
        "meta": pa.array([json.dumps({})] * n),
        "prompt_tokens": pa.array([3] * n, pa.uint32()),
        "response_tokens": pa.array(lengths, pa.uint32()),
        "counted_tokens": pa.array(lengths, pa.uint32()),
    }
    columns = [given.get(field.name, pa.nulls(n, field.type)) for field in ROLLOUT_SCHEMA]
    return pa.table(columns, names=ROLLOUT_SCHEMA.names)


def _write(step: int, responses: pa.Table, staging: Path) -> dict[str, Any]:
    """Write a step's responses; its entry of the manifest."""
    place = ROLLOUT_SCHEMA.get_field_index("step")
    table = responses.set_column(place, "step", pa.array([step] * responses.num_rows, pa.uint32()))
    pq.write_table(table.cast(ROLLOUT_SCHEMA), staging / _piece(step))
    tokens = pc.sum(responses["response_tokens"]).as_py()
    return {
        "step": step,
        "content": f"{step:032x}",
        "rollouts": responses.num_rows,
        "tokens": tokens,
        "counted_tokens": tokens,
        "pieces": [{"file": _piece(step)}],
    }
