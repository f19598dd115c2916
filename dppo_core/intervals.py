"""Certified intervals: what a log proves about the exact TV of a pair where it does not hold the exact TV.

Every estimate that merges tokens (binary, top-K) lies below the exact TV, so it may serve as a lower bound only.
P anchors, Q is the new policy, a the sampled token. Probabilities, [N], float64, NaN = not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dppo_core.divergence import binary_tv

__all__ = ["TVInterval"]


@dataclass(frozen=True)
class TVInterval:
    """lower ≤ TV(P, Q) ≤ upper [N], as far as the inputs are exact. `source`: exact, topk, sampled, or several.

    Made by `exact`, `from_topk` and `from_sampled`, so that a lower bound cannot pass for the TV.
    """

    lower: Tensor
    upper: Tensor
    source: str

    @classmethod
    def exact(cls, tv_exact: Tensor) -> TVInterval:
        """The TV over the whole vocabulary itself."""
        tv = tv_exact.double()
        return cls(tv, tv, "exact")

    @classmethod
    def from_topk(cls, tv_topk: Tensor, rest_anchor: Tensor, rest_new: Tensor) -> TVInterval:
        """From the top-K TV and the mass that P and Q leave outside its support: TV_topK ≤ TV ≤ TV_topK + min(rests).

        Outside the support Σ|P−Q| is |rest_P − rest_Q| where all differences have one sign, rest_P + rest_Q where the
        two share no token; half the difference between the two is min(rest_P, rest_Q).
        """
        lower = tv_topk.double()
        upper = lower + torch.minimum(rest_anchor.double(), rest_new.double())
        return cls(lower, upper.clamp(max=1.0), "topk")

    @classmethod
    def from_sampled(cls, logp_anchor: Tensor, logp_new: Tensor) -> TVInterval:
        """From the sampled token alone: |P(a) − Q(a)| ≤ TV ≤ 1 − min(P(a), Q(a)); log-probs in nats.

        TV = 1 − Σ min(P, Q), of which the sum is at least its term at a. A token with P(a), Q(a) near 1 is nearly
        exact; one with P(a) near 0 says nothing.
        """
        upper = -torch.expm1(torch.minimum(logp_anchor.double(), logp_new.double()))
        return cls(binary_tv(logp_anchor, logp_new), upper, "sampled")

    def tightened(self, other: TVInterval) -> TVInterval:
        """Both at once: the higher lower bound and the lower upper bound of each token; NaN where neither knows."""
        source = self.source if self.source == other.source else f"{self.source}+{other.source}"
        return TVInterval(torch.fmax(self.lower, other.lower), torch.fmin(self.upper, other.upper), source)
