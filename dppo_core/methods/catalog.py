"""Every method and the threshold presets as published. Torch-free, so that a service can list them without torch."""

from __future__ import annotations

from dataclasses import dataclass

from dppo_core.methods import (
    bounded,
    clipping,
    dppo,
    dppo_variations,
    mismatch,
    prompts,
    sequence_masks,
    sequence_mismatch,
    sequences,
    weighting,
)
from dppo_core.methods.registry import METHODS

__all__ = ["METHODS", "PRESETS", "Thresholds"]

FAMILIES = (
    clipping,
    dppo,
    dppo_variations,
    weighting,
    mismatch,
    sequences,
    sequence_mismatch,
    sequence_masks,
    prompts,
    bounded,
)
"""The modules whose import registers the methods."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the PPO and DPPO masks and the cap of the gradient weight.

    `eps_*` bound the ratio to [1 − eps_low, 1 + eps_high]; `dual_clip` is the ratio c above which a token with
    A < 0 is dropped too (None = no dual clip); `delta_*_low` applies to A < 0, `delta_*_high` to A > 0;
    `weight_cap` is C in the weight min(r, C)·A (None = ∞). Defaults: arXiv:2602.04879 §5.
    """

    eps_low: float = 0.2
    eps_high: float = 0.28
    dual_clip: float | None = None
    delta_tv_low: float = 0.15
    delta_tv_high: float = 0.15
    delta_kl_low: float = 0.05
    delta_kl_high: float = 0.05
    weight_cap: float | None = None


PRESETS: dict[str, Thresholds] = {
    "paper-stability": Thresholds(),  # arXiv:2602.04879 §5
    "paper-scaling": Thresholds(eps_high=0.27, delta_tv_low=0.2, delta_tv_high=0.2, weight_cap=5.0),  # §7
    "paper-scaling-lora": Thresholds(eps_high=0.27, weight_cap=5.0),  # §7, its LoRA runs
    "trl": Thresholds(eps_high=0.2, delta_kl_low=0.15, delta_kl_high=0.15, weight_cap=20.0),  # the removed trainer
    "verl": Thresholds(  # its defaults; δ_KL as its script has it, whose δ_TV is .15
        eps_high=0.2, dual_clip=3.0, delta_tv_low=0.2, delta_tv_high=0.2, weight_cap=3.0
    ),
    "prime-rl": Thresholds(delta_tv_low=0.2, delta_tv_high=0.2),  # it has no ε and no KL: those are §5's
    "zaya1-8b": Thresholds(delta_tv_low=0.1, delta_tv_high=0.1),  # δ_TV alone is published: the rest is §5's
}
"""Published sets of thresholds, most cited first."""
