"""The same quantities as `two_policy`, slow and obvious, in float64, one token at a time. For tests and doubts.

Nothing here is shared with the fast path: full softmax, sorting, Python loops.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["reference_token"]


def _kl(p: Tensor, logp: Tensor, logq: Tensor) -> float:
    return float(torch.where(p > 0, p * (logp - logq), torch.zeros_like(p)).sum())


def reference_token(
    old_logits: Tensor,
    new_logits: Tensor,
    sampled: int,
    *,
    top_k: int = 20,
    topk_mode: str = "paper",
    temperature: float = 1.0,
) -> dict[str, float]:
    """All statistics of one token from two logit rows [V]; keys are the field names of `TwoPolicyStats`."""
    logp = torch.log_softmax(old_logits.double() / temperature, dim=0)
    logq = torch.log_softmax(new_logits.double() / temperature, dim=0)
    p, q = logp.exp(), logq.exp()
    vocab = p.shape[0]

    by_id = old_logits.tolist()
    ranking = sorted(range(vocab), key=lambda token: (-by_id[token], token))[:top_k]
    support = list(ranking)
    if sampled not in support:
        support = [*support, sampled] if topk_mode == "paper" else [*support[:-1], sampled]
    inside = set(support)
    others = [token for token in range(vocab) if token not in inside]

    def merged(groups: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        log_p = torch.stack([torch.logsumexp(logp[group], 0) for group in groups if group])
        log_q = torch.stack([torch.logsumexp(logq[group], 0) for group in groups if group])
        return log_p.exp(), log_q.exp(), log_p, log_q

    rest = [token for token in range(vocab) if token != sampled]
    bp, bq, blp, blq = merged([[sampled], rest])
    tp, tq, tlp, tlq = merged([[token] for token in support] + [others])
    return {
        "logp_old": float(logp[sampled]),
        "logp_new": float(logq[sampled]),
        "tv_binary": 0.5 * float((bp - bq).abs().sum()),
        "kl_binary": _kl(bp, blp, blq),
        "tv_topk": 0.5 * float((tp - tq).abs().sum()),
        "kl_topk": _kl(tp, tlp, tlq),
        "tv_exact": 0.5 * float((p - q).abs().sum()),
        "kl_exact": _kl(p, logp, logq),
        "topk_mass_old": float(p[support].sum()),
        "topk_mass_new": float(q[support].sum()),
        "entropy_old": -float(torch.where(p > 0, p * logp, torch.zeros_like(p)).sum()),
        "entropy_new": -float(torch.where(q > 0, q * logq, torch.zeros_like(q)).sum()),
        "grad_norm_new": float(torch.linalg.vector_norm(torch.nn.functional.one_hot(torch.tensor(sampled), vocab) - q)),
    }
