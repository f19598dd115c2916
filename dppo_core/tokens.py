"""What a log knows about N response tokens: the inputs of every method, in float64, NaN = not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dppo_core.divergence import binary_tv
from dppo_core.profiles import PROFILES

__all__ = ["INPUTS", "TokenArrays", "TopKLists"]

INPUTS: dict[str, str] = {
    "logp_rollout": "the log has no rollout log-probs",
    "logp_old": "the old policy was not scored or logged",
    "logp_new": "the new policy was not scored or logged",
    "logp_proximal": "a third, proximal policy (an EWMA of checkpoints) was not scored",
    "entropy": "the entropy of the old policy is not known",
    "group": "which responses share a prompt is not known",
    "reward": "the log has no rewards",
    "topk_lists": "the top-K log-probs of both policies are not stored",
    **{
        f"{metric}_{estimate}_{anchor}": reason
        for metric in ("tv", "kl")
        for estimate, anchor, reason in (
            ("topk", "rollout", "the log has no usable top-K lists of the rollout policy"),
            ("topk", "old", "top-K divergences of old → new need both checkpoints to be scored"),
            (
                "exact",
                "rollout",
                "the rollout policy's full distribution is not logged, so no exact divergence from it",
            ),
            ("exact", "old", "exact divergences of old → new need both checkpoints to be scored"),
        )
    },
}
"""Every input that a method may need, and what to say where it is missing."""


@dataclass(frozen=True)
class TopKLists:
    """Log-probs [N, M] of the anchor and of π on a support, best first, NaN where a place is not used."""

    logp_anchor: Tensor
    logp_new: Tensor


@dataclass(frozen=True)
class TokenArrays:
    """N counted tokens of S responses, each response's tokens together and in order. π is `new`, at the evaluation
    point.

    advantage [N]; sequence [N] int64: the response 0 … S−1 of each token, never decreasing; logp_* [N] nats;
    entropy [N] nats; group [S] int64, the prompt of each response; reward [S].
    statistics: values [N] that are stored and decided on as stored, by name: `log_ratio_rollout`, `log_ratio_old`
    (anchor → new), `log_mismatch` (rollout → old), and `tv_binary_rollout`, … `kl_exact_old` (metric, estimate,
    anchor; to new). What is absent there is computed from the log-probs, where that is possible.
    """

    advantage: Tensor
    sequence: Tensor
    logp_rollout: Tensor | None = None
    logp_old: Tensor | None = None
    logp_new: Tensor | None = None
    logp_proximal: Tensor | None = None
    entropy: Tensor | None = None
    group: Tensor | None = None
    reward: Tensor | None = None
    topk_lists: TopKLists | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.advantage.shape[0]
        for name in ("sequence", "logp_rollout", "logp_old", "logp_new", "logp_proximal", "entropy"):
            values = getattr(self, name)
            if values is not None and values.shape != (n,):
                raise ValueError(f"{name} has shape {tuple(values.shape)}, but advantage has {n} tokens")
        if n and bool((self.sequence.diff() < 0).any()):
            raise ValueError("sequence must not decrease: the tokens of a response stand together")
        object.__setattr__(self, "advantage", self.advantage.double())

    def missing(self, name: str) -> str | None:
        """Why the input `name` cannot be had for any token; None where it can."""
        values = self._input(name)
        if values is None:
            return INPUTS[name]
        if isinstance(values, Tensor) and values.numel() and bool(values.isnan().all()):
            return INPUTS[name]
        return None

    def known(self, needs: tuple[str, ...], level: str) -> Tensor:
        """Bool [N]: every input in `needs`, and the advantage, is known for the token (its response, its prompt)."""
        known = ~self.advantage.isnan()
        for name in needs:
            values = self._input(name)
            if name == "topk_lists":
                assert self.topk_lists is not None
                known = known & ~self.topk_lists.logp_anchor.isnan().all(1)
            elif isinstance(values, Tensor) and name in ("group", "reward"):
                known = known & ~self.to_tokens(values.double()).isnan()
            elif isinstance(values, Tensor):
                known = known & ~values.isnan()
        if level == "token":
            return known
        whole = self.per_sequence((~known).double(), "sum") == 0
        if level == "prompt" and self.group is not None:
            whole = self.per_group((~whole).double(), "sum")[self.groups()] == 0
        return self.to_tokens(whole)

    def _input(self, name: str) -> object:
        if name not in INPUTS:
            raise KeyError(f"{name!r} is not an input of methods; one of: {', '.join(INPUTS)}")
        return getattr(self, name) if name in self.__dataclass_fields__ else self.statistics.get(name)

    # the pairs

    def log_ratio(self, anchor: str) -> Tensor:
        """log π(a)/anchor(a) [N]: log r for `rollout`, log r′ for `old`."""
        stored = self.statistics.get(f"log_ratio_{anchor}")
        return (_given(self.logp_new) - _given(getattr(self, f"logp_{anchor}"))) if stored is None else stored.double()

    @property
    def log_mismatch(self) -> Tensor:
        """log ρ = log π_old(a)/μ(a) [N]."""
        stored = self.statistics.get("log_mismatch")
        return (_given(self.logp_old) - _given(self.logp_rollout)) if stored is None else stored.double()

    def divergence(self, metric: str, estimate: str, anchor: str, profile: str = "exact") -> Tensor:
        """D(anchor → new) [N]; metric tv or kl, estimate binary, topk or exact. `profile`: `dppo_core.profiles`."""
        stored = self.statistics.get(f"{metric}_{estimate}_{anchor}")
        if stored is not None and (profile == "exact" or (metric, estimate) != ("kl", "binary")):
            return stored.double()
        if estimate != "binary":
            raise KeyError(f"{metric}_{estimate}_{anchor} is not in `statistics`")
        logp, logq = _given(getattr(self, f"logp_{anchor}")), _given(self.logp_new)
        return binary_tv(logp, logq) if metric == "tv" else PROFILES[profile].binary_kl(logp, logq)

    # responses and prompts

    @property
    def n_sequences(self) -> int:
        """S, the number of responses."""
        if self.reward is not None:
            return self.reward.shape[0]
        if self.group is not None:
            return self.group.shape[0]
        return int(self.sequence[-1]) + 1 if self.sequence.numel() else 0

    def per_sequence(self, values: Tensor, reduce: str = "mean") -> Tensor:
        """[N] → [S]: `mean`, `sum` or `max` over each response's tokens. NaN in, NaN out; no tokens: NaN (sum: 0)."""
        return _reduce(values, self.sequence, self.n_sequences, reduce)

    def to_tokens(self, values: Tensor) -> Tensor:
        """[S] → [N]: each token gets its response's value."""
        return values[self.sequence]

    def groups(self) -> Tensor:
        """[S]: the prompt of each response as 0 … G−1."""
        groups: Tensor = torch.unique(_given_group(self.group), return_inverse=True)[1]
        return groups

    def per_group(self, values: Tensor, reduce: str = "mean") -> Tensor:
        """[S] → [G]: over the responses of each prompt."""
        groups = self.groups()
        return _reduce(values, groups, int(groups.max()) + 1 if groups.numel() else 0, reduce)

    def positions(self) -> Tensor:
        """[N]: 0-based place of each token among its response's counted tokens."""
        counts = torch.bincount(self.sequence, minlength=self.n_sequences)
        starts = torch.cumsum(counts, 0) - counts
        return torch.arange(self.sequence.shape[0], device=self.sequence.device) - starts[self.sequence]

    def lengths(self) -> Tensor:
        """[S]: counted tokens of each response."""
        return torch.bincount(self.sequence, minlength=self.n_sequences)

    def before(self, values: Tensor) -> Tensor:
        """[N]: Σ of `values` over the earlier tokens of the same response; NaN after a NaN, in that response only."""
        values, first = values.double(), self.positions() == 0
        response = torch.cumsum(first.long(), 0) - 1

        def earlier(terms: Tensor) -> Tensor:
            total = torch.cumsum(terms, 0).roll(1) * (torch.arange(len(terms), device=terms.device) > 0)
            return total - total[first][response]

        # one cumulative sum runs through every response, so a NaN must not enter it
        unknown = earlier(values.isnan().double()) > 0
        return earlier(values.masked_fill(values.isnan(), 0.0)).masked_fill(unknown, torch.nan)

    def with_statistics(self, **statistics: Tensor) -> TokenArrays:
        """The same tokens with more stored statistics."""
        return replace(self, statistics={**self.statistics, **statistics})


def _given(values: Tensor | None) -> Tensor:
    if values is None:
        raise KeyError("an input that the method did not name in `needs`")
    return values.double()


def _given_group(values: Tensor | None) -> Tensor:
    if values is None:
        raise KeyError("an input that the method did not name in `needs`: group")
    return values


def _reduce(values: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    values = values.double()
    if reduce == "max":
        empty = values.new_full((size,), torch.nan)
        return empty.scatter_reduce(0, index, values, "amax", include_self=False)
    total = values.new_zeros(size).index_add(0, index, values)
    return total if reduce == "sum" else total / torch.bincount(index, minlength=size)
