"""The policy: GPT-2 (pre-norm, learned positions, untied head) with its weights in one flat vector.

One vector makes the optimiser, a snapshot and the gradient's norm one operation each. The parameters have GPT-2's
names and layouts, so that a checkpoint is an ordinary one (`dppo_core.lab.checkpoint`).
Shapes: B sequences, T tokens, N counted tokens, D width, V vocabulary, P parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, layer_norm, scaled_dot_product_attention

from dppo_core.lab.language import PROMPT, RESPONSE, VOCABULARY
from dppo_core.lab.settings import Settings

__all__ = ["Shape", "Weights", "hidden_rows", "initial", "score"]

Weights = dict[str, Tensor]
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of the model."""

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int

    @staticmethod
    def of(settings: Settings) -> Shape:
        """The model of these settings, for the lab's language."""
        return Shape(VOCABULARY, PROMPT + RESPONSE, settings.width, settings.layers, settings.heads)

    @cached_property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """GPT-2's parameter names → shapes, in the order of the flat vector."""
        d = self.width
        names: dict[str, tuple[int, ...]] = {"wte.weight": (self.vocabulary, d), "wpe.weight": (self.positions, d)}
        for layer in range(self.layers):
            for name, shape in (
                ("ln_1.weight", (d,)),
                ("ln_1.bias", (d,)),
                ("attn.c_attn.weight", (d, 3 * d)),
                ("attn.c_attn.bias", (3 * d,)),
                ("attn.c_proj.weight", (d, d)),
                ("attn.c_proj.bias", (d,)),
                ("ln_2.weight", (d,)),
                ("ln_2.bias", (d,)),
                ("mlp.c_fc.weight", (d, 4 * d)),
                ("mlp.c_fc.bias", (4 * d,)),
                ("mlp.c_proj.weight", (4 * d, d)),
                ("mlp.c_proj.bias", (d,)),
            ):
                names[f"h.{layer}.{name}"] = shape
        return {**names, "ln_f.weight": (d,), "ln_f.bias": (d,), "lm_head.weight": (self.vocabulary, d)}

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    def weights(self, flat_P: Tensor) -> Weights:
        """The parameters as views of the flat vector; gradients flow back into it."""
        parts = torch.split(flat_P, [math.prod(shape) for shape in self.parameters.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.parameters.items(), parts, strict=True)}


def initial(shape: Shape, seed: int) -> Tensor:
    """GPT-2's initialisation: N(0, .02²), residual projections divided by √(2·layers); norms 1 and 0. [P]."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.zeros(shape.size)
    for name, values in shape.weights(flat).items():
        if ".ln_" in f".{name}":
            values.fill_(float(name.endswith("weight")))
        elif name.endswith("weight"):
            scale = 0.02 / math.sqrt(2 * shape.layers) if name.endswith("c_proj.weight") else 0.02
            values.normal_(0.0, scale, generator=generator)
    return flat


def hidden_rows(weights: Weights, shape: Shape, tokens_BT: Tensor, counted_BT: Tensor) -> Tensor:
    """Final hidden states [N, D] of the counted places, row by row; padding stands on the right of every sequence."""
    batch, length = tokens_BT.shape
    heads, width = shape.heads, shape.width
    x = weights["wte.weight"][tokens_BT] + weights["wpe.weight"][:length]
    x = x.view(batch * length, width)
    for layer in range(shape.layers):
        w = {name: weights[f"h.{layer}.{name}"] for name in _LAYER}
        a = layer_norm(x, (width,), w["ln_1.weight"], w["ln_1.bias"], NORM_EPSILON)
        qkv = torch.addmm(w["attn.c_attn.bias"], a, w["attn.c_attn.weight"])
        q, k, v = qkv.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch * length, width)
        if layer == shape.layers - 1:  # what follows is a function of a place alone: only counted ones go on
            rows = counted_BT.flatten().nonzero().squeeze(1)
            x, mixed = x.index_select(0, rows), mixed.index_select(0, rows)
        x = x + torch.addmm(w["attn.c_proj.bias"], mixed, w["attn.c_proj.weight"])
        m = layer_norm(x, (width,), w["ln_2.weight"], w["ln_2.bias"], NORM_EPSILON)
        m = gelu(torch.addmm(w["mlp.c_fc.bias"], m, w["mlp.c_fc.weight"]))  # exact: four times as fast as tanh here
        x = x + torch.addmm(w["mlp.c_proj.bias"], m, w["mlp.c_proj.weight"])
    return layer_norm(x, (width,), weights["ln_f.weight"], weights["ln_f.bias"], NORM_EPSILON)


_LAYER = [
    f"{block}.{kind}"
    for block in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    for kind in ("weight", "bias")
]


def score(weights: Weights, shape: Shape, tokens_BT: Tensor, counted_BT: Tensor) -> tuple[Tensor, Tensor]:
    """log π(a) [N] of the tokens whose predecessor is counted, and the logits [N, V] that gave them.

    tokens_BT holds prompt, response and padding; counted_BT [B, T−1] marks the places whose next token is scored.
    """
    counted = torch.nn.functional.pad(counted_BT, (0, 1))
    logits_NV = hidden_rows(weights, shape, tokens_BT, counted) @ weights["lm_head.weight"].T
    sampled_N = tokens_BT[:, 1:][counted_BT]
    return -cross_entropy(logits_NV, sampled_N, reduction="none"), logits_NV
