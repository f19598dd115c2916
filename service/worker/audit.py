"""Before the minutes are spent: do the logged log-probs fit the checkpoint that is about to be scored, as the run says?

The first tokens of a few responses are scored once under OLD, in several ways, and under the checkpoints beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dppo_core.provenance import sampled_logprobs, truncated_logprobs
from service.errors import Invalid
from service.process import Emit, Message
from service.worker.batches import responses
from service.worker.doubts import Excerpt, Scored, Trial, logits_of
from service.worker.pairs import Places, lay_out
from service.worker.policies import Checkpoint, PolicyPool
from service.worker.rows import read_logged

__all__ = ["TOKENS", "audit"]

TOKENS = 512  # at most that many counted tokens, evenly over the responses
CHUNK_ROWS = 128  # rows of logits at once

Way = Callable[[Tensor, Tensor], Tensor]
"""log π(a) [R] from logits [R, V] and sampled ids [R]."""


def audit(pool: PolicyPool, task: Message, table: pa.Table, emit: Emit) -> Message:
    """How the log-probs of the responses in `table` fit OLD, and what would fit them better.

    The task: old, new, neighbours ([step, checkpoint] of the steps beside OLD's) and sampling (temperature, top_p,
    top_k, logprobs_mode). The result: responses, tokens, and for each list of log-probs that the log has {list, n,
    median, slope, correlation, enough, doubts: [{code, count, examples, and the code's own figures}]}; `n` counts the
    tokens that are not nearly certain, and with too few of them (not `enough`) there are no doubts.
    """
    excerpt, sampling = _excerpt(table), task["sampling"]
    pair = [Checkpoint(**task[side]) for side in ("old", "new")]
    ways = _ways(sampling)
    places = [(step, Checkpoint(**place)) for step, place in task["neighbours"]]
    places.sort(key=lambda entry: entry[1] in pair)  # what scoring needs next is loaded last
    beside = {}
    for step, place in places:
        with suppress(Invalid):  # it is only compared with
            beside[step] = _score(pool, place, pair, excerpt, ways, emit).logp
    old = _score(pool, pair[0], pair, excerpt, ways, emit)
    found: list[Message] = []
    for name in excerpt.lists:  # the first one names the checkpoint: the trainer's π_old, which unlike μ is never stale
        raw = name == "rollout_logprobs" and sampling["logprobs_mode"] == "raw" and "raw" in ways
        trial = Trial(excerpt, name, "raw" if raw else "processed", old, sampling["temperature"])
        found.append(trial.run({} if found else beside))
        emit({"event": "audited"})
    return {"responses": len(excerpt.items), "tokens": len(excerpt.token_ids), "lists": found}


def _excerpt(table: pa.Table) -> Excerpt:
    logged, items = read_logged(table), responses(table)
    each = TOKENS // len(items)
    cut = [replace(item, counted=item.counted & (np.cumsum(item.counted) <= each)) for item in items]
    taken = torch.from_numpy(
        np.concatenate([short.counted[item.counted] for item, short in zip(items, cut, strict=True)])
    )
    places = [np.flatnonzero(item.counted) for item in cut]
    lists = {"old_logprobs": logged.old[taken], "rollout_logprobs": logged.rollout[taken]}
    return Excerpt(
        items=cut,
        sample_ids=table["sample_id"].to_pylist(),
        response=torch.repeat_interleave(torch.tensor([len(at) for at in places])),
        position=torch.from_numpy(np.concatenate(places)),
        token_ids=logged.token_ids[taken],
        lists={name: values for name, values in lists.items() if not bool(values.isnan().all())},
    )


def _ways(sampling: dict[str, Any]) -> dict[str, Way]:
    """Temperature applied, not applied, or applied and then renormalised within top-k and top-p; those that differ."""
    temperature, top_p, top_k = sampling["temperature"], sampling["top_p"], sampling["top_k"]
    ways: dict[str, Way] = {"processed": partial(sampled_logprobs, temperature=temperature)}
    if temperature != 1.0:
        ways["raw"] = partial(sampled_logprobs, temperature=1.0)
    if top_p < 1 or top_k > 1:
        ways["truncated"] = partial(truncated_logprobs, temperature=temperature, top_p=top_p, top_k=top_k)
    return ways


def _score(
    pool: PolicyPool, at: Checkpoint, pair: list[Checkpoint], excerpt: Excerpt, ways: dict[str, Way], emit: Emit
) -> Scored:
    wanted = pair if at in pair and pool.fits(pair) else [at]
    policy = pool.get(wanted)[wanted.index(at)]
    plan, places = lay_out(excerpt.items, [policy]), Places(excerpt.items)
    order = torch.cat([places[batch] for batch in plan]).argsort()
    hidden = torch.cat([policy.hidden_rows(batch) for batch in plan])[order.to(policy.device)]
    found: dict[str, list[Tensor]] = {name: [] for name in ways}
    for rows, ids in zip(torch.split(hidden, CHUNK_ROWS), torch.split(excerpt.token_ids, CHUNK_ROWS), strict=True):
        logits = logits_of(policy, rows)
        for name, way in ways.items():
            found[name].append(way(logits, ids.to(policy.device)).cpu())
    emit({"event": "audited"})
    return Scored(policy, hidden, {name: torch.cat(parts) for name, parts in found.items()})
