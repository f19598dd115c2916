"""Rollouts as batches: sequences in one of two layouts, and the hidden rows that predict their counted tokens.

Packed: one row without padding, where each distinct prompt stands once and its responses branch off it (`Tree`).
Padded: right-padded rows of similar length, for models whose attention cannot branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

__all__ = ["Batch", "Response", "Tree", "batches", "packed", "responses"]

_Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Response:
    """One rollout: token ids of prompt and response, and which response tokens count. `row` is its place in a list."""

    row: int
    prompt: _Ids
    response: _Ids
    counted: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @property
    def run(self) -> int:
        """Response tokens that a model has to read: those before the last counted one, which is only predicted."""
        return int(np.flatnonzero(self.counted)[-1]) if self.counted.any() else 0

    @property
    def length(self) -> int:
        """Tokens of the sequence that a model has to read."""
        return len(self.prompt) + self.run


@dataclass(frozen=True)
class Tree:
    """A prompt in a packed row, from token `start` on, and right after it its responses, of `responses` tokens each."""

    start: int
    prompt: int
    responses: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prompt + sum(self.responses)


@dataclass(frozen=True)
class Batch:
    """Sequences [B, T] to run. `at` [N] indexes the flattened [B·T] hidden states whose logits predict the batch's N
    counted tokens `sampled`, in the order of `rows` and position: the logits at t − 1 score the token at t.

    Packed: B = 1, `trees` cover the row, position_ids_BT count from each sequence's first token, no mask.
    Padded: right-padded, attention_mask_BT is 1 on tokens, no trees.
    """

    rows: list[int]
    token_ids_BT: Tensor
    attention_mask_BT: Tensor | None
    position_ids_BT: Tensor | None
    trees: tuple[Tree, ...]
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
    """Padded batches: similar lengths together, at most `batch_tokens` padded tokens a batch. Deterministic.

    Responses without a counted token are left out, here and in `packed`.
    """
    ordered = sorted((item for item in items if item.counted.any()), key=lambda item: (item.length, item.row))
    batch: list[Response] = []
    for item in ordered:
        if batch and item.length * (len(batch) + 1) > batch_tokens:
            yield _padded(batch)
            batch = []
        batch.append(item)
    if batch:
        yield _padded(batch)


def packed(items: list[Response], batch_tokens: int, *, share_prompts: bool = True) -> Iterator[Batch]:
    """Packed batches of about `batch_tokens` tokens. Deterministic.

    Responses to one prompt (by its token ids) share it: that saves prompts and costs nothing. A group larger than a
    batch is cut into parts with room for four of its longest sequences, each with the prompt once more.
    """
    groups = [part for group in _by_prompt(items, share_prompts) for part in _cut(group, batch_tokens)]
    batch: list[list[Response]] = []
    used = 0
    for group in sorted(groups, key=lambda group: (_tokens(group), group[0].row)):
        if batch and used + _tokens(group) > batch_tokens:
            yield _packed(batch)
            batch, used = [], 0
        batch.append(group)
        used += _tokens(group)
    if batch:
        yield _packed(batch)


def _by_prompt(items: list[Response], share_prompts: bool) -> list[list[Response]]:
    """Groups of responses that share their prompt, equal lengths side by side."""
    found: dict[object, list[Response]] = {}
    for item in sorted((item for item in items if item.counted.any()), key=lambda item: (item.run, item.row)):
        found.setdefault(item.prompt.tobytes() if share_prompts else item.row, []).append(item)
    return list(found.values())


def _tokens(group: list[Response]) -> int:
    return len(group[0].prompt) + sum(item.run for item in group)


def _cut(group: list[Response], batch_tokens: int) -> list[list[Response]]:
    """Parts of about equally many responses, so that memory stays bounded: by the batch or a few long sequences."""
    room = max(batch_tokens, 4 * max(item.length for item in group)) - len(group[0].prompt)
    parts = -(-(_tokens(group) - len(group[0].prompt)) // room) or 1
    size = -(-len(group) // parts)
    return [group[start : start + size] for start in range(0, len(group), size)]


def _padded(batch: list[Response]) -> Batch:
    width = max(item.length for item in batch)
    token_ids = np.zeros((len(batch), width), dtype=np.int64)
    mask = np.zeros((len(batch), width), dtype=np.int64)
    at = []
    for index, item in enumerate(batch):
        token_ids[index, : item.length] = np.concatenate([item.prompt, item.response[: item.run]])
        mask[index, : item.length] = 1
        at.append(index * width + len(item.prompt) - 1 + np.flatnonzero(item.counted))
    return replace(_batch(batch, token_ids, at), attention_mask_BT=torch.from_numpy(mask))


def _packed(groups: list[list[Response]]) -> Batch:
    trees, token_ids, position_ids, at = [], [], [], []
    end = 0
    for group in groups:
        prompt = group[0].prompt
        trees.append(Tree(end, len(prompt), tuple(item.run for item in group)))
        token_ids.append(prompt)
        position_ids.append(np.arange(len(prompt)))
        end += len(prompt)
        last_of_prompt = end - 1
        for item in group:
            places = np.flatnonzero(item.counted)
            at.append(np.where(places == 0, last_of_prompt, end - 1 + places))
            token_ids.append(item.response[: item.run])
            position_ids.append(len(prompt) + np.arange(item.run))
            end += item.run
    positions = torch.from_numpy(np.concatenate(position_ids)).unsqueeze(0)
    items = [item for group in groups for item in group]
    batch = _batch(items, np.concatenate(token_ids)[np.newaxis], at)
    return replace(batch, position_ids_BT=positions, trees=tuple(trees))


def _batch(items: list[Response], token_ids: np.ndarray[tuple[int, int], np.dtype[np.int64]], at: list[_Ids]) -> Batch:
    return Batch(
        rows=[item.row for item in items],
        token_ids_BT=torch.from_numpy(token_ids),
        attention_mask_BT=None,
        position_ids_BT=None,
        trees=(),
        at=torch.from_numpy(np.concatenate(at)),
        sampled=torch.from_numpy(np.concatenate([item.response[item.counted] for item in items])),
    )
