"""The registry: what registration refuses, what a call needs, and what holds for every registered method."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Method, Unavailable, method
from dppo_core.tokens import INPUTS, TokenArrays, TopKLists
from tests.core.methods.arrays import coef_of, keep_of, tokens
from tests.core.methods.test_dppo import TWELVE

PULLED = {"prime_rl", "ipo"}  # a coefficient on every token, A = 0 ones too


@pytest.fixture
def registered() -> Iterator[set[str]]:
    """Names to forget after the test."""
    names: set[str] = set()
    yield names
    for name in names:
        del METHODS[name]


def test_registration(registered: set[str]) -> None:
    registered.add("half")

    def needs(anchor: object, **_: object) -> tuple[str, ...]:
        return (f"logp_{anchor}",)

    @method("half", "Half", source="here", status="derived", needs=needs, variants={"near": {"factor": 0.25}})
    def half(some: TokenArrays, *, factor: float = 0.5, anchor: str = "old") -> torch.Tensor:
        """coef = factor·A,
        in one paragraph.

        Not in the rule.
        """
        return factor * some.advantage

    found = METHODS["half"]
    assert found.rule == "coef = factor·A, in one paragraph."
    assert dict(found.parameters) == {"factor": 0.5, "anchor": "old"}
    assert (found.needs, found.inputs(anchor="rollout")) == (("logp_old",), ("logp_rollout",))
    assert found.document()["variants"] == {"near": {"factor": 0.25}}
    some = tokens([2, -2, 0], old=[0.5, 0.5, 0.5])
    assert coef_of(found(some)) == [1.0, -1.0, 0.0]
    assert keep_of(found(some)) == [True, True, True]  # the sign of coef·A, and A = 0
    assert keep_of(found(some, factor=-1.0)) == [False, False, True]
    assert coef_of(found(some, "near")) == [0.5, -0.5, 0.0]
    assert coef_of(found(some, "near", factor=0.75)) == [1.5, -1.5, 0.0]  # what is given wins
    with pytest.raises(KeyError, match="far"):
        found(some, "far")
    with pytest.raises(TypeError, match="power"):
        found(some, power=2)
    with pytest.raises(Unavailable, match="half: the log has no rollout log-probs"):
        found(some, anchor="rollout")
    with pytest.raises(ValueError, match="registered already"):
        method("half", "", source="", status="read", needs=())(half)
    with pytest.raises(ValueError, match=r"'far' of 'other' sets unknown parameters \['power'\]"):
        method("other", "", source="", status="read", needs=(), variants={"far": {"power": 2}})(half)
    with pytest.raises(ValueError, match="needs a docstring"):
        method("other", "", source="", status="read", needs=())(lambda some: some.advantage)


def everything() -> TokenArrays:
    """Two responses of three tokens, of one prompt, with every input known."""
    generator = torch.Generator().manual_seed(11)

    def draw(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    lists = TopKLists(draw(-4.0, -2.0, 6, 3), draw(-4.0, -2.0, 6, 3))
    return TokenArrays(
        advantage=torch.tensor([1.0, 1.0, 0.0, -1.0, -1.0, 0.0], dtype=torch.float64),
        sequence=torch.tensor([0, 0, 0, 1, 1, 1]),
        logp_rollout=draw(-2.0, -1.0, 6),
        logp_old=draw(-2.0, -1.0, 6),
        logp_new=draw(-2.0, -1.0, 6),
        logp_proximal=draw(-2.0, -1.0, 6),
        entropy=draw(0.1, 1.0, 6),
        group=torch.tensor([0, 0]),
        reward=torch.tensor([1.0, 0.0], dtype=torch.float64),
        topk_lists=lists,
        statistics={name: draw(0.0, 0.4, 6) for name in INPUTS if name.startswith(("tv_", "kl_"))},
    )


def without(name: str, first: bool) -> TokenArrays:
    """Everything but one input, or but its value for the first token (response, where it has one for each)."""
    full = everything()
    if name in full.statistics:
        values: object = full.statistics[name].clone()
    else:
        values = getattr(full, name)
    if not first:
        if name in full.statistics:
            return replace(full, statistics={key: kept for key, kept in full.statistics.items() if key != name})
        return replace(full, **{name: None})
    if isinstance(values, TopKLists):
        anchor = values.logp_anchor.clone()
        anchor[0] = math.nan
        return replace(full, topk_lists=TopKLists(anchor, values.logp_new))
    assert isinstance(values, torch.Tensor)
    values = values.double().clone()
    values[0] = math.nan
    return full.with_statistics(**{name: values}) if name in full.statistics else replace(full, **{name: values})


@pytest.mark.parametrize("one", METHODS.values(), ids=METHODS.keys())
def test_every_method_says_what_it_lacks(one: Method) -> None:
    for variant in (None, *one.variants):
        for need in one.inputs(variant):
            with pytest.raises(Unavailable) as raised:
                one(without(need, first=False), variant)
            assert str(raised.value) == f"{one.name}: {INPUTS[need]}"
            if need == "group":  # integers: known or absent
                continue
            found = one(without(need, first=True), variant)
            assert not bool(found.known[0])
            assert not bool(found.keep[0])
            assert bool(found.coef[0].isnan())
            if one.level == "token" and need != "reward":
                assert bool(found.known[1:].all())


@pytest.mark.parametrize("one", METHODS.values(), ids=METHODS.keys())
def test_every_method_reads_only_what_it_names(one: Method) -> None:
    full = everything()
    expected = one(full)
    given = {name: getattr(full, name) for name in one.inputs() if name not in full.statistics}
    named = TokenArrays(
        full.advantage,
        full.sequence,
        statistics={name: full.statistics[name] for name in one.inputs() if name in full.statistics},
        **given,
    )
    assert torch.equal(one(named).coef.nan_to_num(), expected.coef.nan_to_num())


@pytest.mark.parametrize("one", METHODS.values(), ids=METHODS.keys())
def test_every_method_keeps_tokens_without_a_gradient(one: Method) -> None:
    full = everything()
    found = one(full)
    none = full.advantage == 0
    assert bool(found.keep[none & found.known].all())
    if one.level == "token" and one.name not in PULLED:
        assert found.coef[none & found.known].tolist() == [0.0] * int((none & found.known).sum())
    assert found.coef.dtype == torch.float64
    assert (found.keep.dtype, found.known.dtype) == (torch.bool, torch.bool)


@pytest.mark.parametrize("one", METHODS.values(), ids=METHODS.keys())
def test_every_method_s_keep_is_the_sign_of_its_coefficient(one: Method) -> None:
    full = everything()
    for variant in (None, *one.variants):
        found = one(full, variant)
        if one.name in PULLED and variant != "mask-only":
            continue
        signed = found.known & (full.advantage != 0)
        assert torch.equal(found.keep[signed], (found.coef * full.advantage > 0)[signed])


def test_every_method_is_documented() -> None:
    for one in METHODS.values():
        assert one.rule.endswith("."), one.name
        assert "coef" in one.rule, one.name
        assert one.source, one.name
        for need in one.needs:
            assert need in INPUTS
        assert json.loads(json.dumps(one.document(), allow_nan=False)) == one.document()


def test_every_method_has_a_test_of_its_own() -> None:
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    text = "\n".join(path.read_text() for path in files)
    missing = [name for name in METHODS if f'"{name}"' not in text and name not in TWELVE]
    assert not missing
