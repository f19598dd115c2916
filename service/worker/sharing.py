"""Attention over packed rows: the responses of a prompt branch off one copy of it.

Every other layer of a transformer works token by token, so a packed row needs nothing but positions and this
attention. It is exact: each token attends to what it would attend to alone. On a CPU it is so to the last bit,
whatever else the row holds, because every response's products have shapes of its own lengths only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from service.worker.batches import Tree

__all__ = ["branching", "can_branch"]

QUERY_BLOCK = {"cpu": 128, "cuda": 1024}
"""Response tokens that attend at once: the larger, the fewer calls; the smaller, the fewer masked places computed."""

_NAME = "dppo_trees"  # among transformers' attention functions
_REFUSED = ("sliding_window", "attention_chunk_size", "softcap", "s_aux", "sinks", "position_bias")
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}  # relative, on a hidden state; a leak moves it by far more


class _CannotBranch(Exception):
    """The model asks for an attention that is not computed here."""


@dataclass(frozen=True)
class _Branches:
    """n responses of one prompt that attend in one call, padded to W tokens.

    take [n·W]: the packed token at each place, in padding any; keep: the places that are tokens, or None for all.
    """

    prompt: slice
    count: int
    take: Tensor
    keep: Tensor | None

    def own(self, values: Tensor) -> Tensor:
        """[1, H, N, D] → the responses' part [n, H, W, D]."""
        _, heads, _, size = values.shape
        return values[0].index_select(1, self.take).view(heads, self.count, -1, size).transpose(0, 1)

    def with_prompt(self, values: Tensor) -> Tensor:
        """[1, H, N, D] → prompt and response [n, H, P + W, D]."""
        return torch.cat([values[:, :, self.prompt].expand(self.count, -1, -1, -1), self.own(values)], dim=2)


class _Row:
    """A packed row: where its prompts lie, its responses by attention call, and one causal mask to cut theirs from."""

    def __init__(self, trees: Sequence[Tree], device: torch.device) -> None:
        self.prompts = [slice(tree.start, tree.start + tree.prompt) for tree in trees]
        # On a GPU few calls win. On a CPU a call of equal lengths has no padding, and no neighbour changes its shape.
        self.branches = [call for tree in trees for call in _calls(tree, device, pad=_on_gpu(device))]
        self.block = QUERY_BLOCK[device.type]
        longest = max(tree.prompt + max(tree.responses, default=0) for tree in trees)
        self._mask = torch.ones(self.block, longest + self.block, dtype=torch.bool, device=device).tril(longest)

    def mask(self, first: int, queries: int) -> Tensor:
        """[queries, first + queries]: query i sees every key up to first + i."""
        shift = self._mask.shape[1] - self.block - first
        return self._mask[:queries, shift : shift + first + queries]


_running: list[_Row] = []  # the row that runs now: transformers hands nothing through to every model's attention


@contextlib.contextmanager
def branching(model: Any, trees: Sequence[Tree], device: torch.device) -> Iterator[None]:
    """While it lasts, `model` runs one packed row of these trees. No-op without trees. Not for threads."""
    if not trees:
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _tree_attention)
    before = model.config._attn_implementation
    _running.append(_Row(trees, device))
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        _running.pop()


def _calls(tree: Tree, device: torch.device, *, pad: bool) -> Iterator[_Branches]:
    """The responses that have tokens to run, as attention calls: neighbours of one length, or all of them padded."""
    ends = tree.start + tree.prompt + np.cumsum([0, *tree.responses])
    branches = [branch for branch in zip(ends.tolist(), tree.responses, strict=False) if branch[1]]
    for _, together in groupby(branches, key=lambda branch: 0 if pad else branch[1]):
        first, lengths = torch.tensor(list(together)).T.unsqueeze(2)
        places = torch.arange(int(lengths.max())).expand(len(first), -1)
        real = places < lengths
        yield _Branches(
            prompt=slice(tree.start, tree.start + tree.prompt),
            count=len(first),
            take=torch.where(real, first + places, tree.start).flatten().to(device),
            keep=None if bool(real.all()) else real.flatten().nonzero().squeeze(1).to(device),
        )


