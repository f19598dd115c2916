"""Every loss beside its formula, written for one token at a time in plain float64 autograd.

A case calls the loss on a batch, and states the loss of response `i` as a sum over its counted tokens, with what the
papers detach detached. Nothing is shared with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dppo_core import losses
from dppo_core.losses import PolicyLoss


@dataclass(frozen=True)
class Batch:
    """B responses of up to T tokens. Padding holds finite numbers here; `poisoned` puts NaN there."""

    logp: Tensor
    logp_old: Tensor
    logp_rollout: Tensor
    advantage: Tensor
    response_mask: Tensor
    reward: Tensor
    group: Tensor
    divergence: Tensor

    def counted(self, i: int) -> list[int]:
        return [t for t in range(self.response_mask.shape[1]) if self.response_mask[i, t] == 1]


def random_batch(seed: int, b: int = 6, t: int = 9) -> Batch:
    """Log-probs far enough apart that every mask drops something; A = 0 tokens; holes; one response without tokens."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    logp_rollout = torch.log(0.02 + 0.95 * uniform(b, t))
    logp_old = torch.log((logp_rollout.exp() * (0.8 + 0.4 * uniform(b, t))).clamp(0.01, 0.98))
    logp = torch.log((logp_old.exp() * (0.3 + 1.6 * uniform(b, t))).clamp(0.005, 0.99))
    advantage = 2.0 * uniform(b, 1).expand(b, t) - 1.0 + 0.2 * uniform(b, t)
    advantage = torch.where(uniform(b, t) < 0.1, 0.0, advantage)
    response_mask = (uniform(b, t) < 0.8).long()
    response_mask[1] = 0
    response_mask[2, :] = torch.tensor([1] + [0] * (t - 1))
    reward = (uniform(b) * 3).round()
    return Batch(
        logp, logp_old, logp_rollout, advantage, response_mask, reward, torch.arange(b) // 3, 0.4 * uniform(b, t)
    )


Plain = Callable[[Batch, Tensor, int], Tensor]
"""(batch, log π of response i as a leaf [T], i) → Σ over its counted tokens of the loss."""


@dataclass(frozen=True)
class Case:
    name: str
    call: Callable[..., PolicyLoss]
    plain: Plain
    aggregation: str = "token-mean"


def _plain_ppo(anchor: str, low: float, high: float, c: float | None) -> Plain:
    def plain(batch: Batch, logp: Tensor, i: int) -> Tensor:
        total = logp.new_zeros(())
        for t in batch.counted(i):
            a = batch.advantage[i, t]
            r = torch.exp(logp[t] - getattr(batch, anchor)[i, t])
            clipped = r.clamp(1 - low, 1 + high)
            loss = torch.max(-r * a, -clipped * a)
            if c is not None and a < 0:
                loss = torch.min(loss, -c * a)
            total = total + loss
        return total

    return plain


def _plain_score(weight: Callable[[Batch, Tensor, int, int], Tensor]) -> Plain:
    """−sg(weight)·A·log π."""

    def plain(batch: Batch, logp: Tensor, i: int) -> Tensor:
        total = logp.new_zeros(())
        for t in batch.counted(i):
            total = total - weight(batch, logp.detach(), i, t) * batch.advantage[i, t] * logp[t]
        return total

    return plain


def _plain_per_token(loss: Callable[[Batch, Tensor, int, int], Tensor]) -> Plain:
    """A differentiable loss of each token, the graph through everything."""

    def plain(batch: Batch, logp: Tensor, i: int) -> Tensor:
        return sum((loss(batch, logp[t], i, t) for t in batch.counted(i)), logp.new_zeros(()))

    return plain


def _ratio(batch: Batch, logp: Tensor, i: int, t: int, anchor: str = "logp_rollout") -> Tensor:
    return torch.exp(logp[t]) / torch.exp(getattr(batch, anchor)[i, t])


def _capped(batch: Batch, logp: Tensor, i: int, t: int, cap: float) -> Tensor:
    r = _ratio(batch, logp, i, t)
    return r if r < cap else torch.tensor(cap, dtype=torch.float64)


def _minirl(cap: float) -> Callable[[Batch, Tensor, int, int], Tensor]:
    def weight(batch: Batch, logp: Tensor, i: int, t: int) -> Tensor:
        r, a = _ratio(batch, logp, i, t, "logp_old"), batch.advantage[i, t]
        dropped = (a > 0 and r > 1.28) or (a < 0 and r < 0.8)
        return torch.zeros(()) if dropped else _capped(batch, logp, i, t, cap)

    return weight


