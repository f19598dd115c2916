"""What every method over a response or a prompt does with what a log lacks: unavailable with the reason, or unknown
for the whole response or prompt and for no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Method, Unavailable
from dppo_core.tokens import INPUTS, TokenArrays
from tests.core.methods.arrays import coef_of, keep_of
from tests.core.methods.responses import responses

WHOLE = [method for method in METHODS.values() if method.level != "token"]
CASES = [
    pytest.param(method, variant, id=f"{method.name}-{variant}")
    for method in WHOLE
    for variant in (None, *method.variants)
]

# Prompt 0 has responses 0 and 1, prompt 1 has response 2. Nobody has moved far, so most methods keep most tokens.
MU = [[0.5, 0.4, 0.3], [0.2, 0.6], [0.7, 0.1]]
DIVERGENCE = [[0.01, 0.02, 0.01], [0.02, 0.01], [0.01, 0.01]]


def known() -> TokenArrays:
    return responses(
        [1, -1, 2],
        mu=MU,
        old=[[0.501, 0.399, 0.3], [0.2, 0.601], [0.699, 0.1]],
        new=[[0.52, 0.41, 0.29], [0.21, 0.58], [0.71, 0.11]],
        group=[0, 0, 1],
        reward=[1, 0, 1],
        tv_topk_rollout=DIVERGENCE,
        kl_topk_rollout=DIVERGENCE,
    )


def without(tokens: TokenArrays, need: str) -> TokenArrays:
    if need in tokens.statistics:
        return replace(tokens, statistics={name: v for name, v in tokens.statistics.items() if name != need})
    return replace(tokens, **{need: None})


def with_one_unknown(tokens: TokenArrays, need: str) -> TokenArrays:
    """NaN in the second token of response 0, or in its reward."""
    if need in tokens.statistics:
        values = tokens.statistics[need].clone()
        values[1] = torch.nan
        return tokens.with_statistics(**{need: values})
    values = getattr(tokens, need).clone()
    values[0 if need == "reward" else 1] = torch.nan
    return replace(tokens, **{need: values})


def test_these_are_all_of_them() -> None:
    assert {method.name for method in WHOLE} >= {
        "gspo", "gmpo", "vespo", "nfpo", "seq_tis", "seq_mis", "geo_rs", "k3_rs", "outlier_rs", "icepop_sequence",
        "trm", "trm_sampled", "vaco", "opsm", "tvpo", "cppo", "gbpo",
    }  # fmt: skip


@pytest.mark.parametrize(("method", "variant"), CASES)
def test_a_log_without_an_input_makes_it_unavailable_with_the_reason(method: Method, variant: str | None) -> None:
    for need in method.inputs(variant):
        with pytest.raises(Unavailable, match=f"^{method.name}: {INPUTS[need]}$"):
            method(without(known(), need), variant)


@pytest.mark.parametrize(("method", "variant"), CASES)
def test_a_token_without_an_input_makes_its_response_or_prompt_unknown(method: Method, variant: str | None) -> None:
    whole = method(known(), variant)
    assert bool(whole.known.all())
    unknown = 3 if method.level == "sequence" else 5
    for need in ("advantage", *method.inputs(variant)):
        if need == "group":
            continue  # prompts are whole numbers: known or not given
        found = method(with_one_unknown(known(), need), variant)
        assert keep_of(found)[:unknown] == [None] * unknown, need
        assert coef_of(found)[:unknown] == [None] * unknown, need
        assert keep_of(found)[unknown:] == keep_of(whole)[unknown:], need
        assert coef_of(found)[unknown:] == pytest.approx(coef_of(whole)[unknown:], rel=1e-12), need


@pytest.mark.parametrize(("method", "variant"), CASES)
def test_a_token_without_advantage_keeps_and_has_no_coefficient(method: Method, variant: str | None) -> None:
    if method.name == "gbpo":
        return  # its coefficient comes from the rewards
    tokens = known()
    found = method(replace(tokens, advantage=tokens.advantage * 0), variant)
    assert keep_of(found) == [True] * 7
    assert coef_of(found) == [0] * 7


@pytest.mark.parametrize("method", WHOLE, ids=lambda method: str(method.name))
def test_no_tokens_give_no_decisions(method: Method) -> None:
    nothing = torch.zeros(0, dtype=torch.float64)
    empty = TokenArrays(
        advantage=nothing,
        sequence=torch.zeros(0, dtype=torch.long),
        logp_rollout=nothing,
        logp_old=nothing,
        logp_new=nothing,
        group=torch.tensor([0]),
        reward=torch.tensor([1.0]),
    )
    found = method(empty)
    assert (len(found.coef), len(found.keep), len(found.known)) == (0, 0, 0)
