"""The statistics as trainers write them: full logits of both policies, full log-softmaxes, 1 − Σ for the rest.

Four layouts. What Stable-RL (on verl) computes, with and without padding: the LM head on every position. What TRL
computes: the LM head on the padded window of responses. And the least that full logits allow: response rows only.
The backbone, the float32 LM head and the formulas are the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.timing import Phases
from benchmarks.workload import Workload, full_logits
from service.worker.batches import Response, batches

__all__ = ["LAYOUTS", "Layout", "naive_batch", "naive_pass", "naive_statistics"]

BATCH_TOKENS = 1024
MICRO_BATCH = 8  # sequences, TRL's default


def naive_statistics(old: Tensor, new: Tensor, sampled: Tensor, top_k: int = 20) -> dict[str, Tensor]:
    """Statistics […] float32 of `sampled` […] from logits […, V]; keys are the field names of `TwoPolicyStats`.

    arXiv:2602.04879 Eq. 13–16 as code usually has them: 1e-8 inside the logs of the binary KL, the rest of the
    top-K as 1 − Σ clamped at 1e-12, a sampled token outside the top-K in its last place.
    """
    logp, logq = torch.log_softmax(old, dim=-1), torch.log_softmax(new, dim=-1)
    p, q = logp.exp(), logq.exp()
    at = sampled.unsqueeze(-1)
    logp_a, logq_a = logp.gather(-1, at).squeeze(-1), logq.gather(-1, at).squeeze(-1)
    p_a, q_a = logp_a.exp(), logq_a.exp()
    binary_rest = torch.log((1 - p_a + 1e-8) / (1 - q_a + 1e-8))

    top = logp.topk(min(top_k, logp.shape[-1]), dim=-1).indices
    present = (top == at).any(-1, keepdim=True)
    top = torch.cat([top[..., :-1], torch.where(present, top[..., -1:], at)], dim=-1)
    top_p, top_q = p.gather(-1, top), q.gather(-1, top)
    rest_p, rest_q = (1 - top_p.sum(-1)).clamp(min=1e-12), (1 - top_q.sum(-1)).clamp(min=1e-12)
    inside = (top_p * (logp.gather(-1, top) - logq.gather(-1, top))).sum(-1)
    return {
        "logp_old": logp_a,
        "logp_new": logq_a,
        "tv_binary": (p_a - q_a).abs(),
        "kl_binary": p_a * (logp_a - logq_a) + (1 - p_a) * binary_rest,
        "tv_topk": 0.5 * ((top_p - top_q).abs().sum(-1) + (rest_p - rest_q).abs()),
        "kl_topk": inside + rest_p * torch.log(rest_p / rest_q),
        "tv_exact": 0.5 * (p - q).abs().sum(-1),
        "kl_exact": (p * (logp - logq)).sum(-1),
        "topk_mass_old": top_p.sum(-1),
        "topk_mass_new": top_q.sum(-1),
        "entropy_old": -(p * logp).sum(-1),
        "entropy_new": -(q * logq).sum(-1),
        "grad_norm_new": (1 - 2 * q_a + (q * q).sum(-1)).sqrt(),
    }


@dataclass(frozen=True)
class Layout:
    """One batch: padded ids and mask [B, T] and the flat positions [H] that get logits. `window` [start, stop): the
    columns of [B, T] that get statistics, None for all H. `sampled`: the token that each of those predicts."""

    token_ids_BT: Tensor
    mask_BT: Tensor
    head_at: Tensor
    window: tuple[int, int] | None
    sampled: Tensor


def _padded(items: list[Response], *, head_everywhere: bool) -> Iterator[Layout]:
    """Micro-batches in the order of the log: prompts padded on the left, responses on the right."""
    for start in range(0, len(items), MICRO_BATCH):
        batch = items[start : start + MICRO_BATCH]
        prompt, response = max(len(item.prompt) for item in batch), max(len(item.response) for item in batch)
        ids = torch.zeros(len(batch), prompt + response, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, item in enumerate(batch):
            where = slice(prompt - len(item.prompt), prompt + len(item.response))
            ids[index, where] = torch.cat([torch.from_numpy(item.prompt), torch.from_numpy(item.response)])
            mask[index, where] = 1
        places = torch.arange(ids.numel()).view(ids.shape)
        window = (prompt - 1, prompt + response - 1)  # the logits at t − 1 predict the token at t
        sampled = ids[:, prompt:]
        if head_everywhere:
            yield Layout(ids, mask, places.flatten(), window, sampled)
        else:
            yield Layout(ids, mask, places[:, slice(*window)].flatten(), None, sampled.flatten())


def _unpadded(items: list[Response]) -> Iterator[Layout]:
    """Whole sequences of similar length, and of their places all that are no padding: each predicts its successor."""
    ordered = sorted(items, key=lambda item: len(item.prompt) + len(item.response))
    for start in range(0, len(items), MICRO_BATCH):
        rows = [torch.from_numpy(np.concatenate([i.prompt, i.response])) for i in ordered[start : start + MICRO_BATCH]]
        ids = pad_sequence(rows, batch_first=True)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        at = mask.flatten().nonzero().squeeze(1)
        yield Layout(ids, mask, at, None, torch.cat(rows).roll(-1))


def _counted(items: list[Response]) -> Iterator[Layout]:
    """Padded batches of similar lengths, and of their places those that predict a counted token."""
    for batch in batches(items, BATCH_TOKENS):
        assert batch.attention_mask_BT is not None, "padded batches have one"
        yield Layout(batch.token_ids_BT, batch.attention_mask_BT, batch.at, None, batch.sampled)


LAYOUTS: dict[str, Callable[[list[Response]], Iterator[Layout]]] = {
    "padded, as Stable-RL": lambda items: _padded(items, head_everywhere=True),
    "unpadded, as Stable-RL": _unpadded,
    "padded, as TRL": lambda items: _padded(items, head_everywhere=False),
    "unpadded, response rows only": _counted,
}


def naive_pass(workload: Workload, layout: str) -> Phases:
    """Score the workload in the naive form; returns where the time went."""
    phases = Phases()
    for batch in LAYOUTS[layout](workload.responses):
        naive_batch(workload, batch, phases)
    return phases


@torch.inference_mode()
def naive_batch(workload: Workload, batch: Layout, phases: Phases) -> dict[str, Tensor]:
    """Statistics of every place of a batch, padding among them, in the shape of its `sampled`."""
    with phases.spent_on("statistics"):
        logits = []
        for policy in (workload.old, workload.new):
            with phases.spent_on("backbone"):
                hidden = policy.hidden(batch.token_ids_BT, batch.mask_BT)
            rows = hidden.flatten(0, 1).index_select(0, batch.head_at)
            with phases.spent_on("head"):
                logits.append(full_logits(policy, rows))
        if batch.window is not None:
            shape = (*batch.token_ids_BT.shape, -1)
            logits = [values.view(shape)[:, slice(*batch.window)] for values in logits]
        old, new = logits
        return naive_statistics(old, new, batch.sampled)