def _dppo(
    divergence: Callable[[Batch, Tensor, int, int], float], anchor: str, low: float, high: float, cap: float, over: str
) -> Callable[[Batch, Tensor, int, int], Tensor]:
    def weight(batch: Batch, logp: Tensor, i: int, t: int) -> Tensor:
        r, a, d = _ratio(batch, logp, i, t, anchor), batch.advantage[i, t], divergence(batch, logp, i, t)
        if (a > 0 and r > 1 and d > high) or (a < 0 and r < 1 and d > low):
            return torch.zeros(())
        w = _ratio(batch, logp, i, t, over)
        return w if w < cap else torch.tensor(cap, dtype=torch.float64)

    return weight


def _tv(anchor: str) -> Callable[[Batch, Tensor, int, int], float]:
    return lambda batch, logp, i, t: abs(float(logp[t].exp() - getattr(batch, anchor)[i, t].exp()))


def _kl(anchor: str) -> Callable[[Batch, Tensor, int, int], float]:
    def divergence(batch: Batch, logp: Tensor, i: int, t: int) -> float:
        p, q = getattr(batch, anchor)[i, t].exp(), logp[t].exp()
        return float(p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q)))

    return divergence


def _given(batch: Batch, logp: Tensor, i: int, t: int) -> float:
    return float(batch.divergence[i, t])


def _cispo(low: float | None, high: float) -> Callable[[Batch, Tensor, int, int], Tensor]:
    def weight(batch: Batch, logp: Tensor, i: int, t: int) -> Tensor:
        r = float(_ratio(batch, logp, i, t, "logp_old"))
        return torch.tensor(min(max(r, 0.0 if low is None else 1 - low), 1 + high), dtype=torch.float64)

    return weight


def _plain_gspo(batch: Batch, logp: Tensor, i: int) -> Tensor:
    """The response's own objective: Σ_t here is n·(its loss), so that seq-mean-token-mean divides by n again."""
    places = batch.counted(i)
    if not places:
        return logp.new_zeros(())
    s = torch.exp(sum(logp[t] - batch.logp_old[i, t] for t in places) / len(places))
    a = batch.advantage[i, places[0]]
    return len(places) * torch.max(-s * a, -s.clamp(1 - 0.05, 1 + 0.08) * a)


def _plain_cppo(batch: Batch, logp: Tensor, i: int) -> Tensor:
    places, total = batch.counted(i), logp.new_zeros(())
    now = logp.detach()
    d = {t: abs(float(now[t].exp() - batch.logp_rollout[i, t].exp())) for t in places}
    n, spent, weights = len(places), 0.0, 0.0
    if not n:
        return total
    ordered = sorted(d.values())
    at = 0.9 * (n - 1)
    below = ordered[int(at)]
    budget = below + (at - int(at)) * (ordered[min(int(at) + 1, n - 1)] - below)
    budget = min(max(budget, 0.02), 0.04)
    for place, t in enumerate(places, start=1):
        w = 1.0 if n == 1 else 1 - (1 - 0.8) * (place - 1) / (n - 1)
        a, r = batch.advantage[i, t], _ratio(batch, now, i, t)
        limit = min(0.15, 0.15 + budget * weights - spent)
        if a * (r - 1) <= 0 or w * d[t] <= limit:
            total = total - r * a * logp[t]
        spent, weights = spent + w * d[t], weights + w
    return total


def _plain_sapo(batch: Batch, logp_t: Tensor, i: int, t: int) -> Tensor:
    a = batch.advantage[i, t]
    tau = 1.0 if a > 0 else 1.05
    return -(4 / tau) / (1 + torch.exp(-tau * (torch.exp(logp_t - batch.logp_old[i, t]) - 1))) * a


def _plain_drpo(batch: Batch, logp_t: Tensor, i: int, t: int) -> Tensor:
    a, mu = batch.advantage[i, t], batch.logp_rollout[i, t].exp()
    r = logp_t.exp() / mu
    return -r * a + a.abs() * mu * (r - 1) ** 2 / (2 * 0.15)


