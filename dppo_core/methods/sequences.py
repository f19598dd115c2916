"""One ratio for a whole response: GSPO, GMPO, VESPO, and two that reach beyond the token in another way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_ppo, keep_unless, truncated_ratio
from dppo_core.methods.registry import Parameter, method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []

_PAPER: dict[str, Parameter] = {"eps_low": 3e-4, "eps_high": 4e-4}
_PLAIN: dict[str, Parameter] = {"eps_low": 0.2, "eps_high": 0.2}


@method(
    "gspo",
    "GSPO",
    source="arXiv:2507.18071 Eq. 5 and 7; AReaL `_compute_sequence_level_ratio_and_advantages`",
    status="read",
    level="sequence",
    needs=("logp_old", "logp_new"),
    variants={
        "verl": _PAPER,  # its example; clip_ratio .2 where nothing is set
        "trl": _PAPER,  # importance_sampling_level="sequence", as its paper index says
        "areal": {**_PLAIN, "advantage": "response"},
        "nemo-rl": _PLAIN,
        "skyrl": _PLAIN,
        "slime": _PLAIN,
    },
)
def gspo(
    tokens: TokenArrays, *, eps_low: float = 3e-4, eps_high: float = 4e-4, advantage: str = "token"
) -> tuple[Tensor, Tensor]:
    """s = exp(mean_t log r′); drop iff (A > 0 and s > 1+ε_high) or (A < 0 and s < 1−ε_low); coef = keep·s·A.

    coef is the token's share of its response's mean (AReaL sums over tokens). advantage: `token`, each token's own A
    (GSPO-token), or `response`, its mean over the response (AReaL), the same where A is one number per response.
    """
    if advantage not in ("token", "response"):
        raise ValueError(f"advantage is {advantage!r}, not token or response")
    a = tokens.advantage if advantage == "token" else tokens.to_tokens(tokens.per_sequence(tokens.advantage))
    log_s = tokens.to_tokens(tokens.per_sequence(tokens.log_ratio("old")))
    return coefficients(keep_ppo(log_s, a, eps_low, eps_high), truncated_ratio(log_s), a)


@method(
    "gmpo",
    "GMPO",
    source="arXiv:2507.20673; verl `compute_policy_loss_geo_mean`",
    status="read",
    level="sequence",
    needs=("logp_old", "logp_new"),
    variants={"verl": {"clip_low": 0.4, "clip_high": 0.4}},
)
def gmpo(tokens: TokenArrays, *, clip_low: float = 0.4, clip_high: float = 0.4) -> tuple[Tensor, Tensor]:
    """Drop iff (A > 0 and log r′ > clip_high) or (A < 0 and log r′ < −clip_low); coef = keep·exp(mean_t of the log r′
    so clipped)·A.

    A is its mean over the response, and coef the token's share of the response's mean. Where A = 0, log r′ counts as
    0 in the mean (verl).
    """
    log_ratio, a = tokens.log_ratio("old"), tokens.advantage
    clipped = log_ratio.clamp(max=clip_high).where(a > 0, log_ratio.clamp(min=-clip_low)).where(a != 0, log_ratio * 0.0)
    ratio = tokens.to_tokens(tokens.per_sequence(clipped)).exp()
    dropped = ((a > 0) & (log_ratio > clip_high)) | ((a < 0) & (log_ratio < -clip_low))
    return coefficients(
        keep_unless(dropped, log_ratio, a), ratio, tokens.to_tokens(tokens.per_sequence(tokens.advantage))
    )


def _vespo_needs(correction: str, **_: Parameter) -> tuple[str, ...]:
    return ("logp_old", "logp_new") if correction == "none" else ("logp_rollout", "logp_old", "logp_new")


@method(
    "vespo",
    "VESPO",
    source="arXiv:2602.10693; FloyedShen/VESPO `compute_policy_loss_vespo`; TRL `get_gamma_weights`",
    status="read",
    level="sequence",
    needs=_vespo_needs,
    variants={"trl": {}, "trl-vllm": {"correction": "token", "cap": 3.0}},  # vllm_importance_sampling_clip_max
)
def vespo(
    tokens: TokenArrays,
    *,
    k_pos: float = 2.0,
    lambda_pos: float = 3.0,
    k_neg: float = 3.0,
    lambda_neg: float = 2.0,
    correction: str = "none",
    cap: float | None = None,
) -> Tensor:
    """w = ∏ r′; nothing is dropped; coef = φ(w)·A with φ(w) = exp(λ + k·log w − λw), (k, λ) by the sign of A.

    correction: `token` multiplies min(ρ, C) into w for each token. As in both implementations, log r′ is bounded to
    ±20, log min(ρ, C) and log w to [log 1e-8, 20].
    """
    if correction not in ("none", "token"):
        raise ValueError(f"correction is {correction!r}, not none or token")
    floor = math.log(1e-8)
    log_ratio = tokens.log_ratio("old").clamp(-20.0, 20.0)
    if correction == "token":
        log_cap = math.inf if cap is None else math.log(cap)
        log_ratio = log_ratio + tokens.log_mismatch.clamp(max=log_cap).clamp(floor, 20.0)
    log_w = tokens.to_tokens(tokens.per_sequence(log_ratio, "sum")).clamp(floor, 20.0)
    positive = tokens.advantage >= 0
    phi_pos = (lambda_pos + k_pos * log_w - lambda_pos * log_w.exp()).exp()
    phi_neg = (lambda_neg + k_neg * log_w - lambda_neg * log_w.exp()).exp()
    return phi_pos.where(positive, phi_neg) * tokens.advantage


@method(
    "nfpo",
    "NFPO, N-step forward trace",
    source="arXiv:2605.20865, abstract",
    status="unverified",
    level="sequence",
    needs=("logp_rollout", "logp_new"),
)
def nfpo(tokens: TokenArrays, *, n: int | None = 2) -> Tensor:
    """w = r·∏ of the next N−1 tokens' r in the response: N = 1 is the PPO surrogate's weight, N = none runs to the
    response's end and is exact; coef = w·A.

    Only the abstract is known: N's default, the anchor and the mask of its "masked policy gradient" are not.
    """
    if n is not None and n < 1:
        raise ValueError(f"n is {n}, not at least 1")
    log_ratio, place = tokens.log_ratio("rollout"), tokens.positions()
    before = tokens.before(log_ratio)
    through = before + log_ratio
    left = tokens.to_tokens(tokens.lengths()) - 1 - place  # tokens after this one
    reach = left if n is None else left.clamp(max=n - 1)
    last = place.new_ones(place.shape).cumsum(0) - 1 + reach
    return (through[last] - before).exp() * tokens.advantage


@method(
    "decoupled_ppo_proximal",
    "Decoupled PPO with a third, proximal policy",
    source="arXiv:2605.12070 (missing old logits, from notes); arXiv:2110.00641 (decoupled objective, PPO-EWMA)",
    status="secondary",
    needs=("logp_rollout", "logp_new", "logp_proximal"),
    variants={"ppo-ewma": {"band": None}},
)
def decoupled_ppo_proximal(
    tokens: TokenArrays,
    *,
    band: float | None = 2.0,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Drop iff π_prox/μ leaves [1/c, c], or PPO drops on π/π_prox; coef = keep·(π_prox/μ)·(π/π_prox)·A = keep·r·A.

    π_prox is an exponentially weighted average of checkpoints, β ≈ W/(W+2) for a staleness of W versions, reset to
    the newest one when fewer than .9 of the tokens are kept; its log-probs are an input. c: no published number is
    known, 2 is ours; none for Hilton et al.'s objective without a band.
    """
    assert tokens.logp_proximal is not None
    assert tokens.logp_rollout is not None
    assert tokens.logp_new is not None
    proximal = tokens.logp_proximal.double()
    discrepancy = proximal - tokens.logp_rollout.double()
    log_c = math.inf if band is None else math.log(band)
    inside = keep_unless((discrepancy.abs() > log_c) & (tokens.advantage != 0), discrepancy)
    clipped = keep_ppo(tokens.logp_new.double() - proximal, tokens.advantage, eps_low, eps_high, dual_clip)
    return coefficients(inside & clipped, truncated_ratio(tokens.log_ratio("rollout")), tokens.advantage)
