"""Two policies over one list: together or one after the other, and OLD a second time for the noise floor."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from dppo_core.two_policy import TwoPolicyScorer
from service.worker import memory, pairs
from service.worker.batches import Response
from service.worker.memory import available_bytes, row_bytes, weight_bytes
from service.worker.pairs import Scored, lay_out, score_pair, score_responses
from service.worker.policies import Checkpoint, PolicyPool
from tests.conftest import Checkpoints
from tests.tiny import VOCAB, save_adapter, save_checkpoint

CPU = torch.device("cpu")


def responses(groups: int = 3, samples: int = 4, seed: int = 0) -> list[Response]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(groups):
        prompt = rng.integers(0, VOCAB, rng.integers(3, 9))
        for _ in range(samples):
            tokens = rng.integers(0, VOCAB, rng.integers(1, 40))
            found.append(Response(len(found), prompt, tokens, rng.random(len(tokens)) < 0.9))
    return found


def scored(pool: PolicyPool, pair: list[Checkpoint], items: list[Response], *, together: bool) -> Scored:
    def scorer(old: int, new: int) -> TwoPolicyScorer:
        assert old == new == VOCAB
        return TwoPolicyScorer(VOCAB, chunk_rows=16)

    progress: list[int] = []
    found = score_pair(pool, *pair, items, scorer, together=together, progress=progress.append)
    assert sum(progress) == len(found.stats.logp_old) == sum(int(item.counted.sum()) for item in items)
    return found


def assert_same_bits(one: Scored, other: Scored) -> None:
    assert one.noise is not None
    assert other.noise is not None
    assert torch.equal(one.noise_at, other.noise_at)
    for a, b in ((one.stats, other.stats), (one.noise, other.noise)):
        for field in fields(a):
            torch.testing.assert_close(getattr(a, field.name), getattr(b, field.name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_after_the_other_is_the_same(checkpoints: Checkpoints, dtype: torch.dtype) -> None:
    items = responses()
    steps = [Checkpoint(str(path), "") for path in checkpoints.steps[:3]]
    expected = [scored(PolicyPool(CPU, dtype), steps[at : at + 2], items, together=True) for at in (0, 1)]
    assert float((expected[0].stats.logp_old - expected[0].stats.logp_new).abs().max()) > 0.01
    pool = PolicyPool(CPU, dtype)
    assert_same_bits(scored(pool, steps[:2], items, together=False), expected[0])
    assert [pool.holds(step) for step in steps] == [False, True, False], "one base at a time"
    assert_same_bits(scored(pool, steps[1:], items, together=False), expected[1])
    assert pool.holds(steps[2])
    assert_same_bits(scored(pool, steps[1:], items, together=False), expected[1])  # NEW is loaded: it runs first
    assert [pool.holds(step) for step in steps] == [False, True, False]


@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers.:UserWarning")
def test_a_head_outlives_its_backbone_with_its_adapter(checkpoints: Checkpoints, tmp_path: Path) -> None:
    modules = ["q_proj", "lm_head"]
    adapters = [
        save_adapter(tmp_path / str(at), base, at, target_modules=modules)
        for at, base in enumerate(checkpoints.steps[:2])
    ]
    pair = [
        Checkpoint(str(base), "", str(adapter)) for base, adapter in zip(checkpoints.steps[:2], adapters, strict=True)
    ]
    expected = scored(PolicyPool(CPU, torch.float32), pair, responses(), together=True)
    assert_same_bits(scored(PolicyPool(CPU, torch.float32), pair, responses(), together=False), expected)


def test_adapters_of_one_base_share_it_whatever_is_asked(checkpoints: Checkpoints) -> None:
    pair = [Checkpoint(str(checkpoints.steps[0]), "", str(adapter)) for adapter in checkpoints.adapters]
    pool = PolicyPool(CPU, torch.float32)
    expected = scored(pool, pair, responses(), together=True)
    assert_same_bits(scored(pool, pair, responses(), together=False), expected)


def test_an_adapter_that_is_no_longer_needed_is_let_go(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Step after step of one base; warnings are errors here, and peft warns where the one in use is deleted."""
    base = checkpoints.steps[0]
    steps = [Checkpoint(str(base), "", str(save_adapter(tmp_path / str(at), base, at))) for at in range(3)]
    pool = PolicyPool(CPU, torch.float32)
    first = scored(pool, steps[:2], responses(), together=True)
    scored(pool, steps[1:], responses(), together=True)
    kept = {policy.base.adapters[step.adapter_key] for policy, step in zip(pool.get(steps[1:]), steps[1:], strict=True)}
    assert set(pool.get(steps[1:])[0].base.peft.peft_config) == kept
    assert_same_bits(scored(pool, steps[:2], responses(), together=True), first)


