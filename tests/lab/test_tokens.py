"""Token-level statistics against loops over the same run's tokens."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from dppo_core.lab.settings import Run
from dppo_core.lab.tokens import study
from dppo_core.lab.train import Trainer
from dppo_core.lab.warmup import Start
from tests.lab.conftest import changed

RUN = Run("dppo_exact_tv", 10, changed(lr=2e-3, lr_rise=1))


def test_statistics_by_loops(warmups: Path, start: Start) -> None:
    found, prompts, count = study(warmups, lambda *_: None, runs=[RUN], first=1, steps=3)
    assert prompts == 3 * 8

    trainer = Trainer(RUN, start.weights, whole=True)
    tokens = []
    for number in range(4):
        step = trainer.step()
        for row, place in step.counted.nonzero().tolist() if number else []:
            logs = (step.logp_rollout, step.logp_behind, step.logp_new)
            mu, behind, pi = (math.exp(float(values[row, place])) for values in logs)
            tokens.append((float(step.advantage[row]), mu, behind, pi, bool(step.keep[row, place])))
    assert len(tokens) == count

    some = [(a, mu, pi) for a, mu, _, pi, _ in tokens if a]
    ppo = [mu for a, mu, pi in some if (a > 0 and pi / mu > 1.28) or (a < 0 and pi / mu < 0.8)]
    dppo = [mu for a, mu, pi in some if abs(pi - mu) > 0.15 and a * (pi - mu) > 0]
    exact = [keep for a, _, _, _, keep in tokens if a and not keep]
    assert len(ppo) > 5
    assert len(dppo) > 5
    assert found["ppo_rate"].value == pytest.approx(len(ppo) / len(some))
    assert found["dppo_rate"].value == pytest.approx(len(dppo) / len(some))
    assert found["exact_rate"].value == pytest.approx(len(exact) / len(some))
    assert found["clipped_probability"].value == pytest.approx(fmean(ppo) - fmean(mu for _, mu, _ in some))
    assert found["bad_share"].value == pytest.approx(sum(a < 0 and mu - pi >= 0.5 for a, mu, pi in some) / len(some))
    rare = [math.log(behind / mu) for _, mu, behind, _, _ in tokens if mu < 0.01]
    assert found["sd_log_rho_0"].value == pytest.approx(pstdev(rare), rel=1e-4)
    assert found["engine_4"].value == pytest.approx(fmean(abs(b - mu) for _, mu, b, _, _ in tokens if mu >= 0.9))
    large = [mu < 0.1 for _, mu, _, pi, _ in tokens if pi / mu > 3]
    assert found["truncated_rare"].value == pytest.approx(fmean(large) - fmean(mu < 0.1 for _, mu, *_ in tokens))
    # refining a partition never lowers a divergence
    assert found["binary_of_exact"].value <= found["topk_of_exact"].value <= 1 + 1e-6
    for each in found.values():
        assert each.low <= each.high or math.isnan(each.value)
