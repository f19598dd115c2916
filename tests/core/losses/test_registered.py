"""Losses and registered methods are two implementations of one coefficient; any method can be a loss."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch

from dppo_core import losses
from dppo_core.losses import method_loss
from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Unavailable
from dppo_core.tokens import TokenArrays
from tests.core.losses.cases import CASES, Batch, random_batch

PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo_rollout": ("ppo_rollout", {}),
    "ppo_old": ("ppo_old", {"eps_high": 0.2}),
    "ppo_dual_clip": ("ppo_old", {"dual_clip": 1.5}),
    "minirl": ("minirl", {}),
    "minirl_tis": ("minirl", {"weight_cap": 1.2}),
    "gspo": ("gspo", {"eps_low": 0.05, "eps_high": 0.08}),
    "pg_is": ("pg_is", {}),
    "pg_tis": ("pg_tis", {"weight_cap": 1.3}),
    "cispo": ("cispo", {}),
    "cispo_both": ("cispo", {"eps_low": 0.2, "eps_high": 0.28}),
    "dppo_binary_tv": ("dppo_binary_tv_rollout", {}),
    "dppo_binary_kl": ("dppo_binary_kl_rollout", {"delta_low": 0.05, "delta_high": 0.08, "weight_cap": 1.4}),
    "dppo_binary_tv_verl": ("dppo_binary_tv_old", {"weight_cap": 1.1}),
    "dppo_binary_kl_recompute": ("dppo_recompute_binary_kl", {}),
    "dppo_given_divergence": ("dppo_topk_tv_rollout", {"delta_low": 0.1, "delta_high": 0.2, "weight_cap": 5.0}),
    "cppo": ("cppo", {}),
    "sapo": ("sapo", {}),
    "drpo": ("drpo", {}),
    "gbpo": ("gbpo", {}),
}
"""case → the method and parameters that say the same."""


def arrays(batch: Batch) -> TokenArrays:
    counted = batch.response_mask.bool()
    return TokenArrays(
        advantage=batch.advantage[counted],
        sequence=counted.nonzero()[:, 0],
        logp_rollout=batch.logp_rollout[counted],
        logp_old=batch.logp_old[counted],
        logp_new=batch.logp[counted],
        reward=batch.reward,
        group=batch.group,
        statistics={"tv_topk_rollout": batch.divergence[counted]},
    )


def test_every_loss_has_its_method() -> None:
    assert set(PAIRS) == {case.name for case in CASES}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PAIRS)
def test_minus_the_gradient_is_the_method_s_coefficient(name: str, seed: int) -> None:
    (case,) = [case for case in CASES if case.name == name]
    method, parameters = PAIRS[name]
    batch = random_batch(seed, b=9, t=40)
    counted = batch.response_mask.bool()
    logp = batch.logp.clone().requires_grad_()
    result = case.call(batch, logp, aggregation="token-mean")
    result.loss.backward()
    assert logp.grad is not None
    expected = METHODS[method](arrays(batch), **parameters)
    assert expected.known.all()
    found = -logp.grad[counted] * counted.sum()
    assert torch.allclose(found, expected.coef, rtol=1e-10, atol=1e-14)
    # GBPO and the rest count A differently only where the log's A is 0 and the rewards' is not
    if name != "gbpo":
        assert torch.equal(result.keep[counted], expected.keep)


@pytest.mark.parametrize("anchor", ["rollout", "old"])
@pytest.mark.parametrize("metric", ["tv", "kl"])
@pytest.mark.parametrize("estimate", ["binary", "topk", "exact"])
def test_every_variant_of_dppo(estimate: str, metric: str, anchor: str) -> None:
    batch = random_batch(20, b=9, t=40)
    counted = batch.response_mask.bool()
    name = f"{metric}_{estimate}_{anchor}"
    tokens = arrays(batch)
    stored = {} if estimate == "binary" else {name: batch.divergence[counted]}
    expected = METHODS[f"dppo_{estimate}_{metric}_{anchor}"](
        replace(tokens, statistics=stored), delta_low=0.1, delta_high=0.05, weight_cap=1.3
    )
    result = losses.dppo_loss(
        batch.logp,
        getattr(batch, f"logp_{anchor}"),
        batch.advantage,
        batch.response_mask,
        divergence=f"binary_{metric}" if estimate == "binary" else batch.divergence,  # type: ignore[arg-type]
        delta_low=0.1,
        delta_high=0.05,
        weight_cap=1.3,
    )
    assert torch.allclose(result.coef[counted], expected.coef, rtol=1e-12)
    assert torch.equal(result.keep[counted], expected.keep)
    assert 0 < result.drop_rate < 1


def test_defaults_are_the_methods_defaults() -> None:
    """A loss and its method mean the same thing by the same name."""
    for loss, method in (
        (losses.ppo_loss, "ppo_old"),
        (losses.minirl_loss, "minirl"),
        (losses.gspo_loss, "gspo"),
        (losses.pg_tis_loss, "pg_tis"),
        (losses.cispo_loss, "cispo"),
        (losses.dppo_loss, "dppo_binary_tv_rollout"),
        (losses.cppo_loss, "cppo"),
        (losses.sapo_loss, "sapo"),
        (losses.drpo_loss, "drpo"),
        (losses.gbpo_target, "gbpo"),
    ):
        parameters = inspect.signature(loss).parameters
        ours = {name: p.default for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        shared = set(ours) & set(METHODS[method].parameters)
        assert shared, method
        for name in shared:
            assert ours[name] == METHODS[method].parameters[name], f"{method}: {name}"


@pytest.mark.parametrize("name", ["icepop", "vaco", "gmpo", "cppo", "ppo_old"])
def test_any_method_is_a_loss(name: str) -> None:
    batch = random_batch(11, b=9, t=20)
    counted = batch.response_mask.bool()
    poisoned = replace(batch, logp_old=batch.logp_old.masked_fill(~counted, torch.nan))
    logp = poisoned.logp.masked_fill(~counted, torch.nan).requires_grad_()
    result = method_loss(
        METHODS[name],
        logp,
        batch.advantage,
        batch.response_mask,
        logp_rollout=batch.logp_rollout,
        logp_old=poisoned.logp_old,
        reward=batch.reward,
        group=batch.group,
        aggregation="token-mean",
    )
    result.loss.backward()
    assert logp.grad is not None
    expected = METHODS[name](arrays(batch))
    assert torch.allclose(-logp.grad[counted] * counted.sum(), expected.coef, rtol=1e-12)
    assert (logp.grad[~counted] == 0).all()
    assert torch.equal(result.keep[counted], expected.keep)
    assert result.loss.item() == pytest.approx(
        -(expected.coef * batch.logp[counted]).sum().item() / counted.sum().item()
    )


def test_a_method_loss_takes_variants_parameters_and_statistics() -> None:
    batch = random_batch(12)
    options: dict[str, Any] = {"logp_old": batch.logp_old, "logp_rollout": batch.logp_rollout}
    inputs = (batch.logp, batch.advantage, batch.response_mask)
    dual = method_loss(METHODS["ppo_old"], *inputs, variant="verl", parameters={"dual_clip": 1.5}, **options)
    same = losses.ppo_loss(batch.logp, batch.logp_old, *inputs[1:], eps_low=0.2, eps_high=0.2, dual_clip=1.5)
    assert torch.allclose(dual.coef, same.coef)
    with pytest.raises(Unavailable, match="dppo_topk_tv_rollout"):
        method_loss(METHODS["dppo_topk_tv_rollout"], *inputs, **options)
    statistics = {"tv_topk_rollout": batch.divergence}
    topk = method_loss(METHODS["dppo_topk_tv_rollout"], *inputs, statistics=statistics, **options)
    same = losses.dppo_loss(batch.logp, batch.logp_rollout, *inputs[1:], divergence=batch.divergence)
    assert torch.allclose(topk.coef, same.coef)
