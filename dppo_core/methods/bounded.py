"""Divergence with a budget over the prefix (CPPO), and a target for the ratio instead of a mask (GBPO, BPO)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dppo_core.masks import coefficients, keep_unless, truncated_ratio
from dppo_core.methods.registry import Parameter, method

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__: list[str] = []


def _cppo_needs(estimate: str, **_: Parameter) -> tuple[str, ...]:
    both = ("logp_rollout", "logp_new")
    return (*both, f"tv_{estimate}_rollout") if estimate in ("topk", "exact") else both


@method(
    "cppo",
    "CPPO",
    source="arXiv:2606.10968 Eq. 8-10, 22, Table 3",
    status="read",
    level="sequence",
    needs=_cppo_needs,
    variants={
        "qwen3-1.7b": {"delta": 0.15, "budget": 0.015, "estimate": "topk"},  # post-trained: the budget is fixed
        "dense-base": {"delta": 0.15, "estimate": "topk"},
        "qwen3-30b-a3b-base": {"delta": 0.2, "estimate": "topk"},
        "verl": {"delta": 0.2, "horizon": 16384, "weight_cap": 20.0},  # PR 6731; T is the padded length
        "unirl": {"delta": 0.2},
    },
)
def cppo(
    tokens: TokenArrays,
    *,
    delta: float = 0.15,
    w_min: float = 0.8,
    budget: float | None = None,
    budget_min: float = 0.02,
    budget_max: float = 0.04,
    quantile: float = 0.9,
    horizon: int | None = None,
    estimate: str = "binary",
    weight_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """D = TV(μ, π), w_t = 1 − (1−w_min)(t−1)/(T−1), Z = wD; drop iff A(r−1) > 0 and Z > min(δ, δ + δ_b·W − S), where
    W and S sum w and Z over the response's earlier tokens, δ_b = clamp(P90(D), .02, .04); coef = keep·r·A.

    budget: a fixed δ_b; none for the clamped quantile of the response's D. horizon: a fixed T, none for the
    response's length; a response of one token has w = 1. estimate: `binary`, or `topk` as in the paper's main runs.
    """
    if estimate not in ("binary", "topk", "exact"):
        raise ValueError(f"estimate is {estimate!r}, not binary, topk or exact")
    log_ratio, a = tokens.log_ratio("rollout"), tokens.advantage
    divergence = tokens.divergence("tv", estimate, "rollout")
    length = tokens.to_tokens(tokens.lengths()).double()
    steps = (length if horizon is None else length * 0.0 + horizon) - 1.0
    weight = 1.0 - (1.0 - w_min) * tokens.positions() / steps.clamp(min=1.0)
    spent = weight * divergence
    allowed: Tensor | float = (
        tokens.to_tokens(_quantile(divergence, tokens.sequence, tokens.lengths(), quantile)).clamp(
            budget_min, budget_max
        )
        if budget is None
        else budget
    )
    slack = (allowed * tokens.before(weight) - tokens.before(spent)).clamp(max=0.0)
    kept = keep_unless((a * log_ratio > 0) & (spent > delta + slack), spent, slack, log_ratio)
    return coefficients(kept, truncated_ratio(log_ratio, weight_cap), a)


@method(
    "gbpo",
    "GBPO / BPO, bounded ratio",
    source="arXiv:2604.18578; bounded_ratio_rl `compute_policy_loss_gbpo`, `compute_gbpo_outcome_advantage`",
    status="read",
    level="prompt",
    needs=("logp_old", "logp_new", "group", "reward"),
    variants={
        "yaml": {},
        "readme": {"eps_low": 0.3, "eps_high": 0.3, "temperature": 1e-4},
        "math.sh": {"eps_low": 0.2, "eps_high": 0.2, "temperature": 1e-4},
    },
)
def gbpo(
    tokens: TokenArrays, *, eps_low: float = 0.2, eps_high: float = 0.2, temperature: float = 1.0, scale: str = "std"
) -> Tensor:
    """No mask: r′ is pulled to r* = 1−ε_low + (ε_low+ε_high)·σ((R − median)/(λs));
    coef = −sign(r′ − r*)·r′·|R − mean|/s.

    Mean, median and s (n−1, plus 1e-6) are over the rewards of the prompt's responses; scale `none` is s = 1. The
    loss is |r′ − r*|·|A| with this A, not the log's. Past its target coef turns against A. A prompt with one response
    has mean and median 0 and s = 1, as in its code.
    """
    if scale not in ("std", "none"):
        raise ValueError(f"scale is {scale!r}, not std or none")
    assert tokens.reward is not None
    reward, groups = tokens.reward.double(), tokens.groups()
    size = groups.bincount()
    alone = (size == 1)[groups]
    mean = tokens.per_group(reward)[groups].masked_fill(alone, 0.0)
    median = _quantile(reward, groups, size, 0.5)[groups].masked_fill(alone, 0.0)
    spread = reward.new_ones(reward.shape)
    if scale == "std":
        squares = tokens.per_group((reward - mean).square(), "sum") / (size - 1).clamp(min=1)
        spread = squares.sqrt()[groups].masked_fill(alone, 1.0) + 1e-6
    target = 1.0 - eps_low + (eps_low + eps_high) * ((reward - median) / (spread * temperature)).sigmoid()
    ratio = tokens.log_ratio("old").exp()
    pull = (tokens.to_tokens(target) - ratio).sign()
    return pull * ratio * tokens.to_tokens(((reward - mean) / spread).abs())


def _quantile(values: Tensor, index: Tensor, size: Tensor, q: float) -> Tensor:
    """[N], the part of each, the size of each part [P] → [P]: the q-quantile, linear between the two nearest values
    (so q = .5 is the mean of the middle two), NaN for an empty part or one with NaN."""
    if not len(values):
        return values.new_full(size.shape, float("nan")).double()
    order = values.argsort(stable=True)
    order = order[index[order].argsort(stable=True)]
    ordered = values.double()[order]
    place = q * (size - 1).clamp(min=0)
    start = (size.cumsum(0) - size).clamp(max=len(values) - 1)
    below, above = ordered[start + place.floor().long()], ordered[start + place.ceil().long()]
    last = ordered[(start + size - 1).clamp(min=0)]  # NaN sorts last
    result: Tensor = below + (above - below) * (place - place.floor()) + last * 0.0
    return result.masked_fill(size == 0, float("nan"))
