"""Rollouts as batches: right-padded sequences and the hidden rows that predict their counted response tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

__all__ = ["Batch", "Response", "batches", "responses"]


@dataclass(frozen=True)
class Response:
    """One rollout: token ids of prompt and response, and which response tokens count."""

    row: int
    prompt: np.ndarray[tuple[int], np.dtype[np.int64]]
    response: np.ndarray[tuple[int], np.dtype[np.int64]]
    counted: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Batch:
    """A right-padded batch [B, T]. `at` [N] indexes the flattened [B·T] hidden states whose logits predict the
    batch's N counted tokens, in the order of `rows` and position: the logits at t − 1 score the token at t."""

    rows: list[int]
    token_ids_BT: Tensor
    attention_mask_BT: Tensor
    at: Tensor
    sampled: Tensor


def responses(table: pa.Table) -> list[Response]:
    """The rows of a rollout table (`ROLLOUT_SCHEMA`) as arrays."""
    columns = [table[name].combine_chunks() for name in ("prompt_token_ids", "response_token_ids", "response_mask")]
    return [
        Response(
            row=row,
            prompt=columns[0][row].values.to_numpy(zero_copy_only=False).astype(np.int64),
            response=columns[1][row].values.to_numpy(zero_copy_only=False).astype(np.int64),
            counted=columns[2][row].values.to_numpy(zero_copy_only=False).astype(np.bool_),
        )
        for row in range(table.num_rows)
    ]


def batches(items: list[Response], batch_tokens: int) -> Iterator[Batch]:
    """Sequences of similar length together, at most `batch_tokens` padded tokens a batch. Deterministic."""
    ordered = sorted(items, key=lambda item: (item.length, item.row))
    batch: list[Response] = []
    for item in ordered:
        if batch and item.length * (len(batch) + 1) > batch_tokens:
            yield _assemble(batch)
            batch = []
        batch.append(item)
    if batch:
        yield _assemble(batch)


def _assemble(batch: list[Response]) -> Batch:
    width = max(item.length for item in batch)
    token_ids = np.zeros((len(batch), width), dtype=np.int64)
    mask = np.zeros((len(batch), width), dtype=np.int64)
    at, sampled = [], []
    for index, item in enumerate(batch):
        token_ids[index, : item.length] = np.concatenate([item.prompt, item.response])
        mask[index, : item.length] = 1
        positions = np.flatnonzero(item.counted)
        at.append(index * width + len(item.prompt) - 1 + positions)
        sampled.append(item.response[positions])
    return Batch(
        rows=[item.row for item in batch],
        token_ids_BT=torch.from_numpy(token_ids),
        attention_mask_BT=torch.from_numpy(mask),
        at=torch.from_numpy(np.concatenate(at)),
        sampled=torch.from_numpy(np.concatenate(sampled)),
    )