def test_both_policies_see_one_layout(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """NEW cannot branch, which is only known once it is loaded: then OLD is padded too."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path / "windowed")
    pair = [Checkpoint(str(checkpoints.steps[0]), ""), Checkpoint(str(tmp_path / "windowed"), "")]
    pool = PolicyPool(CPU, torch.float32)
    assert [policy.can_branch for policy in pool.get(pair)] == [True, False]
    items = responses()
    assert all(batch.trees == () for batch in lay_out(items, pool.get(pair)))
    expected = scored(pool, pair, items, together=True)
    assert_same_bits(scored(PolicyPool(CPU, torch.float32), pair, items, together=False), expected)


def test_noise_is_old_against_old_in_another_layout(checkpoints: Checkpoints) -> None:
    items = responses(groups=6, samples=8)
    pair = [Checkpoint(str(path), "") for path in checkpoints.steps[:2]]
    pool = PolicyPool(CPU, torch.bfloat16)
    found = scored(pool, pair, items, together=True)
    assert found.noise is not None
    (old, _) = pool.get(pair)
    starts = np.cumsum([0, *(item.counted.sum() for item in items)])
    chosen = [item for item in items if starts[item.row] in found.noise_at]
    places = torch.cat([torch.arange(starts[item.row], starts[item.row + 1]) for item in chosen])
    assert sorted(found.noise_at.tolist()) == places.tolist(), "whole responses"
    for item in chosen:  # plain: the sequence by itself through the model's own attention
        ids = torch.from_numpy(np.concatenate([item.prompt, item.response])).unsqueeze(0)
        rows = old.hidden(ids)[0, len(item.prompt) - 1 + np.flatnonzero(item.counted)]
        logits = torch.empty(len(rows), VOCAB)
        old.logits_of(rows)(0, len(rows), logits)
        again = torch.log_softmax(logits.double(), 1).gather(1, torch.tensor(item.response[item.counted]).unsqueeze(1))
        at = torch.arange(starts[item.row], starts[item.row + 1])
        first = found.stats.logp_old[at]
        noise = torch.tensor([found.noise_at.tolist().index(place) for place in at.tolist()])
        torch.testing.assert_close(found.noise.logp_old[noise], first, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.noise.logp_new[noise], again.squeeze(1), rtol=0, atol=0.02)
    gaps = (found.noise.logp_new - found.noise.logp_old).abs()
    moved = (found.stats.logp_new - found.stats.logp_old).abs()
    assert 0 < float(gaps.max()) < float(moved.median()), "a layout moves less than a step of training"
    assert float(found.noise.tv_exact.max()) > 0


def test_how_much_is_scored_twice(checkpoints: Checkpoints) -> None:
    (policy,) = PolicyPool(CPU, torch.float32).get([Checkpoint(str(checkpoints.steps[0]), "")])
    for groups, samples in ((1, 1), (2, 3), (20, 8), (60, 8)):
        items = responses(groups, samples)
        plan = lay_out(items, [policy])
        twice = [row for batch in pairs._another_layout(items, plan) for row in batch.rows]
        spent = sum(items[row].length for row in twice)
        run = 2 * sum(batch.token_ids_BT.numel() for batch in plan)
        assert len(twice) >= 1
        assert len(twice) == 1 or spent <= 0.04 * run
        if groups == 60:
            assert spent > 0.03 * run
    shuffled = [Response(row, item.prompt, item.response, item.counted) for row, item in enumerate(items[::-1])]
    again = [row for batch in pairs._another_layout(shuffled, lay_out(shuffled, [policy])) for row in batch.rows]
    assert sorted(len(items) - 1 - row for row in again) == sorted(twice), "their tokens alone decide"


def test_padded_responses_are_scored_again_alone(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    (policy,) = PolicyPool(CPU, torch.float32).get([Checkpoint(str(checkpoints.steps[0]), "")])
    items = responses(4, 8)
    plan = lay_out(items, [policy], may_pack=False)
    assert max(len(batch.rows) for batch in plan) > 1
    twice = pairs._another_layout(items, plan)
    assert {len(batch.rows) for batch in twice} == {1}
    alone = lay_out(items, [policy], may_pack=False, batch_tokens=1)
    assert pairs._another_layout(items, alone) == [], "no other layout: not measured, rather than zero"


def test_nothing_counts(checkpoints: Checkpoints) -> None:
    item = Response(0, np.array([1, 2]), np.array([3, 4]), np.zeros(2, dtype=np.bool_))
    pair = [Checkpoint(str(path), "") for path in checkpoints.steps[:2]]
    for together in (True, False):
        found = scored(PolicyPool(CPU, torch.float32), pair, [item], together=together)
        assert len(found.stats.logp_old) == len(found.noise_at) == 0
        assert found.noise is None


def test_score_responses_for_others(checkpoints: Checkpoints) -> None:
    old, new = PolicyPool(CPU, torch.float32).get([Checkpoint(str(path), "") for path in checkpoints.steps[:2]])
    items, scorer = responses(), TwoPolicyScorer(VOCAB)
    shared, unshared, small = (
        score_responses(old, new, items, scorer, **options)
        for options in ({}, {"share_prompts": False}, {"batch_tokens": 64})
    )
    for name in ("logp_old", "logp_new"):
        torch.testing.assert_close(getattr(shared, name), getattr(unshared, name), rtol=0, atol=1e-6)
        torch.testing.assert_close(getattr(shared, name), getattr(small, name), rtol=0, atol=1e-6)


def test_weights_are_sized_from_their_headers(checkpoints: Checkpoints, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoints.steps[0])
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert weight_bytes(str(checkpoints.steps[0]), torch.float32) == 4 * numbers
    assert weight_bytes(str(checkpoints.steps[0]), torch.bfloat16) == 2 * numbers
    model.save_pretrained(tmp_path / "parts", max_shard_size="40KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert weight_bytes(str(tmp_path / "parts"), torch.float32) == 4 * numbers
    assert row_bytes(str(checkpoints.steps[0]), torch.bfloat16) == 64


def test_available_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  900 kB\nMemAvailable:   700 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert available_bytes(CPU) == 700 * 1024
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.stat").write_text("anon 200000\ninactive_file 50000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(CPU) == 700 * 1024
    (tmp_path / "memory.max").write_text("400000\n")
    assert available_bytes(CPU) == 150_000  # 400,000 − 300,000 + 50,000
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "none")
    assert available_bytes(CPU) > 1 << 28


def test_what_fits(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [Checkpoint(str(path), "") for path in checkpoints.steps[:3]]
    each = weight_bytes(steps[0].path, torch.float32)
    pool = PolicyPool(CPU, torch.float32)

    def left(factor: float) -> None:
        monkeypatch.setattr("service.worker.policies.available_bytes", lambda _: (1 << 30) + factor * 1.25 * each)

    left(1.9)
    assert not pool.fits(steps[:2])
    left(2)
    assert pool.fits(steps[:2])
    assert pool.fits([steps[0], Checkpoint(steps[0].path, "", str(checkpoints.adapters[0]))])
    pool.get(steps[:1])
    left(1)
    assert pool.fits(steps[:2]), "one of them is there already"
    assert not pool.fits(steps[1:3])
    assert not pool.holds(steps[0]), "what the pair does not need was dropped first"
    left(-9)
    pool.get(steps[:2])
    assert pool.fits(steps[:2]), "both are there"


def test_other_vocabularies_are_refused_either_way(checkpoints: Checkpoints, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", seed=0, vocab_size=VOCAB + 16)
    pair = [Checkpoint(str(checkpoints.steps[0]), ""), Checkpoint(str(other), "")]
    for together in (True, False):
        with pytest.raises(AssertionError):
            scored(PolicyPool(CPU, torch.float32), pair, responses(), together=together)
