"""Each method's first update of a saved batch, against the equations written out in float64, one token at a time.

The policy is transformers' GPT-2 in float64; no loss, mask or divergence of `dppo_core` is used for what is expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dppo_core.lab.language import PROMPT
from dppo_core.lab.methods import METHODS
from dppo_core.lab.policy import Shape
from dppo_core.lab.sampler import Rollouts
from dppo_core.lab.settings import Run
from dppo_core.lab.train import Batch, Trainer
from tests.lab.make_batch import BATCH, NARROW

SHAPE = Shape.of(NARROW)
SAVED = load_file(BATCH)
ADVANTAGE = SAVED["reward"] - SAVED["reward"].view(2, 6).mean(1).repeat_interleave(6)


def gpt2(flat: Tensor) -> Any:
    """transformers' model in float64 with these weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=616, n_positions=39, n_embd=8, n_layer=1, n_head=2, activation_function="gelu",
        tie_word_embeddings=False,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).double()
    named = SHAPE.weights(flat)
    prefixed = {f"transformer.{name}": values.double() for name, values in named.items() if name != "lm_head.weight"}
    model.load_state_dict({**prefixed, "lm_head.weight": named["lm_head.weight"].double()})
    return model


def log_probs(model: Any) -> Tensor:
    """log π over the vocabulary [B, L, V]."""
    tokens = torch.cat([SAVED["prompts"], SAVED["tokens"]], 1).long()
    found: Tensor = model(tokens).logits[:, PROMPT - 1 : -1].log_softmax(-1)
    return found


@dataclass(frozen=True)
class Token:
    """One response token: probabilities of the sampled token, and what the sampler kept of μ."""

    a: int
    advantage: float
    mu: float
    pi: float
    old: float
    top: dict[int, float]
    mu_all: list[float]
    pi_all: list[float]


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) if p else 0.0


def merged(token: Token) -> list[tuple[float, float]]:
    """(μ, π) of the top 20 of μ, the sampled token and the rest (Eq. 15)."""
    mu_of = {**token.top, token.a: token.mu}
    pairs = [(mu, token.pi_all[place]) for place, mu in mu_of.items()]
    return [*pairs, (1 - sum(mu for mu, _ in pairs), 1 - sum(pi for _, pi in pairs))]


DIVERGENCE: dict[str, Callable[[Token], float]] = {
    "binary_tv": lambda t: abs(t.pi - t.mu),
    "binary_kl": lambda t: kl(t.mu, t.pi) + kl(1 - t.mu, 1 - t.pi),
    "topk_tv": lambda t: sum(abs(mu - pi) for mu, pi in merged(t)) / 2,
    "topk_kl": lambda t: sum(kl(mu, pi) for mu, pi in merged(t)),
    "exact_tv": lambda t: sum(abs(mu - pi) for mu, pi in zip(t.mu_all, t.pi_all, strict=True)) / 2,
}


def ppo_drops(ratio: float, advantage: float) -> bool:
    return (advantage > 0 and ratio > 1.28) or (advantage < 0 and ratio < 0.8)


def dppo_drops(divergence: float, ratio: float, advantage: float, delta: float) -> bool:
    return divergence > delta and ((advantage > 0 and ratio > 1) or (advantage < 0 and ratio < 1))


def coefficient(method: str, t: Token, matched: dict[int, float]) -> float:
    """coef of the update Σ coef·∇log π(a): arXiv:2602.04879 §5, Eq. 12."""
    ratio, advantage = t.pi / t.mu, t.advantage
    if method == "pg_is":
        return ratio * advantage
    if method == "pg_tis":
        return min(ratio, 3.0) * advantage
    if method == "grpo":
        return 0.0 if ppo_drops(ratio, advantage) else ratio * advantage
    if method in ("minirl", "minirl_tis"):
        weight = min(ratio, 3.0) if method == "minirl_tis" else ratio
        return 0.0 if ppo_drops(t.pi / t.old, advantage) else weight * advantage
    if method.endswith("_old"):
        from_old = replace(t, mu=t.old)
        kind = "binary_tv" if "tv" in method else "binary_kl"
        delta = 0.15 if "tv" in method else 0.05
        dropped = dppo_drops(DIVERGENCE[kind](from_old), t.pi / t.old, advantage, delta)
        return 0.0 if dropped else ratio * advantage
    if method == "bad_update":
        return 0.0 if advantage < 0 and t.mu - t.pi >= 0.5 else ratio * advantage
    if method == "dppo_matched":
        sign = (advantage > 0) - (advantage < 0)
        dropped = sign != 0 and dppo_drops(abs(t.pi - t.mu), ratio, advantage, matched[sign])
        return 0.0 if dropped else ratio * advantage
    kind = method.removeprefix("dppo_")
    dropped = dppo_drops(DIVERGENCE[kind](t), ratio, advantage, 0.15 if kind.endswith("tv") else 0.05)
    return 0.0 if dropped else ratio * advantage


