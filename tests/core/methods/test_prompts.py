"""TVPO on two prompts with responses of unequal length, worked by hand."""

from __future__ import annotations

import math

import pytest

from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Unavailable
from tests.core.methods.arrays import coef_of, keep_of
from tests.core.methods.responses import responses

# Prompt 7 has responses 0 and 1: mean ½|r − 1| = (.25 + 0 + .25)/3 = 1/6 and .1, TV = (1/6 + .1)/2 = .1333.
# Prompt 5 has response 2: (.01 + .005)/2 = .0075.
LOG_RATIO = [[math.log(1.5), 0.0, math.log(0.5)], [math.log(1.2)], [math.log(1.02), math.log(0.99)]]
MU = [[0.1] * 3, [0.1], [0.1] * 2]


def test_tvpo_drops_what_moves_on_in_a_prompt_that_has_moved() -> None:
    tokens = responses([1, -1, 1], mu=MU, new=MU, group=[7, 7, 5], log_ratio_rollout=LOG_RATIO)
    found = METHODS["tvpo"](tokens)
    # A·log r > 0 only for r = 1.5; prompt 5 is within .02, so its r = 1.02 stays
    assert keep_of(found) == [False, True, True, True, True, True]
    assert coef_of(found) == pytest.approx([0, 1, 0.5, -1.2, 1.02, 0.99])
    away = METHODS["tvpo"](responses([1, 1, 1], mu=MU, new=MU, group=[7, 7, 5], log_ratio_rollout=LOG_RATIO))
    assert keep_of(away)[3] is False  # response 1 alone has .1, too: it goes with its prompt
    assert keep_of(METHODS["tvpo"](tokens, delta=0.1334)) == [True] * 6
    assert keep_of(METHODS["tvpo"](tokens, delta=0.1333)) == keep_of(found)


def test_every_response_weighs_the_same_and_one_without_tokens_nothing() -> None:
    tokens = responses([1, -1, 1], mu=MU, new=MU, group=[7, 7, 5, 7], reward=[0, 0, 0, 0], log_ratio_rollout=LOG_RATIO)
    assert tokens.n_sequences == 4
    for delta, kept in ((0.1334, True), (0.1333, False)):
        assert keep_of(METHODS["tvpo"](tokens, delta=delta))[0] is kept


def test_tvpo_keeps_on_its_threshold_caps_its_weight_and_keeps_without_advantage() -> None:
    edge = responses(
        [-1, 0], mu=[[0.1], [0.1]], new=[[0.1], [0.1]], group=[0, 1], log_ratio_rollout=[[-800.0], [800.0]]
    )
    assert keep_of(METHODS["tvpo"](edge, delta=0.5)) == [True, True]  # ½|0 − 1|
    assert keep_of(METHODS["tvpo"](edge, delta=0.499)) == [False, True]
    large = responses([-1], mu=[[0.01]], new=[[0.3]], group=[0])  # r = 30
    assert coef_of(METHODS["tvpo"](large)) == pytest.approx([-20])
    assert coef_of(METHODS["tvpo"](large, weight_cap=None)) == pytest.approx([-30])


def test_an_unknown_token_makes_its_prompt_unknown_and_no_other() -> None:
    unknown = [[0.1, math.nan, 0.1], [0.1], [0.1] * 2]
    found = METHODS["tvpo"](responses([1, -1, 1], mu=unknown, new=MU, group=[7, 7, 5]))
    assert keep_of(found) == [None] * 4 + [True] * 2
    assert coef_of(found) == [None] * 4 + [1, 1]


def test_tvpo_asks_for_the_prompts() -> None:
    with pytest.raises(Unavailable, match="tvpo: which responses share a prompt is not known"):
        METHODS["tvpo"](responses([1], mu=[[0.1]], new=[[0.1]]))
