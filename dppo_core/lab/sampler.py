"""The inference engine of the lab: a KV-cache sampler that rounds weights, activations and logits.

It is a second implementation of the policy's forward pass, as a trainer's engine is, so that μ differs from π at the
same weights by rounding alone; at 23 bits the two agree to float32 rounding. Responses are drawn by inverse CDF from
uniforms that depend on nothing but the generator: two policies with one seed use the same random numbers.
Shapes: G prompts × n responses = B sequences, n' of them unfinished; L response tokens; V vocabulary; K listed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from dppo_core.lab.language import EOS, PAD, PROMPT, RESPONSE, Problem, reward
from dppo_core.lab.policy import NORM_EPSILON, Shape, Weights

__all__ = ["Rollouts", "Sampler", "rounded"]

KEEP = 0.8  # finished responses are taken out of the batch when fewer than this share goes on
FLOAT_BITS = 23


def rounded(values: Tensor, bits: int) -> Tensor:
    """float32 `values` with `bits` explicit mantissa bits, to nearest, halves away from zero. In place."""
    if bits < FLOAT_BITS:
        dropped = FLOAT_BITS - bits
        values.view(torch.int32).add_(1 << (dropped - 1)).bitwise_and_(-(1 << dropped))
    return values


@dataclass(frozen=True)
class Rollouts:
    """Responses as an engine returns them, padded to the longest.

    tokens [B, L] int64 (PAD after the end); counted [B, L] bool; logp [B, L] log μ(a), 0 where not counted;
    entropy [B, L] of μ in nats; top_ids, top_logp [B, L, K], best first, and logp_all [B, L, V] where asked for.
    """

    tokens: Tensor
    counted: Tensor
    logp: Tensor
    entropy: Tensor
    top_ids: Tensor | None
    top_logp: Tensor | None
    logp_all: Tensor | None

    def rewards(self, problems: Sequence[Problem]) -> Tensor:
        """The reward [B] of each response, given the problem of each."""
        lengths = self.counted.sum(1).tolist()
        rows = zip(problems, self.tokens.tolist(), lengths, strict=True)
        return torch.tensor([reward(problem, row[:length]) for problem, row, length in rows])


class Sampler:
    """Samples from `weights` at temperature 1, at the precision of `mantissa` and `logit_mantissa` bits.

    top_k: list the K most likely tokens of every place (0: none); everything: keep log μ over the vocabulary.
    """

    def __init__(
        self, shape: Shape, *, mantissa: int, logit_mantissa: int, top_k: int = 0, everything: bool = False
    ) -> None:
        self.shape, self.bits, self.logit_bits = shape, mantissa, logit_mantissa
        self.top_k, self.everything = top_k, everything

    @torch.no_grad()
    def sample(self, weights: Weights, prompts_GP: Tensor, group: int, generator: torch.Generator) -> Rollouts:
        """`group` responses to each prompt of `PROMPT` tokens; those of one prompt stand together."""
        weights = {name: rounded(values.clone(), self.bits) for name, values in weights.items()}
        batch = len(prompts_GP) * group
        uniform_LB = torch.rand(RESPONSE, batch, generator=generator)
        out = _Written(batch, self.top_k, self.shape.vocabulary if self.everything else 0)
        cache, hidden = self._prefill(weights, prompts_GP, group)
        active = torch.arange(batch)
        head_DV = weights["lm_head.weight"].T.contiguous()
        for place in range(RESPONSE):
            logp = torch.log_softmax(rounded(hidden @ head_DV, self.logit_bits), dim=-1)
            probability = logp.exp()
            total = probability.cumsum(-1)
            drawn = uniform_LB[place, active].unsqueeze(1) * total[:, -1:]
            token = torch.searchsorted(total, drawn, right=True).clamp_(max=self.shape.vocabulary - 1)
            out.write(place, active, token, logp, probability)
            goes_on = ~out.ended[active]
            left = int(goes_on.sum())
            if left == 0 or place == RESPONSE - 1:
                break
            if left < KEEP * len(active):  # until then what has ended is computed along, and not written
                rows = goes_on.nonzero().squeeze(1)
                active, token = active[rows], token[rows]
                cache = [(k.index_select(1, rows), v.index_select(1, rows)) for k, v in cache]
            hidden = self._decode(weights, token.squeeze(1), PROMPT + place, cache)
        return out.rollouts()

    def _prefill(self, weights: Weights, prompts_GP: Tensor, group: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Caches [PROMPT + RESPONSE, B, H, D/H] of keys and values a layer, and the last hidden state [B, D]."""
        shape, bits = self.shape, self.bits
        count, length = prompts_GP.shape
        heads, width = shape.heads, shape.width
        x = weights["wte.weight"][prompts_GP] + weights["wpe.weight"][:length]
        x = rounded(x.view(-1, width), bits)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        cache = []
        for layer in range(shape.layers):
            qkv = self._attention_input(weights, layer, x)
            q, k, v = qkv.view(count, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-1, -2)) * (width // heads) ** -0.5
            mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
            x = self._rest_of_block(weights, layer, x, mixed.transpose(1, 2).reshape(-1, width))
            kept = []
            for values in (k, v):
                room = values.new_empty(length + RESPONSE, count * group, heads, width // heads)
                room[:length] = values.permute(2, 0, 1, 3).repeat_interleave(group, dim=1)
                kept.append(room)
            cache.append((kept[0], kept[1]))
        last = self._final(weights, x.view(count, length, width)[:, -1])
        return cache, last.repeat_interleave(group, dim=0)

    def _decode(self, weights: Weights, token: Tensor, position: int, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The final hidden state [n', D] after one more token each, at `position`; writes into the caches."""
        shape = self.shape
        count, heads, width = len(token), shape.heads, shape.width
        x = rounded(weights["wte.weight"][token] + weights["wpe.weight"][position], self.bits)
        for layer, (keys, values) in enumerate(cache):
            qkv = self._attention_input(weights, layer, x).view(count, 3, heads, width // heads)
            keys[position], values[position] = qkv[:, 1], qkv[:, 2]
            # one query each: products and sums are twice as fast as batched matrix products
            scores = (qkv[:, 0] * keys[: position + 1]).sum(-1) * (width // heads) ** -0.5
            mixed = (scores.softmax(0).unsqueeze(-1) * values[: position + 1]).sum(0)
            x = self._rest_of_block(weights, layer, x, mixed.reshape(count, width))
        return self._final(weights, x)

    def _attention_input(self, weights: Weights, layer: int, x: Tensor) -> Tensor:
        return self._linear(weights, f"h.{layer}.attn.c_attn", self._norm(weights, f"h.{layer}.ln_1", x))

    def _rest_of_block(self, weights: Weights, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """From the attention's output to the block's."""
        bits, at = self.bits, f"h.{layer}"
        x = rounded(x + self._linear(weights, f"{at}.attn.c_proj", rounded(mixed, bits)), bits)
        inner = self._linear(weights, f"{at}.mlp.c_fc", self._norm(weights, f"{at}.ln_2", x))
        inner = rounded(gelu(inner), bits)
        return rounded(x + self._linear(weights, f"{at}.mlp.c_proj", inner), bits)

    def _final(self, weights: Weights, x: Tensor) -> Tensor:
        return self._norm(weights, "ln_f", x)

    def _norm(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return rounded(layer_norm(x, (self.shape.width,), scale, shift, NORM_EPSILON), self.bits)

    def _linear(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        return rounded(torch.addmm(weights[f"{name}.bias"], x, weights[f"{name}.weight"]), self.bits)


class _Written:
    """What has been sampled so far, [B, RESPONSE, …]."""

    def __init__(self, batch: int, top_k: int, vocabulary: int) -> None:
        self.tokens = torch.full((batch, RESPONSE), PAD)
        self.counted = torch.zeros(batch, RESPONSE, dtype=torch.bool)
        self.logp, self.entropy = torch.zeros(batch, RESPONSE), torch.zeros(batch, RESPONSE)
        self.top_k = top_k
        self.top_ids = torch.zeros(batch, RESPONSE, top_k, dtype=torch.int64)
        self.top_logp = torch.zeros(batch, RESPONSE, top_k)
        self.logp_all = torch.zeros(batch, RESPONSE, vocabulary)
        self.ended = torch.zeros(batch, dtype=torch.bool)

    def write(self, place: int, active: Tensor, token_n1: Tensor, logp_nV: Tensor, probability_nV: Tensor) -> None:
        """One token of each active response that has not ended."""
        open_ = ~self.ended[active]
        if not bool(open_.all()):
            rows = open_.nonzero().squeeze(1)
            active, token_n1 = active[rows], token_n1[rows]
            logp_nV, probability_nV = logp_nV[rows], probability_nV[rows]
        self.tokens[active, place] = token_n1.squeeze(1)
        self.counted[active, place] = True
        self.logp[active, place] = logp_nV.gather(1, token_n1).squeeze(1)
        self.entropy[active, place] = -torch.linalg.vecdot(probability_nV, logp_nV)
        if self.top_k:
            self.top_logp[active, place], self.top_ids[active, place] = logp_nV.topk(self.top_k, dim=1)
        if self.logp_all.shape[-1]:
            self.logp_all[active, place] = logp_nV
        self.ended[active] = token_n1.squeeze(1) == EOS

    def rollouts(self) -> Rollouts:
        length = int(self.counted.sum(1).max())
        cut = slice(0, length)
        return Rollouts(
            self.tokens[:, cut],
            self.counted[:, cut],
            self.logp[:, cut],
            self.entropy[:, cut],
            self.top_ids[:, cut] if self.top_k else None,
            self.top_logp[:, cut] if self.top_k else None,
            self.logp_all[:, cut] if self.logp_all.shape[-1] else None,
        )
