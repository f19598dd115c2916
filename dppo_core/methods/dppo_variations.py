"""Variations of DPPO: masked and weighed from different policies, prime-rl's losses, the predictive mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_dppo, keep_unless, truncated_ratio
from dppo_core.methods.dppo import DELTA, FORMULA, RULE, decide, thresholds
from dppo_core.methods.registry import method
from dppo_core.profiles import PROFILES

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.masks import Decision
    from dppo_core.tokens import TokenArrays

__all__: list[str] = []


def _register_recompute(metric: str) -> None:
    delta = DELTA[metric]

    def recompute(
        tokens: TokenArrays,
        *,
        delta_low: float = delta,
        delta_high: float = delta,
        weight_cap: float | None = None,
        profile: str = "exact",
    ) -> tuple[Tensor, Tensor]:
        decision = decide(tokens, (metric, "binary", "old"), delta_low, delta_high, profile)
        return coefficients(decision, truncated_ratio(tokens.log_ratio("rollout"), weight_cap), tokens.advantage)

    formula, equation = FORMULA["binary", metric]
    recompute.__doc__ = RULE.format(r="r′", divergence=formula.format(p="π_old"), weight="min(r, C)")
    method(
        f"dppo_recompute_binary_{metric}",
        f"DPPO-recompute Binary {metric.upper()}: mask from π_old, weight from μ",
        source=f"arXiv:2602.04879 §5.2, Eq. 12, {equation}; Stable-RL `dppo_binary_{metric}_recompute`",
        status="read",
        needs=("logp_rollout", "logp_old", "logp_new"),
        variants={"stable-rl": thresholds(0.2, 3.0, "stable-rl")},
    )(recompute)


def _register_rho(metric: str) -> None:
    delta = DELTA[metric]

    def rho(
        tokens: TokenArrays,
        *,
        delta_low: float = delta,
        delta_high: float = delta,
        rho_cap: float | None = 2.0,
        profile: str = "open-instruct",
    ) -> tuple[Tensor, Tensor]:
        decision = decide(tokens, (metric, "binary", "rollout"), delta_low, delta_high, profile)
        weight = truncated_ratio(tokens.log_mismatch, rho_cap) * truncated_ratio(tokens.log_ratio("old"))
        return coefficients(decision, weight, tokens.advantage)

    launched = 0.2 if metric == "tv" else 0.05  # the flag has no default; this is what the launch scripts set
    formula, equation = FORMULA["binary", metric]
    rho.__doc__ = RULE.format(r="r", divergence=formula.format(p="μ"), weight="min(ρ, C)·r′")
    method(
        f"dppo_rho_binary_{metric}",
        f"DPPO Binary {metric.upper()} from μ, with the mismatch ratio clamped",
        source=f"open-instruct #1755 `compute_rho_correction`; arXiv:2602.04879 Eq. 12, {equation}",
        status="read",
        needs=("logp_rollout", "logp_old", "logp_new"),
        variants={"open-instruct": {"delta_low": launched, "delta_high": launched}},
    )(rho)


for _metric in ("tv", "kl"):
    _register_recompute(_metric)
for _metric in ("tv", "kl"):
    _register_rho(_metric)


@method(
    "prime_rl",
    "prime-rl's default loss",
    source="prime-rl `default_loss_fn`; arXiv:2602.04879 Eq. 12, 13; arXiv:2602.02276",
    status="read",
    needs=("logp_rollout", "logp_new"),
    variants={"prime-rl": {"profile": "prime-rl"}, "mask-only": {"kl_tau": 0.0}},
)
def prime_rl(
    tokens: TokenArrays,
    *,
    delta_low: float = 0.2,
    delta_high: float = 0.2,
    kl_tau: float = 1e-3,
    profile: str = "exact",
) -> tuple[Tensor, Tensor]:
    """DPPO Binary TV from μ without a cap, and a pull toward μ on every token, dropped and A = 0 ones too:
    coef = keep·r·A − 2·τ·log r, so keep is the mask and not the sign of coef·A."""
    decision = decide(tokens, ("tv", "binary", "rollout"), delta_low, delta_high, profile)
    return _pulled(tokens, decision, kl_tau)


@method(
    "ipo",
    "prime-rl's IPO",
    source="prime-rl `ipo_loss_fn`",
    status="read",
    needs=("logp_rollout", "logp_new"),
    variants={"prime-rl": {"profile": "prime-rl"}, "mask-only": {"kl_tau": 0.0}},
)
def ipo(
    tokens: TokenArrays, *, delta: float = 0.1, kl_tau: float = 1e-3, profile: str = "exact"
) -> tuple[Tensor, Tensor]:
    """Drop iff |π(a) − μ(a)| > δ, in either direction; coef = keep·r·A − 2·τ·log r on every token, so keep is the mask
    and not the sign of coef·A."""
    moved = tokens.divergence("tv", "binary", "rollout")
    outside = moved > delta
    if PROFILES[profile].zero_advantage == "keep":
        outside = outside & (tokens.advantage != 0)
    return _pulled(tokens, keep_unless(outside, moved, tokens.advantage), kl_tau)


def _pulled(tokens: TokenArrays, decision: Decision, kl_tau: float) -> tuple[Tensor, Tensor]:
    log_ratio = tokens.log_ratio("rollout")
    coef, keep = coefficients(decision, truncated_ratio(log_ratio), tokens.advantage)
    return coef - 2.0 * kl_tau * log_ratio, keep


@method(
    "pdm",
    "Predictive divergence mask",
    source="arXiv:2607.10848; dot D derived here: d/dη KL(μ‖π) along ∇log π(a) is (π − μ)·(e_a − π)",
    status="derived",
    needs=("logp_rollout", "logp_new", "topk_lists", "kl_topk_rollout"),
    variants={"slime": {"weight_cap": 5.0}},  # a fork's `dppo_predictive_topk`; its δ has no default
)
def pdm(
    tokens: TokenArrays,
    *,
    delta_low: float = 0.05,
    delta_high: float = 0.05,
    weight_cap: float | None = None,
    tail: str = "aggregated",
) -> tuple[Tensor, Tensor]:
    """Drop iff D > δ and A·Ḋ > 0: D = KL(μ‖π) over the top-K of μ, a and one bucket for the rest, and
    Ḋ = (π(a) − μ(a)) + Σ π_i(μ_i − π_i), how D moves with log π(a); coef = keep·min(r, C)·A.

    The sum runs over the lists of `TopKLists` and, with `tail="aggregated"`, over the rest as one token; `"none"`
    leaves the rest out, as an even spread of it over a large vocabulary does.
    """
    if tail not in ("aggregated", "none"):
        raise ValueError(f"tail is {tail!r}, not aggregated or none")
    lists, advantage = tokens.topk_lists, tokens.advantage
    assert lists is not None
    used = ~lists.logp_anchor.isnan()
    mu, pi = (logp.double().exp().masked_fill(~used, 0.0) for logp in (lists.logp_anchor, lists.logp_new))
    moves = tokens.log_ratio("rollout")
    sampled = tokens.divergence("tv", "binary", "rollout") * moves.sign()
    slope = sampled + (pi * (mu - pi)).sum(1)
    if tail == "aggregated":
        rest_mu, rest_pi = ((1.0 - mass.sum(1)).clamp(min=0.0) for mass in (mu, pi))
        slope = slope + rest_pi * (rest_mu - rest_pi)
    # the rule of DPPO, with the slope of D as the direction
    decision = keep_dppo(tokens.divergence("kl", "topk", "rollout"), slope, advantage, delta_low, delta_high)
    return coefficients(decision, truncated_ratio(moves, weight_cap), advantage)
