"""How trainers compute binary KL and treat A = 0: numeric profiles, so that a user can reproduce their decisions.

The forms differ where a probability is near 1. KL in nats of {a, rest}, as float32 gives it:

    P(a) → Q(a)    exact    stable-rl    trl      open-instruct
    .99 → 1        ∞        .128         .103     .082
    .999 → 1       ∞        .0105        .0080    .0059

so at δ = .05 and P(a) around .995 they decide differently on the same token. Binary TV is |P(a) − Q(a)| everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dppo_core.divergence import binary_kl

if TYPE_CHECKING:  # tensors' own methods only, so that the catalogue of methods is importable without torch
    from torch import Tensor

__all__ = ["PROFILES", "Profile", "ZeroAdvantage"]

ZeroAdvantage = Literal["keep", "negative"]


@dataclass(frozen=True)
class Profile:
    """binary_kl(logp, logq) → KL(P‖Q) [N] in nats, float64; `zero_advantage`: `keep`, or `negative` where A = 0
    follows the rule of A < 0 (which changes reported clip rates, never a gradient)."""

    binary_kl: Callable[[Tensor, Tensor], Tensor]
    zero_advantage: ZeroAdvantage = "keep"


# P: the anchor. Arithmetic is float32 where the trainer's is: 1 − p then loses what lies below 6e-8.


def _added(logp: Tensor, logq: Tensor) -> Tensor:
    """1e-8 added to both complements, the sampled term as it is: Stable-RL `_compute_token_mask_for_policy_loss`."""
    logp, logq = logp.float(), logq.float()
    p, q = logp.exp(), logq.exp()
    return (p * (logp - logq) + (1.0 - p) * ((1.0 - p + 1e-8) / (1.0 - q + 1e-8)).log()).double()


def _floored(logp: Tensor, logq: Tensor) -> Tensor:
    """Both complements at least 1e-8: forks of slime (upstream has no DPPO) `compute_dppo_binary_policy_loss`."""
    logp, logq = logp.float(), logq.float()
    rest_p, rest_q = (1.0 - logp.exp()).clamp(min=1e-8), (1.0 - logq.exp()).clamp(min=1e-8)
    return (logp.exp() * (logp - logq) + rest_p * (rest_p / rest_q).log()).double()


def _log1p(logp: Tensor, logq: Tensor) -> Tensor:
    """log1p(−min(p, 1 − 1e-7)), whose bound float32 rounds to 1 − 1.19e-7: TRL `_compute_divergence_mask`."""
    logp, logq = logp.float(), logq.float()
    p, q = logp.exp(), logq.exp()
    rest = (-p.clamp(max=1 - 1e-7)).log1p() - (-q.clamp(max=1 - 1e-7)).log1p()
    return (p * (logp - logq) + (1.0 - p) * rest).double()


def _clamped(logp: Tensor, logq: Tensor) -> Tensor:
    """Log-probs in [−30, 0], probabilities in [1e-6, 1 − 1e-6]: open-instruct #1745 `compute_binary_divergence`."""
    p, q = (logs.float().clamp(-30.0, 0.0).exp().clamp(1e-6, 1.0 - 1e-6) for logs in (logp, logq))
    return (p * (p.log() - q.log()) + (1.0 - p) * ((-p).log1p() - (-q).log1p())).double()


def _clamped_float64(logp: Tensor, logq: Tensor) -> Tensor:
    """Float64, probabilities in [2.2e-16, 1 − 2.2e-16], KL at least 0: open-instruct #1790."""
    eps = 2.0**-52
    p, q = (logs.double().clamp(max=0.0).exp().clamp(eps, 1.0 - eps) for logs in (logp, logq))
    return (p * (p.log() - q.log()) + (1.0 - p) * ((-p).log1p() - (-q).log1p())).clamp(min=0.0)


def _clamped_ratio(logp: Tensor, logq: Tensor) -> Tensor:
    """Probabilities in [1e-6, 1 − 1e-6], logs of quotients: rllm `dppo_kl`."""
    p, q = (logs.float().exp().clamp(1e-6, 1.0 - 1e-6) for logs in (logp, logq))
    return (p * (p / q).log() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).log()).double()


PROFILES: dict[str, Profile] = {
    "exact": Profile(binary_kl),
    "stable-rl": Profile(_added, "negative"),  # its mask; its clip rates leave A = 0 out
    "verl": Profile(_added, "negative"),  # and counts those tokens in pg_clipfrac
    "skyrl": Profile(_added),
    "prime-rl": Profile(binary_kl, "negative"),  # TV only; `is_masked`, while `is_masked_low` needs A < 0
    "trl": Profile(_log1p, "negative"),
    "open-instruct": Profile(_clamped),
    "open-instruct-1790": Profile(_clamped_float64),
    "rllm": Profile(_clamped_ratio, "negative"),
    "slime": Profile(_floored, "negative"),
}
"""By the name of the trainer; `exact` is float64 from the log-probs, and keeps A = 0."""