def _tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [1, H, N, D], key and value [1, Hkv, N, …] → [1, N, H, …]."""
    refused = [name for name in _REFUSED if options.get(name) is not None]
    if refused or attention_mask is not None or options.get("is_causal") is False:
        raise _CannotBranch(f"{type(module).__name__}: {', '.join(refused) or 'a mask of its own'}")
    row = _running[-1]
    out = value.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for prompt in row.prompts:
        found = _attend(query[:, :, prompt], key[:, :, prompt], value[:, :, prompt], scaling, None)
        out[:, prompt] = found.transpose(1, 2)
    for branches in row.branches:
        q, k, v = branches.own(query), branches.with_prompt(key), branches.with_prompt(value)
        n, heads, width, _ = q.shape
        prompt_tokens = k.shape[2] - width
        found = v.new_empty(n, width, heads, v.shape[3])
        for start in range(0, width, row.block):
            stop = min(start + row.block, width)
            seen, mask = prompt_tokens + stop, row.mask(prompt_tokens + start, stop - start)
            part = _attend(q[:, :, start:stop], k[:, :, :seen], v[:, :, :seen], scaling, mask)
            found[:, start:stop] = part.transpose(1, 2)
        values, take = found.flatten(0, 1), branches.take
        if branches.keep is not None:
            values, take = values.index_select(0, branches.keep), take.index_select(0, branches.keep)
        out[0].index_copy_(0, take, values)
    return out, None


def _attend(q: Tensor, k: Tensor, v: Tensor, scaling: float | None, mask: Tensor | None) -> Tensor:
    """Plain attention, causal without a mask; key heads may be fewer than query heads."""
    grouped = q.shape[1] != k.shape[1]
    if grouped and _on_gpu(q.device):  # CUDA's kernels take a mask or grouped heads, not both
        k, v = (values.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for values in (k, v))
        grouped = False
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )


def _on_gpu(device: torch.device) -> bool:
    return device.type != "cpu"


def can_branch(model: Any) -> bool:
    """Whether packed rows give this model's own hidden states: by its configuration, then by trying.

    Windows and chunks are longer than any trial, so the configuration has the first word; state-space layers,
    positions added elsewhere and attention that is not transformers' common function fail the trial.
    """
    return not _known_limits(model.config.get_text_config()) and _same_when_packed(model)


def _known_limits(config: Any) -> bool:
    """Layers that do not attend to everything before, or rotary angles that depend on the whole sequence's length."""
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    ropes = [rope, *(part for part in rope.values() if isinstance(part, dict))]  # one, or one for each kind of layer
    kinds = {part.get("rope_type", part.get("type")) for part in ropes}
    return bool(
        layers != {"full_attention"}
        or getattr(config, "sliding_window", None)
        or getattr(config, "attention_chunk_size", None)
        or kinds & {"dynamic", "longrope"}
    )


@torch.inference_mode()
def _same_when_packed(model: Any) -> bool:
    trees = (Tree(0, 5, (4, 2, 4)), Tree(15, 3, (3, 0)))
    device, vocab = model.device, model.config.get_text_config().vocab_size
    ids = ((torch.arange(sum(tree.tokens for tree in trees)) * 7919 + 13) % vocab).to(device)
    positions, sequences = [], []
    for tree in trees:
        prompt = torch.arange(tree.start, tree.start + tree.prompt)
        positions.append(torch.arange(tree.prompt))
        end = tree.start + tree.prompt
        for length in tree.responses:
            positions.append(tree.prompt + torch.arange(length))
            sequences.append(torch.cat([prompt, torch.arange(end, end + length)]).to(device))
            end += length
    try:
        with branching(model, trees, device):
            together = model.base_model(
                input_ids=ids.unsqueeze(0), position_ids=torch.cat(positions).unsqueeze(0).to(device), use_cache=False
            ).last_hidden_state[0]
    except Exception:  # noqa: BLE001 the model's own code, which may refuse in any way
        return False
    for places in sequences:
        alone = model.base_model(input_ids=ids[places].unsqueeze(0), use_cache=False).last_hidden_state[0].float()
        gap = (together[places].float() - alone).norm(dim=1) / alone.norm(dim=1)
        if not float(gap.mean()) <= _TOLERANCE[model.dtype]:
            return False
    return True
