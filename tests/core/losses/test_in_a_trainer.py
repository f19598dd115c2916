"""The five lines of the README, run; and what the package exports."""

from __future__ import annotations

import importlib
import pkgutil

import torch

from dppo_core import losses


def test_every_public_name_is_exported() -> None:
    modules = [importlib.import_module(f"dppo_core.losses.{m.name}") for m in pkgutil.iter_modules(losses.__path__)]
    public = {name for module in modules for name in module.__all__} - {"CountedTokens", "with_the_sign_of"}
    assert public == set(losses.__all__)
    assert all(hasattr(losses, name) for name in losses.__all__)


def test_five_lines_in_a_trainer() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(11, 8), torch.nn.Linear(8, 11))
    input_ids = torch.randint(0, 11, (4, 6))
    rollout_logprobs = torch.log(torch.rand(4, 5))
    advantages = torch.randn(4, 1)  # one a response
    response_mask = torch.ones(4, 5)
    response_mask[1, 3:] = 0
    rollout_logprobs[1, 3:] = float("nan")  # padding

    # README: from here
    from dppo_core.losses import dppo_loss

    logits = model(input_ids)[:, :-1]
    logp = logits.float().log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    step = dppo_loss(logp, rollout_logprobs, advantages, response_mask, delta_low=0.15, delta_high=0.15)
    step.loss.backward()
    # to here

    assert 0 < step.drop_rate < 1
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0
