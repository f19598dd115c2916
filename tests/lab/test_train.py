"""The training loop: determinism, staleness, what the mismatch is made of."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import pad

from dppo_core.lab.language import PROMPT
from dppo_core.lab.methods import METHODS
from dppo_core.lab.metrics import COLUMNS, measure
from dppo_core.lab.policy import score
from dppo_core.lab.settings import Run, Settings, parse_setting
from dppo_core.lab.train import Step, Trainer
from dppo_core.lab.warmup import Start, warm_up
from tests.lab.conftest import SMALL, changed


def steps(start: Start, method: str = "dppo_binary_tv", count: int = 4, **options: object) -> list[Step]:
    settings = options.pop("settings", SMALL)
    trainer = Trainer(Run(method, 10, settings), start.weights, **options)  # type: ignore[arg-type]
    return [trainer.step() for _ in range(count)]


@pytest.mark.parametrize("method", ["pg_is", "minirl", "dppo_topk_kl", "dppo_exact_tv", "dppo_matched"])
def test_two_runs_of_a_seed_are_identical(start: Start, method: str) -> None:
    for one, other in zip(steps(start, method, 3), steps(start, method, 3), strict=True):
        assert one.tokens.equal(other.tokens)
        assert one.reward.equal(other.reward)
        assert one.logp_new.equal(other.logp_new)
        assert one.loss == other.loss


def test_what_is_watched_changes_nothing(start: Start) -> None:
    seen: list[int] = []
    watched = steps(start, count=3, whole=True, lists=True, watch=lambda _, rows: seen.append(len(rows)))
    for one, other in zip(steps(start, count=3), watched, strict=True):
        assert one.logp_new.equal(other.logp_new)
    assert seen == [16] * 6


def test_seeds_differ_and_methods_share_random_numbers(start: Start) -> None:
    one, other = (steps(start, method, 1)[0] for method in ("pg_is", "grpo"))
    assert one.problems == other.problems
    assert one.tokens.equal(other.tokens)  # the first iteration samples from the warm-up
    elsewhere = Trainer(Run("pg_is", 11, SMALL), start.weights).step()
    assert elsewhere.problems != one.problems


def test_warm_up_is_a_function_of_its_number() -> None:
    tiny = changed(warmup_steps=2, warmup_batch=4)
    assert warm_up(tiny, 0).equal(warm_up(tiny, 0))
    assert not warm_up(tiny, 0).equal(warm_up(tiny, 1))


def test_the_sampler_is_stale_by_two_iterations(start: Start) -> None:
    trainer = Trainer(Run("pg_is", 10, SMALL), start.weights, whole=True)
    before = []
    for number in range(4):
        before.append(trainer.flat.detach().clone())
        step = trainer.step()
        version = max(0, number - 2)
        assert step.version == version
        tokens = torch.cat([torch.tensor([p.prompt for p in step.problems]), step.tokens], 1)
        with torch.no_grad():
            for weights, logged in ((before[version], step.logp_behind), (before[number], step.logp_start)):
                logp, _ = score(
                    trainer.shape.weights(weights), trainer.shape, tokens, pad(step.counted, (PROMPT - 1, 0))
                )
                torch.testing.assert_close(logp, logged[step.counted], atol=1e-6, rtol=0)


def test_what_the_mismatch_is_made_of(start: Start) -> None:
    found = [measure(step) for step in steps(start, count=4)]
    assert all(found[3][part] > 1e-5 for part in ("engine", "stale", "update"))
    fresh = [measure(step) for step in steps(start, settings=changed(staleness=0))]
    assert all(each["stale"] == 0 for each in fresh)
    exact = [measure(step) for step in steps(start, settings=changed(mantissa=23, logit_mantissa=23))]
    assert all(each["engine"] < 1e-6 for each in exact)
    # the first minibatch is scored at the iteration's start
    step = steps(start, count=1, whole=True)[0]
    rows = step.minibatch == 0
    torch.testing.assert_close(step.logp_new[rows], step.logp_start[rows], atol=1e-6, rtol=0)


def test_columns_by_hand(start: Start) -> None:
    step = steps(start, "grpo", 3)[-1]
    found = measure(step)
    assert found.keys() == COLUMNS.keys()
    assert found["reward"] == sum(step.reward.tolist()) / 32
    moved, bad, dropped, positive, decided = [], 0, 0, 0, 0
    for row, length in enumerate(step.counted.sum(1).tolist()):
        for place in range(length):
            mu, pi = math.exp(step.logp_rollout[row, place]), math.exp(step.logp_new[row, place])
            moved.append(pi - mu)
            advantage = float(step.advantage[row])
            decided += advantage != 0
            bad += advantage < 0 and mu - pi >= 0.5
            positive += advantage > 0
            dropped += advantage > 0 and pi / mu > 1.28
    assert found["mean_abs_dp"] == pytest.approx(sum(map(abs, moved)) / len(moved))
    assert (found["max_dp"], found["min_dp"]) == pytest.approx((max(moved), min(moved)))
    assert found["bad_update"] == pytest.approx(bad / decided if decided else math.nan, nan_ok=True)
    assert found["drop_positive"] == pytest.approx(dropped / positive if positive else math.nan, nan_ok=True)


def test_advantages_are_centred_by_group(start: Start) -> None:
    step = steps(start, count=1)[0]
    by_group = step.advantage.view(8, 4)
    torch.testing.assert_close(by_group.sum(1), torch.zeros(8))
    torch.testing.assert_close(by_group, step.reward.view(8, 4) - step.reward.view(8, 4).mean(1, keepdim=True))


def test_names_of_runs() -> None:
    run = Run("minirl", 12, changed(lr=6e-4, old_policy="rollout"))
    assert Run.parse(run.name) == run
    assert Run("pg_is", 10).name == "pg_is-s10"
    assert Run("pg_is", 11).warmup == 1
    with pytest.raises(ValueError, match="not the name of a run"):
        Run.parse("pg_is")
    with pytest.raises(ValueError, match="not name=value"):
        parse_setting("speed=3")
    with pytest.raises(ValueError, match="steps is a int, not 'many'"):
        parse_setting("steps=many")
    with pytest.raises(ValueError, match="cannot be split"):
        Settings(prompts=3, group=3)
    with pytest.raises(ValueError, match="there is no method 'ppo'; one of: pg_is"):
        Trainer(Run("ppo", 0), torch.zeros(1))
    assert all(method.title for method in METHODS.values())
