"""Supports of top-K divergences: A' = TopK ∪ {a} (arXiv:2602.04879 Eq. 15), padded to a rectangle.

A support is a set of token ids per row. Two modes: `paper` has K or K+1 tokens; `slots` exactly K, a missing
sampled token replacing the K-th (as Stable-RL and TRL do). Ties at the K-th place go to the lower id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["LoggedSupport", "TopKMode", "logged_support", "own_support", "topk_ids"]

TopKMode = Literal["paper", "slots"]
_BLOCK = 64


def topk_ids(logits: Tensor, k: int) -> Tensor:
    """Ids of the k largest entries of each row, [R, V] → [R, k], best first, ties to the lower id.

    Exact: the k+1 largest entries lie in the k+1 blocks with the largest maxima, so only those are searched;
    rows with a tie at the k-th place are settled by a full pass.
    """
    rows, vocab = logits.shape
    k = min(k, vocab)
    blocks = vocab // _BLOCK
    if blocks > k + 1:
        head = logits[:, : blocks * _BLOCK].view(rows, blocks, _BLOCK)
        chosen = head.amax(-1).topk(k + 1, dim=1).indices
        offsets = torch.arange(_BLOCK, device=logits.device)
        candidates = (chosen.unsqueeze(-1) * _BLOCK + offsets).flatten(1)
        tail = torch.arange(blocks * _BLOCK, vocab, device=logits.device).expand(rows, -1)
        candidates = torch.cat([candidates, tail], dim=1)
        values, where = logits.gather(1, candidates).topk(k + 1, dim=1)
        ids = candidates.gather(1, where)
    else:
        values, ids = logits.topk(min(k + 1, vocab), dim=1)
    tied = (values[:, k - 1] == values[:, k]) if values.shape[1] > k else torch.zeros(rows, dtype=torch.bool)
    values, ids = values[:, :k], ids[:, :k]
    # within the k: best first, equal values in id order
    ids, order = ids.sort(dim=1)
    values = values.gather(1, order)
    ids = ids.gather(1, values.sort(dim=1, descending=True, stable=True).indices)
    for row in tied.nonzero().flatten().tolist():
        ids[row] = logits[row].sort(descending=True, stable=True).indices[:k]
    return ids


def own_support(ids: Tensor, sampled: Tensor, mode: TopKMode) -> Tensor:
    """A' of a policy's own top-K: ids [N, K] best first, sampled [N] → [N, K+1], −1 marking an unused place."""
    present = (ids == sampled.unsqueeze(1)).any(1)
    if mode == "paper":
        return torch.cat([ids, torch.where(present, -1, sampled).unsqueeze(1)], dim=1)
    last = torch.where(present, ids[:, -1], sampled)
    unused = torch.full_like(sampled, -1)
    return torch.cat([ids[:, :-1], last.unsqueeze(1), unused.unsqueeze(1)], dim=1)


@dataclass(frozen=True)
class LoggedSupport:
    """A' from an inference engine's list.

    ids [N, K+1], −1 marking an unused place; logp [N, K+1] and log_rest [N] under the logging policy (NaN where
    `known` is false); known [N]: the list has K distinct entries, a log-prob for each and a sum of at most 1.
    """

    ids: Tensor
    logp: Tensor
    log_rest: Tensor
    known: Tensor


def logged_support(
    ids: Tensor, logp: Tensor, sampled: Tensor, sampled_logp: Tensor, k: int, mode: TopKMode
) -> LoggedSupport:
    """A' = the first k entries of a logged list ∪ {a}, with the rest max(0, 1 − Σ).

    ids [N, L] in list order, padded with −1; logp [N, L], NaN where not known; sampled [N]; sampled_logp [N], the
    logged log-prob of the sampled token, which takes precedence over the list's (they may be rounded differently).
    Fewer than k distinct entries, a missing log-prob, or Σ > 1 + 1e-4: not known. Repeated ids count once.
    """
    rows, width = ids.shape
    logp, sampled_logp = logp.double(), sampled_logp.double()
    if width < k:
        pad = k - width
        ids = torch.cat([ids, ids.new_full((rows, pad), -1)], dim=1)
        logp = torch.cat([logp, logp.new_full((rows, pad), torch.nan)], dim=1)
        width = k
    earlier = (ids.unsqueeze(2) == ids.unsqueeze(1)).tril(-1).any(2)
    fresh = (ids >= 0) & ~earlier
    enough = fresh.sum(1) >= k
    # the first k distinct entries, in list order
    order = (~fresh).to(torch.int8).sort(dim=1, stable=True).indices[:, :k]
    ids, logp = ids.gather(1, order), logp.gather(1, order)
    support = own_support(ids, sampled, mode)
    logp = torch.cat([logp, sampled_logp.unsqueeze(1)], dim=1)
    logp = torch.where(support == sampled.unsqueeze(1), sampled_logp.unsqueeze(1), logp)
    used = support >= 0
    mass = torch.where(used, torch.exp(logp), 0.0).sum(1)
    known = enough & torch.isfinite(mass) & (mass <= 1.0 + 1e-4)
    log_rest = torch.where(known, torch.log((1.0 - mass).clamp(min=0.0)), torch.nan)
    return LoggedSupport(support, torch.where(known.unsqueeze(1), logp, torch.nan), log_rest, known)
