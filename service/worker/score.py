"""Scoring a shard: rollouts in, one Parquet file of token rows out. Every executor calls `score_shard`."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dppo_core.two_policy import TwoPolicyScorer, TwoPolicyStats, rows_of
from service.errors import Invalid
from service.layout import fsync_path
from service.process import Emit, Message
from service.worker.batches import Batch, batches, responses
from service.worker.measure import measure
from service.worker.pieces import pieces_of
from service.worker.policies import Checkpoint, Policy, PolicyPool, pick_device
from service.worker.rows import Logged, read_logged, segment_rows

__all__ = ["handle", "score_shard"]

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
CHUNK_ROWS = {"cpu": 128, "cuda": 1024}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class _Loaded:
    """The child's memory between tasks: models and the statistics' buffers."""

    pool: PolicyPool | None = None
    scorer: TwoPolicyScorer | None = None


_loaded = _Loaded()


def handle(task: Message, emit: Emit) -> Message:
    """One task of the child process: `describe`, `score` a shard, or `fit` a few responses to checkpoints."""
    return TASKS[task["task"]](task, emit)


def describe(task: Message, emit: Emit) -> Message:  # noqa: ARG001 every task is called so
    """What this worker runs on and the dtype it takes by default."""
    device = pick_device(task["device"])
    on_gpu = device.type == "cuda"
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "CPU",
        "dtype": "bfloat16" if on_gpu else "float32",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def score_shard(task: Message, emit: Emit) -> Message:
    """Score one shard and write it to `task["out"]`; harmless to repeat.

    The task: pieces (Parquet files) and sample_ids to take from them; old, new ({path, fingerprint, adapter,
    adapter_fingerprint}, both null for `source: logged`); temperature, top_k, topk_mode, dtype, device;
    anchored (whether the logged rollout log-probs are μ); tokenizer (directory or null).
    """
    table = read_rollouts(task["pieces"], task["sample_ids"])
    logged = read_logged(table)
    stats = None
    if task["old"] is not None:
        stats = _score(task, table, logged, emit)
    decode = pieces_of(task["tokenizer"])
    rows, counts = segment_rows(
        table, logged, stats, decode, top_k=task["top_k"], topk_mode=task["topk_mode"], anchored=task["anchored"]
    )
    out = Path(task["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".tmp")
    rows = rows.replace_schema_metadata({"counts": json.dumps(counts)})
    pq.write_table(rows, partial, compression="zstd")
    fsync_path(partial)
    partial.rename(out)
    return counts


def read_rollouts(pieces: list[str], sample_ids: list[str]) -> pa.Table:
    """The rows of `sample_ids` from a step's pieces, in that order."""
    wanted = pa.array(sample_ids, pa.string())
    parts = []
    for piece in pieces:
        part = pq.read_table(piece, partitioning=None, filters=pc.field("sample_id").isin(wanted))
        if part.num_rows:
            parts.append(part)
    table = pa.concat_tables(parts)
    table = table.take(pc.index_in(wanted, value_set=table["sample_id"].combine_chunks()))
    return table.combine_chunks()


def _policies(task: Message, checkpoints: list[dict[str, Any]]) -> list[Policy]:
    device, dtype = pick_device(task["device"]), DTYPES[task["dtype"]]
    if _loaded.pool is None or (_loaded.pool.device, _loaded.pool.dtype) != (device, dtype):
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False  # float32 logits are float32
        _loaded.pool = PolicyPool(device, dtype)
    return _loaded.pool.get([Checkpoint(**checkpoint) for checkpoint in checkpoints])


def _scorer(task: Message, policies: list[Policy]) -> TwoPolicyScorer:
    vocab, device = policies[0].vocab_size, policies[0].device
    for policy in policies:
        if policy.vocab_size != vocab:
            raise Invalid(
                f"OLD has {vocab} logits and NEW {policy.vocab_size}: two policies are compared over one vocabulary"
            )
    want = {"top_k": task["top_k"], "topk_mode": task["topk_mode"], "temperature": task["temperature"]}
    have = _loaded.scorer
    if have is None or any(getattr(have, name) != value for name, value in want.items()) or have.vocab_size != vocab:
        _loaded.scorer = TwoPolicyScorer(vocab, device=device, chunk_rows=CHUNK_ROWS[device.type], **want)
    assert _loaded.scorer is not None
    return _loaded.scorer


def _score(task: Message, table: pa.Table, logged: Logged, emit: Emit) -> TwoPolicyStats:
    """Statistics of every counted token of the table, in row and position order."""
    emit({"event": "loading"})
    old, new = _policies(task, [task["old"], task["new"]])
    scorer = _scorer(task, [old, new])
    items = responses(table)
    first_of_row = logged.first_counted
    parts, places = [], []
    for batch in batches(items, BATCH_TOKENS[old.device.type]):
        place = torch.cat([torch.arange(first_of_row[row], first_of_row[row + 1]) for row in batch.rows])
        if len(place) == 0:
            continue
        support = logged.support_ids(place, task["top_k"], task["topk_mode"])
        parts.append(_score_batch(scorer, old, new, batch, support))
        places.append(place)
        emit({"event": "progress", "tokens": len(place)})
    if not parts:
        return scorer.score(rows_of(torch.empty(0)), rows_of(torch.empty(0)), torch.empty(0, dtype=torch.long))
    order = torch.cat(places).argsort()
    return TwoPolicyStats.concatenate(parts).map(lambda values: values[order])


def _score_batch(
    scorer: TwoPolicyScorer, old: Policy, new: Policy, batch: Batch, support: Tensor | None
) -> TwoPolicyStats:
    """Both policies on one batch layout: layouts alone move a bfloat16 log-prob by tenths of a nat."""
    device = old.device
    at = batch.at.to(device)
    rows = []
    for policy in (old, new):
        hidden = policy.hidden(batch.token_ids_BT, batch.attention_mask_BT)
        rows.append(hidden.flatten(0, 1).index_select(0, at))
        del hidden
    return scorer.score(
        old.logits_of(rows[0]),
        new.logits_of(rows[1]),
        batch.sampled.to(device),
        None if support is None else support.to(device),
    ).map(Tensor.cpu)


def fit(task: Message, emit: Emit) -> Message:
    """Median |log π(a) − old_logprobs| of a few responses under each of `task["checkpoints"]`.

    Tells whether the log's own old policy is the checkpoint it is about to be scored with.
    """
    table = read_rollouts(task["pieces"], task["sample_ids"])
    logged = read_logged(table)
    items = responses(table)
    medians = []
    for checkpoint in task["checkpoints"]:
        (policy,) = _policies(task, [checkpoint])
        scorer = _scorer(task, [policy])
        gaps = []
        for batch in batches(items, BATCH_TOKENS[policy.device.type]):
            place = torch.cat(
                [torch.arange(logged.first_counted[row], logged.first_counted[row + 1]) for row in batch.rows]
            )
            if len(place):
                stats = _score_batch(scorer, policy, policy, batch, None)
                gaps.append((stats.logp_old - logged.old[place]).abs())
        medians.append(float(torch.cat(gaps).nanmedian()))
        emit({"event": "fit"})
    return {"medians": medians}


TASKS: dict[str, Callable[[Message, Emit], Message]] = {
    "describe": describe,
    "score": score_shard,
    "fit": fit,
    "measure": measure,
}