def matched_thresholds(tokens: list[Token]) -> dict[int, float]:
    """By sign: PPO drops k tokens, so δ is the (k+1)-th largest |π − μ| of those that move away from r = 1."""
    found = {}
    for sign in (-1, 1):
        of_sign = [t for t in tokens if t.advantage * sign > 0]
        k = sum(ppo_drops(t.pi / t.mu, t.advantage) for t in of_sign)
        away = sorted((abs(t.pi - t.mu) for t in of_sign if (t.pi / t.mu > 1) == (sign > 0)), reverse=True)
        found[sign] = away[k]
    return found


def batch() -> Batch:
    counted = SAVED["counted"]
    rollouts = Rollouts(
        SAVED["tokens"].long(),
        counted,
        SAVED["logp"],
        torch.zeros(counted.shape),
        SAVED["top_ids"].long(),
        SAVED["top_logp"],
        SAVED["logp_all"],
    )
    return Batch(torch.cat([SAVED["prompts"], SAVED["tokens"]], 1).long(), rollouts)


CASES = [(method, "current") for method in METHODS]
CASES += [(method, "rollout") for method in METHODS if "old" in METHODS[method].needs]


@pytest.mark.parametrize(("method", "old_policy"), CASES)
def test_first_update(method: str, old_policy: str) -> None:
    model = gpt2(SAVED["flat"])
    logp_all = log_probs(model)
    known = logp_all.detach()
    with torch.no_grad():
        logp_old = known if old_policy == "current" else log_probs(gpt2(SAVED["behind"]))
    places = SAVED["counted"].nonzero().tolist()
    tokens = []
    for row, place in places:
        a = int(SAVED["tokens"][row, place])
        top_ids, top_logp = SAVED["top_ids"][row, place].tolist(), SAVED["top_logp"][row, place].double().exp().tolist()
        tokens.append(
            Token(
                a,
                float(ADVANTAGE[row]),
                math.exp(float(SAVED["logp"][row, place])),
                math.exp(float(known[row, place, a])),
                math.exp(float(logp_old[row, place, a])),
                dict(zip(top_ids, top_logp, strict=True)),
                SAVED["logp_all"][row, place].double().exp().tolist(),
                known[row, place].exp().tolist(),
            )
        )
    matched = matched_thresholds(tokens)
    coefs = [coefficient(method, token, matched) for token in tokens]

    # −Σ coef·log π(a) / (12 responses · 20), the gradient scaled to norm .5, one step of AdamW
    total = -sum(
        coef * logp_all[row, place, token.a] for coef, token, (row, place) in zip(coefs, tokens, places, strict=True)
    ) / (12 * 20)
    assert isinstance(total, Tensor)
    total.backward()
    named = dict(model.named_parameters())
    gradient = torch.cat(
        [
            named[name if name.startswith("lm_head") else f"transformer.{name}"].grad.flatten()
            for name in SHAPE.parameters
        ]
    )
    norm = float(gradient.norm())
    gradient *= min(1.0, 0.5 / norm)
    weights = SAVED["flat"].double()
    stepped = weights - 3e-4 * (0.01 * weights + gradient / (gradient.abs() + 1e-8))

    trainer = Trainer(Run(method, 0, replace(NARROW, old_policy=old_policy)), SAVED["flat"])  # type: ignore[arg-type]
    trainer.past[0] = SAVED["behind"]
    done = trainer.update(batch(), ADVANTAGE, SHAPE.weights(SAVED["behind"]))

    ours = done["coef"][SAVED["counted"]]
    torch.testing.assert_close(ours, torch.tensor(coefs).double(), atol=1e-5, rtol=1e-4)
    kept = [coef != 0 or token.advantage == 0 for coef, token in zip(coefs, tokens, strict=True)]
    assert done["keep"][SAVED["counted"]].tolist() == kept
    dropped = {token.advantage > 0 for coef, token in zip(coefs, tokens, strict=True) if not coef and token.advantage}
    masked = not (method in ("pg_is", "pg_tis") or (old_policy == "current" and "old" in METHODS[method].needs))
    assert dropped == ({False} if method == "bad_update" else {False, True} if masked else set())

    assert done["grad_norm"][0] == pytest.approx(norm, rel=1e-4)
    assert trainer.flat.grad is not None
    assert float((trainer.flat.grad - gradient).norm() / gradient.norm()) < 1e-4
    clear = gradient.abs() > 1e-5  # below, the sign of a step is rounding
    torch.testing.assert_close(trainer.flat.detach()[clear].double(), stepped[clear], atol=2e-6, rtol=0)
    assert int(clear.sum()) > 1000


def test_the_batch_has_what_it_tests() -> None:
    """Tokens of both signs, a policy that has moved, and no zero advantage."""
    assert set(ADVANTAGE.sign().tolist()) == {-1.0, 1.0}
    assert int(SAVED["counted"].sum()) > 80
    assert not torch.equal(SAVED["flat"], SAVED["behind"])
