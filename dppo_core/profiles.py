"""How trainers compute binary KL and treat A = 0: numeric profiles, so that a user can reproduce their decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dppo_core.divergence import binary_kl

__all__ = ["PROFILES", "Profile"]


@dataclass(frozen=True)
class Profile:
    """binary_kl(logp, logq) → [N] nats; `zero_advantage`: `keep`, or `negative` where A = 0 follows the rule of A < 0
    (which changes reported clip rates, never a gradient)."""

    binary_kl: Callable[[Tensor, Tensor], Tensor]
    zero_advantage: str = "keep"


PROFILES: dict[str, Profile] = {"exact": Profile(binary_kl)}