def _gbpo_numbers(batch: Batch, i: int) -> tuple[float, float]:
    rewards = sorted(float(r) for r, g in zip(batch.reward, batch.group, strict=True) if g == batch.group[i])
    n, mean = len(rewards), sum(rewards) / len(rewards)
    scale = (sum((r - mean) ** 2 for r in rewards) / (n - 1)) ** 0.5 + 1e-6
    median = rewards[n // 2]  # groups of three
    own = float(batch.reward[i])
    target = 1 - 0.2 + 0.4 / (1 + 2.718281828459045 ** (-(own - median) / scale))
    return target, (own - mean) / scale


def _plain_gbpo(batch: Batch, logp_t: Tensor, i: int, t: int) -> Tensor:
    target, advantage = _gbpo_numbers(batch, i)
    return (torch.exp(logp_t - batch.logp_old[i, t]) - target).abs() * abs(advantage)


def _call(function: Callable[..., PolicyLoss], *names: str, **options: Any) -> Callable[..., PolicyLoss]:
    """The loss on (logp, the named inputs, advantage, response_mask); `D` in options is the batch's divergence."""

    def call(batch: Batch, logp: Tensor, **more: Any) -> PolicyLoss:
        chosen = {
            key: getattr(batch, value[1:]) if str(value).startswith("@") else value for key, value in options.items()
        }
        inputs = [getattr(batch, name) for name in names]
        return function(logp, *inputs, batch.advantage, batch.response_mask, **chosen, **more)

    return call


def _call_gbpo(batch: Batch, logp: Tensor, **more: Any) -> PolicyLoss:
    target, advantage = losses.gbpo_target(batch.reward, batch.group)
    return losses.gbpo_loss(logp, batch.logp_old, target, advantage, batch.response_mask, **more)


_NO_CAP = float("inf")
_ROLLOUT, _OLD = "logp_rollout", "logp_old"

CASES = [
    Case("ppo_rollout", _call(losses.ppo_loss, _ROLLOUT), _plain_ppo(_ROLLOUT, 0.2, 0.28, None)),
    Case("ppo_old", _call(losses.ppo_loss, _OLD, eps_high=0.2), _plain_ppo(_OLD, 0.2, 0.2, None)),
    Case("ppo_dual_clip", _call(losses.ppo_loss, _OLD, dual_clip=1.5), _plain_ppo(_OLD, 0.2, 0.28, 1.5)),
    Case("minirl", _call(losses.minirl_loss, _OLD, _ROLLOUT), _plain_score(_minirl(_NO_CAP))),
    Case("minirl_tis", _call(losses.minirl_loss, _OLD, _ROLLOUT, weight_cap=1.2), _plain_score(_minirl(1.2))),
    Case(
        "gspo",
        _call(losses.gspo_loss, _OLD, eps_low=0.05, eps_high=0.08),
        _plain_gspo,
        aggregation="seq-mean-token-mean",
    ),
    Case("pg_is", _call(losses.pg_is_loss, _ROLLOUT), _plain_score(_ratio)),
    Case(
        "pg_tis",
        _call(losses.pg_tis_loss, _ROLLOUT, weight_cap=1.3),
        _plain_score(lambda batch, logp, i, t: _capped(batch, logp, i, t, 1.3)),
    ),
    Case("cispo", _call(losses.cispo_loss, _OLD), _plain_score(_cispo(None, 0.2))),
    Case("cispo_both", _call(losses.cispo_loss, _OLD, eps_low=0.2, eps_high=0.28), _plain_score(_cispo(0.2, 0.28))),
    Case(
        "dppo_binary_tv",
        _call(losses.dppo_loss, _ROLLOUT),
        _plain_score(_dppo(_tv(_ROLLOUT), _ROLLOUT, 0.15, 0.15, _NO_CAP, _ROLLOUT)),
    ),
    Case(
        "dppo_binary_kl",
        _call(losses.dppo_loss, _ROLLOUT, divergence="binary_kl", delta_low=0.05, delta_high=0.08, weight_cap=1.4),
        _plain_score(_dppo(_kl(_ROLLOUT), _ROLLOUT, 0.05, 0.08, 1.4, _ROLLOUT)),
    ),
    Case(
        "dppo_binary_tv_verl",
        _call(losses.dppo_loss, _OLD, weight_cap=1.1),
        _plain_score(_dppo(_tv(_OLD), _OLD, 0.15, 0.15, 1.1, _OLD)),
    ),
    Case(
        "dppo_binary_kl_recompute",
        _call(
            losses.dppo_loss, _OLD, divergence="binary_kl", delta_low=0.05, delta_high=0.05, logp_weight="@logp_rollout"
        ),
        _plain_score(_dppo(_kl(_OLD), _OLD, 0.05, 0.05, _NO_CAP, _ROLLOUT)),
    ),
    Case(
        "dppo_given_divergence",  # top-K and exact divergences come as a tensor
        _call(losses.dppo_loss, _ROLLOUT, divergence="@divergence", delta_low=0.1, delta_high=0.2, weight_cap=5.0),
        _plain_score(_dppo(_given, _ROLLOUT, 0.1, 0.2, 5.0, _ROLLOUT)),
    ),
    Case("cppo", _call(losses.cppo_loss, _ROLLOUT), _plain_cppo),
    Case("sapo", _call(losses.sapo_loss, _OLD), _plain_per_token(_plain_sapo), aggregation="seq-mean-token-mean"),
    Case("drpo", _call(losses.drpo_loss, _ROLLOUT), _plain_per_token(_plain_drpo)),
    Case("gbpo", _call_gbpo, _plain_per_token(_plain_gbpo)),
]
