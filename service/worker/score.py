"""Scoring a shard: rollouts in, one Parquet file of token rows out. Every executor calls `score_shard`."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from dppo_core.two_policy import TwoPolicyScorer
from service.errors import Invalid
from service.layout import fsync_path
from service.process import Emit, Message
from service.worker.audit import audit
from service.worker.batches import responses
from service.worker.measure import measure
from service.worker.memory import row_bytes
from service.worker.pairs import BATCH_TOKENS, Scored, score_pair
from service.worker.pieces import pieces_of
from service.worker.policies import Checkpoint, PolicyPool, pick_device
from service.worker.rows import Logged, read_logged, segment_rows

__all__ = ["BATCH_TOKENS", "CHUNK_ROWS", "handle", "score_shard"]

CHUNK_ROWS = {"cpu": 128, "cuda": 1024}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class _Loaded:
    """The child's memory between tasks: models and the statistics' buffers."""

    pool: PolicyPool | None = None
    scorer: TwoPolicyScorer | None = None


_loaded = _Loaded()


def handle(task: Message, emit: Emit) -> Message:
    """One task of the child process, by its name in `TASKS`."""
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
    anchored (whether the logged rollout log-probs are μ); tokenizer (directory or null); together (whether both
    models are in memory at once; left out: where they fit).
    """
    table = read_rollouts(task["pieces"], task["sample_ids"])
    logged = read_logged(table)
    scored = None
    if task["old"] is not None:
        scored = _score(task, table, logged, emit)
    decode = pieces_of(task["tokenizer"])
    rows, counts = segment_rows(
        table, logged, scored, decode, top_k=task["top_k"], topk_mode=task["topk_mode"], anchored=task["anchored"]
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


def room(task: Message, emit: Emit) -> Message:  # noqa: ARG001
    """Whether both models of a pair fit in memory at once, and the bytes that a counted token keeps if they do not."""
    pool = _pool(task)
    return {
        "together": pool.fits([Checkpoint(**task["old"]), Checkpoint(**task["new"])]),
        "row_bytes": row_bytes(task["old"]["path"], pool.dtype),
    }


def _pool(task: Message) -> PolicyPool:
    device, dtype = pick_device(task["device"]), DTYPES[task["dtype"]]
    if _loaded.pool is None or (_loaded.pool.device, _loaded.pool.dtype) != (device, dtype):
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False  # float32 logits are float32
        _loaded.pool = PolicyPool(device, dtype)
    return _loaded.pool


def _scorer(task: Message, old_vocab: int, new_vocab: int) -> TwoPolicyScorer:
    if old_vocab != new_vocab:
        raise Invalid(f"OLD has {old_vocab} logits and NEW {new_vocab}: two policies are compared over one vocabulary")
    device = _pool(task).device
    want = {"top_k": task["top_k"], "topk_mode": task["topk_mode"], "temperature": task["temperature"]}
    have = _loaded.scorer
    if (
        have is None
        or any(getattr(have, name) != value for name, value in want.items())
        or have.vocab_size != old_vocab
    ):
        _loaded.scorer = TwoPolicyScorer(old_vocab, device=device, chunk_rows=CHUNK_ROWS[device.type], **want)
    assert _loaded.scorer is not None
    return _loaded.scorer


def _score(task: Message, table: pa.Table, logged: Logged, emit: Emit) -> Scored:
    """Statistics of every counted token of the table, and the noise floor of OLD."""
    emit({"event": "loading"})
    pool, old, new = _pool(task), Checkpoint(**task["old"]), Checkpoint(**task["new"])
    together = task.get("together")
    return score_pair(
        pool,
        old,
        new,
        responses(table),
        lambda old_vocab, new_vocab: _scorer(task, old_vocab, new_vocab),
        together=pool.fits([old, new]) if together is None else together,
        support=lambda places: logged.support_ids(places, task["top_k"], task["topk_mode"]),
        progress=lambda tokens: emit({"event": "progress", "tokens": tokens}),
    )


def audit_shard(task: Message, emit: Emit) -> Message:
    """How the logged log-probs of `task["sample_ids"]` fit OLD and the checkpoints beside it (`audit`)."""
    return audit(_pool(task), task, read_rollouts(task["pieces"], task["sample_ids"]), emit)


TASKS: dict[str, Callable[[Message, Emit], Message]] = {
    "describe": describe,
    "score": score_shard,
    "audit": audit_shard,
    "room": room,
    "measure": measure,
}
