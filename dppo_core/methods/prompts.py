"""Decided over all responses to a prompt: TVPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_unless, truncated_ratio
from dppo_core.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []


@method(
    "tvpo",
    "TVPO, a trust region of the prompt",
    source="TMax; open-instruct `compute_tvpo_mask`",
    status="read",
    level="prompt",
    needs=("logp_rollout", "logp_new", "group"),
    variants={"open-instruct": {"delta": 0.02, "weight_cap": 20.0}},
)
def tvpo(tokens: TokenArrays, *, delta: float = 0.02, weight_cap: float | None = 20.0) -> tuple[Tensor, Tensor]:
    """TV = mean over a prompt's responses of each one's mean ½|r − 1|; drop iff TV > δ and A·log r > 0;
    coef = keep·min(r, C)·A.

    Every response with counted tokens has the same weight in its prompt, however long.
    """
    log_ratio = tokens.log_ratio("rollout")
    has_tokens = tokens.lengths() > 0
    of_response = tokens.per_sequence(0.5 * log_ratio.expm1().abs())
    of_response = of_response.where(has_tokens, of_response.new_zeros(()))
    of_prompt = tokens.per_group(of_response, "sum") / tokens.per_group(has_tokens.double(), "sum")
    tv = tokens.to_tokens(of_prompt[tokens.groups()])
    kept = keep_unless((tv > delta) & (tokens.advantage * log_ratio > 0), tv, log_ratio)
    return coefficients(kept, truncated_ratio(log_ratio, weight_cap), tokens.advantage)
