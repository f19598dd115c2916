"""The policy, its engine and its checkpoint are the same function."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from dppo_core.lab.checkpoint import save_checkpoint
from dppo_core.lab.language import PROMPT, TOKENS, pool
from dppo_core.lab.policy import Shape, score
from dppo_core.lab.sampler import Rollouts, Sampler, rounded
from dppo_core.lab.warmup import Start
from tests.lab.conftest import SMALL

SHAPE = Shape.of(SMALL)
PROMPTS = torch.tensor([problem.prompt for problem in pool(16, 0)])


def sampled(start: Start, mantissa: int = 23, logit_mantissa: int = 23, seed: int = 0, **keep: object) -> Rollouts:
    engine = Sampler(SHAPE, mantissa=mantissa, logit_mantissa=logit_mantissa, **keep)  # type: ignore[arg-type]
    return engine.sample(SHAPE.weights(start.weights), PROMPTS, 4, torch.Generator().manual_seed(seed))


def scored(start: Start, rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.cat([PROMPTS.repeat_interleave(4, 0), rollouts.tokens], 1)
    with torch.no_grad():
        return score(SHAPE.weights(start.weights), SHAPE, tokens, pad(rollouts.counted, (PROMPT - 1, 0)))


def test_rounding_by_hand() -> None:
    # 1 + 1/32 is the next number after 1 with five bits; 1 + 1/64 lies halfway and goes away from zero
    values = torch.tensor([1.0, 1 + 1 / 32, 1 + 1 / 64, 1 + 1 / 128, -(1 + 1 / 64), 1.999, 0.0, 3.1])
    expected = [1.0, 1 + 1 / 32, 1 + 1 / 32, 1.0, -(1 + 1 / 32), 2.0, 0.0, 3.125]
    assert rounded(values.clone(), 5).tolist() == expected
    assert rounded(values.clone(), 23).equal(values)
    assert rounded(values.clone(), 7).equal(values.bfloat16().float())  # no ties among these at seven bits


def test_an_exact_engine_is_the_policy(start: Start) -> None:
    rollouts = sampled(start, everything=True, top_k=5)
    logp, logits = scored(start, rollouts)
    torch.testing.assert_close(rollouts.logp[rollouts.counted], logp, atol=2e-5, rtol=0)
    assert rollouts.logp_all is not None
    mu = rollouts.logp_all[rollouts.counted]
    torch.testing.assert_close(mu, logits.log_softmax(1), atol=5e-5, rtol=0)
    torch.testing.assert_close(rollouts.entropy[rollouts.counted], -(mu.exp() * mu).sum(1), atol=1e-5, rtol=1e-5)
    assert rollouts.top_ids is not None
    assert rollouts.top_ids[rollouts.counted].equal(mu.topk(5).indices)


def test_rounding_makes_a_mismatch(start: Start) -> None:
    rollouts = sampled(start, 5, 7)
    logp, _ = scored(start, rollouts)
    mismatch = (logp.exp() - rollouts.logp[rollouts.counted].exp()).abs().mean()
    assert 3e-4 < mismatch < 2e-2


def test_responses_end_and_are_drawn_from_mu(start: Start) -> None:
    rollouts = sampled(start)
    lengths = rollouts.counted.sum(1)
    assert rollouts.counted.equal(torch.arange(rollouts.tokens.shape[1]) < lengths.unsqueeze(1))
    ends = [TOKENS[row[length - 1]] for row, length in zip(rollouts.tokens.tolist(), lengths.tolist(), strict=True)]
    assert "</s>" in ends
    assert all(end == "</s>" or length == 32 for end, length in zip(ends, lengths.tolist(), strict=True))
    again = sampled(start)
    assert again.tokens.equal(rollouts.tokens)
    assert not sampled(start, seed=1).tokens.equal(rollouts.tokens[:, : again.tokens.shape[1]])
    # the mean of log μ(a) over many first tokens is minus the entropy
    first = torch.cat([sampled(start, seed=seed).logp[:, 0] for seed in range(20)])
    assert float(first.mean()) == pytest.approx(-float(rollouts.entropy[:, 0].mean()), abs=0.15)


def test_transformers_scores_the_checkpoint_alike(start: Start, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_checkpoint(start.weights, SHAPE, tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    rollouts = sampled(start)
    tokens = torch.cat([PROMPTS.repeat_interleave(4, 0), rollouts.tokens], 1)
    with torch.no_grad():
        theirs = model(tokens).logits[:, PROMPT - 1 : -1][rollouts.counted]
    _, ours = scored(start, rollouts)
    torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_ids_to_tokens(list(range(len(TOKENS)))) == TOKENS
    assert tokenizer.decode(tokens[0, :PROMPT]).split() == [TOKENS[place] for place in tokens[0, :PROMPT].tolist()]
