"""`make lab-quick`: two methods at the lab's own size for some steps. Losses, masks and finiteness; never rewards."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dppo_core.lab.metrics import COLUMNS, measure
from dppo_core.lab.settings import Run
from dppo_core.lab.train import Step, Trainer
from dppo_core.lab.warmup import Start
from tests.lab.conftest import SMALL

QUICK = replace(SMALL, steps=12, lr=5e-4, prompts=32, group=8, minibatches=4)


def drops(step: Step) -> torch.Tensor:
    """DPPO's rule on what the step says of itself: |π − μ| > .15 and the token moves away from r = 1."""
    mu, pi = step.logp_rollout.double().exp(), step.logp_new.double().exp()
    advantage = step.advantage.unsqueeze(1).double()
    return ((pi - mu).abs() > 0.15) & (advantage * (pi - mu) > 0) & step.counted


@pytest.mark.parametrize("method", ["dppo_binary_tv", "pg_is"])
def test_lab_quick(method: str, start: Start) -> None:
    trainer = Trainer(Run(method, 10, QUICK), start.weights)
    dropped = 0
    for number in range(QUICK.steps):
        step = trainer.step()
        found = measure(step)
        assert found.keys() == COLUMNS.keys()
        if found["signal"]:  # else there are no tokens to have a rate of
            assert all(map(math.isfinite, found.values())), (number, found)
        assert bool(step.logp_new[step.counted].isfinite().all())
        # the value of the loss is −Σ coef·log π / (64·20) in each minibatch
        for place, loss in enumerate(step.loss):
            rows = step.minibatch == place
            expected = -(step.coef[rows] * step.logp_new[rows].double()).sum() / (64 * 20)
            assert loss == pytest.approx(float(expected), rel=1e-4, abs=1e-7)
        rule = drops(step)
        dropped += int(rule.sum())
        kept = step.counted & ~rule if method == "dppo_binary_tv" else step.counted
        assert step.keep.equal(kept)
        ratio = (step.logp_new.double() - step.logp_rollout.double()).exp()
        expected_coef = torch.where(kept, ratio * step.advantage.unsqueeze(1).double(), 0.0)
        torch.testing.assert_close(step.coef, expected_coef)
    assert dropped > 10
    assert bool(trainer.flat.isfinite().all())
