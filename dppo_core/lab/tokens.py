"""Token-level claims: every token of some iterations of one method, summed by prompt, with a bootstrap over prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from dppo_core.divergence import binary_tv
from dppo_core.lab.language import RESPONSE
from dppo_core.lab.methods import Minibatch, exact_tv, topk_divergence
from dppo_core.lab.settings import Run
from dppo_core.lab.statistics import Estimate, bootstrap
from dppo_core.lab.token_statistics import BINS, STATISTICS
from dppo_core.lab.train import Step, Trainer
from dppo_core.lab.warmup import warmed_up
from dppo_core.masks import keep_dppo, keep_ppo

__all__ = ["study"]

STREAM = tuple(Run("dppo_exact_tv", seed) for seed in range(10, 14))
FIRST, STEPS = 20, 12
"""Tokens of iterations 20–31 of DPPO with exact TV: that method's sampler keeps μ over the whole vocabulary."""
Quantities = dict[str, Tensor]


def quantities(step: Step, watched: Quantities, run: Run) -> Quantities:
    """Per token [N] float64, what is summed: indicators, and values times indicators."""
    settings, counted = run.settings, step.counted
    advantage = step.advantage.double().unsqueeze(1).expand_as(counted)[counted]
    rollout, behind, start, new = (
        values[counted].double() for values in (step.logp_rollout, step.logp_behind, step.logp_start, step.logp_new)
    )
    mu, ratio, moved = rollout.exp(), new - rollout, (new.exp() - rollout.exp()).abs()
    entropy, tv_topk, tv_exact = (
        watched[name][:, : counted.shape[1]][counted] for name in ("entropy", "tv_topk", "tv_exact")
    )
    tv, delta = binary_tv(rollout, new), settings.delta_tv
    some = advantage != 0
    ppo = some & ~keep_ppo(ratio, advantage, settings.eps_low, settings.eps_high).keep
    drops = {
        name: some & ~keep_dppo(measured, ratio, advantage, delta, delta).keep
        for name, measured in (("binary", tv), ("topk", tv_topk), ("exact", tv_exact))
    }
    from_old = some & ~keep_dppo(binary_tv(start, new), new - start, advantage, delta, delta).keep
    log_rho, engine = behind - rollout, (behind.exp() - mu).abs()
    found: Quantities = {"n": torch.ones_like(mu), "engine": engine, "some": some, "rare": mu < 0.1, "moved": moved}
    for place, (low, high) in enumerate(pairwise(BINS)):
        inside = (mu >= low) & ((mu < high) | (high == BINS[-1]))
        found |= {
            f"n{place}": inside,
            f"rho{place}": inside * log_rho,
            f"square{place}": inside * log_rho**2,
            f"engine{place}": inside * engine,
            f"ppo{place}": inside & ppo,
            f"dppo{place}": inside & drops["binary"],
            f"some{place}": inside & some,
        }
    large = ratio.exp() > settings.weight_cap
    found |= {"large": large, "large_rare": large & (mu < 0.1)}
    found |= {"mu": some * mu, "entropy": some * entropy}
    for name, dropped in (("ppo", ppo), ("dppo", drops["binary"]), ("only_ppo", ppo & ~drops["binary"])):
        found |= {
            name: dropped,
            f"{name}_mu": dropped * mu,
            f"{name}_entropy": dropped * entropy,
            f"{name}_moved": dropped * moved,
        }
    found |= {"bad": some & (advantage < 0) & (mu - new.exp() >= settings.bad_update)}
    found |= {"some_moved": some * moved, "kept_by_old": drops["binary"] & ~from_old}
    found |= {"kept_by_old_moved": found["kept_by_old"] * moved}
    for one, other in (("binary", "topk"), ("binary", "exact"), ("topk", "exact")):
        found |= {f"{one}_{other}_both": drops[one] & drops[other], f"{one}_{other}_either": drops[one] | drops[other]}
    found |= {f"drop_{name}": dropped for name, dropped in drops.items()}
    found |= {"tv_binary": some * tv, "tv_topk": some * tv_topk, "tv_exact": some * tv_exact}
    return {name: values.double() for name, values in found.items()}


def study(
    cache: Path,
    on_progress: Callable[[int, int], None],
    *,
    runs: Sequence[Run] = STREAM,
    first: int = FIRST,
    steps: int = STEPS,
) -> tuple[dict[str, Estimate], int, int]:
    """Every statistic with its interval, from iterations `first` … `first` + `steps` − 1 of the runs; prompts (one of
    an iteration counts once) and tokens that they stand on. The runs' method keeps μ over the whole vocabulary."""
    sums: list[Tensor] = []
    names: list[str] = []
    tokens = 0
    for done, run in enumerate(runs):
        watched: Quantities = {}
        trainer = Trainer(
            run,
            warmed_up(run.settings, run.warmup, cache).weights,
            whole=True,
            lists=True,
            watch=lambda batch, rows, watched=watched, run=run: _watch(batch, rows, watched, run),  # type: ignore[misc]
        )
        for number in range(first + steps):
            on_progress(done * (first + steps) + number, len(runs) * (first + steps))
            watched.clear()
            step = trainer.step()
            if number < first:
                continue
            found = quantities(step, watched, run)
            names = list(found)
            tokens += int(step.counted.sum())
            prompt = torch.arange(len(step.reward)) // run.settings.group
            of_token = prompt.unsqueeze(1).expand_as(step.counted)[step.counted]
            values = torch.stack(list(found.values()), 1)
            sums.append(
                torch.zeros(run.settings.prompts, len(names), dtype=torch.float64).index_add(0, of_token, values)
            )
    sums_GK = torch.cat(sums)
    place = {name: index for index, name in enumerate(names)}
    estimates = {
        name: bootstrap(sums_GK, lambda drawn, value=value: value(lambda key: drawn[:, place[key]]))  # type: ignore[misc]
        for name, (_, value) in STATISTICS.items()
    }
    return estimates, len(sums_GK), tokens


def _watch(batch: Minibatch, rows: Tensor, watched: Quantities, run: Run) -> None:
    """Keep what only the logits of a minibatch tell, [B, L] as the step's other values."""
    logp_NV = batch.logits.log_softmax(1)
    measured = {
        "entropy": batch.padded(-torch.linalg.vecdot(logp_NV.exp(), logp_NV)),
        "tv_topk": topk_divergence(batch, "tv", run.settings.top_k),
        "tv_exact": exact_tv(batch),
    }
    width = batch.counted.shape[1]
    for name, values in measured.items():
        whole = watched.setdefault(
            name, torch.zeros(run.settings.prompts * run.settings.group, RESPONSE, dtype=torch.float64)
        )
        whole[rows, :width] = values.double()


def as_rows(estimates: dict[str, Estimate]) -> list[dict[str, object]]:
    """A row a statistic."""
    return [{"statistic": name, "what": STATISTICS[name][0], **asdict(found)} for name, found in estimates.items()]
