"""Doubts about logged log-probs: what explains a list of them better than what the run says of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dppo_core.provenance import clearly_better, fit, fit_temperature, sampled_logprobs, shifted, telling
from service.process import Message
from service.worker.batches import Response
from service.worker.policies import Policy

__all__ = ["Excerpt", "Scored", "Trial", "logits_of"]

ENOUGH = 16  # tokens that tell one explanation from another; with fewer nothing is said
TEMPERATURE_ROWS = 64  # rows that a temperature is sought on
SAME_TEMPERATURE = 0.02  # relative
WELL = 1e-3  # nats: a median below it leaves no temperature to look for
MUCH_BETTER = 0.5  # a shift is told by a median that many times the unshifted one
POOR = 1.0  # nats: a median above it is no fit; nor is one above FAIR whose correlation is below CORRELATED
FAIR, CORRELATED = 0.25, 0.25


@dataclass(frozen=True)
class Excerpt:
    """N counted tokens: the response and position [N] of each, its id [N], and the log's lists [N] by field name."""

    items: list[Response]
    sample_ids: list[str]
    response: Tensor
    position: Tensor
    token_ids: Tensor
    lists: dict[str, Tensor]

    def shifted(self, name: str, by: int) -> Tensor:
        values = self.lists[name]
        return shifted(values, self.response, self.position, by) if by else values

    def furthest(self, gap: Tensor) -> list[Message]:
        """Where the three largest known values of `gap` [N] are."""
        order = gap.nan_to_num(nan=-1.0).topk(min(3, int((~gap.isnan()).sum()))).indices.tolist()
        return [
            {"sample_id": self.sample_ids[int(self.response[at])], "position": int(self.position[at])} for at in order
        ]


@dataclass(frozen=True)
class Scored:
    """What one checkpoint says of an excerpt: hidden rows [N, D] and log π(a) [N], each way."""

    policy: Policy
    hidden: Tensor
    logp: dict[str, Tensor]


def logits_of(policy: Policy, hidden: Tensor) -> Tensor:
    """Float32 logits [R, V] of a few hidden rows [R, D]."""
    out = torch.empty(len(hidden), policy.vocab_size, device=policy.device)
    policy.logits_of(hidden)(0, len(hidden), out)
    return out


class Trial:
    """One list of the log against OLD. Each test gives a doubt about what the run says, or None, and takes for granted
    what the tests before it found."""

    def __init__(self, excerpt: Excerpt, name: str, claimed: str, old: Scored, temperature: float) -> None:
        self._excerpt, self._name, self._old, self._temperature = excerpt, name, old, temperature
        self._claimed = self._way = claimed
        self._log = self._telling(excerpt.lists[name])
        self.as_said = fit(self._log, self._explained)
        self._fits = [self.as_said]

    @property
    def _explained(self) -> Tensor:
        return self._old.logp[self._way]

    def _telling(self, log: Tensor) -> Tensor:
        return log.where(telling(log, self._explained), torch.nan)

    def run(self, beside: dict[int, dict[str, Tensor]]) -> Message:
        """The fit as the run says, and every doubt about it."""
        enough = self.as_said.n >= ENOUGH
        result: Message = {"list": self._name, **asdict(self.as_said), "enough": enough, "doubts": []}
        if not enough:
            return result
        where = {"count": self.as_said.n, "examples": self._excerpt.furthest((self._log - self._explained).abs())}
        shift, way, temperature = self._shift(), self._other_way(), self._other_temperature()
        other = None if temperature else self._other_checkpoint(beside)
        doubts = [doubt for doubt in (shift, temperature or way, other) if doubt]
        closest = min(self._fits, key=lambda fit: fit.median)
        if closest.median > POOR or (closest.median > FAIR and not closest.correlation >= CORRELATED):
            doubts = [{"code": "logprobs_do_not_fit", "median": closest.median, "correlation": closest.correlation}]
        return {**result, "doubts": [{**doubt, **where} for doubt in doubts]}

    def _shift(self) -> Message | None:
        """Does the entry before or after a token's fit it better?"""
        logs = {by: self._excerpt.shifted(self._name, by) for by in (-1, 0, 1)}
        medians = {by: min(_median(log, logp) for logp in self._old.logp.values()) for by, log in logs.items()}
        by = min(medians, key=lambda by: medians[by])
        if medians[by] >= MUCH_BETTER * medians[0]:
            return None
        self._log = self._telling(logs[by])
        return {"code": "shifted_logprobs", "by": by, "medians": list(medians.values())}

    def _other_way(self) -> Message | None:
        """Was a temperature applied, or not, or the distribution renormalised, against what the run says?"""
        claimed = self._explained
        better = [way for way, logp in self._old.logp.items() if clearly_better(self._log, claimed, logp)]
        if not better:
            self._fits.append(fit(self._log, claimed))
            return None
        self._way = min(better, key=lambda way: fit(self._log, self._old.logp[way]).median)
        code = "renormalised_nucleus" if self._way == "truncated" else f"{self._way}_logprobs"
        return {"code": code, **self._improved(self._log, claimed, self._explained)}

    def _other_temperature(self) -> Message | None:
        """Does a temperature fit clearly better than the run's and 1?"""
        if self._way == "truncated" or self._fits[-1].median < WELL:
            return None
        known = (~self._log.isnan()).nonzero().squeeze(1)
        some = torch.linspace(0, len(known) - 1, min(TEMPERATURE_ROWS, len(known))).round().long()
        at, policy = known[some], self._old.policy
        logits = logits_of(policy, self._old.hidden[at.to(policy.device)])
        ids, log = self._excerpt.token_ids[at].to(policy.device), self._log[at]
        temperature = fit_temperature(logits, ids, log.to(policy.device))
        there = sampled_logprobs(logits, ids, temperature).cpu()
        near = abs(temperature / self._stated(self._way) - 1) <= SAME_TEMPERATURE
        if near or not clearly_better(log, self._explained[at], there):
            return None
        figures = self._improved(log, self._old.logp[self._claimed][at], there)
        return {"code": "temperature", "temperature": temperature, "stated": self._stated(self._claimed), **figures}

    def _stated(self, way: str) -> float:
        return 1.0 if way == "raw" else self._temperature

    def _other_checkpoint(self, beside: dict[int, dict[str, Tensor]]) -> Message | None:
        """Does the checkpoint of the step before or after fit clearly better?"""
        logps = {step: logp[self._way] for step, logp in beside.items()}
        better = [step for step, logp in logps.items() if clearly_better(self._log, self._explained, logp)]
        if not better:
            return None
        step = min(better, key=lambda step: fit(self._log, logps[step]).median)
        figures = self._improved(self._log, self._explained, logps[step])
        return {"code": "checkpoint_off_by_one", "fits_step": step, **figures}

    def _improved(self, log: Tensor, claimed: Tensor, other: Tensor) -> Message:
        """The medians of both, where both are known; `other` is what the list fits best so far."""
        both = ~(claimed.isnan() | other.isnan())
        self._fits.append(fit(log, other))
        return {"median": self._fits[-1].median, "claimed": fit(log[both], claimed[both]).median}


def _median(log: Tensor, logp: Tensor) -> float:
    """The median |Δ| over the tokens that tell anything; infinite without any."""
    tells = telling(log, logp)
    return fit(log[tells], logp[tells]).median if bool(tells.any()) else math.inf
