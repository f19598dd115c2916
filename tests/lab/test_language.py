"""The task: what a prompt, a demonstration and a reward are."""

from __future__ import annotations

import random

import pytest

from dppo_core.lab.language import ANSWER, EOS, KINDS, PROMPT, RESPONSE, TOKENS, Problem, demonstration, pool, reward

PLACE = {token: place for place, token in enumerate(TOKENS)}


def ids(text: str) -> list[int]:
    return [PLACE[token] for token in text.split()]


def test_vocabulary() -> None:
    assert len(TOKENS) == len(PLACE) == 16 + 4 * 150


def test_prompt_and_answer() -> None:
    problem = Problem(47, 85)
    assert problem.prompt == ids("<s> 4 7 + 8 5 =")
    assert problem.answer == ids("ANS 1 3 2 </s>")
    assert Problem(3, 4).prompt == ids("<s> 0 3 + 0 4 =")
    assert Problem(3, 4).answer == ids("ANS 0 0 7 </s>")
    assert len(problem.prompt) == PROMPT


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("7 5 2 1 4 8 3 1 ANS 1 3 2 </s>", 1.0),
        ("ANS 1 3 2 </s>", 1.0),
        ("7 5 2 1 4 8 3 1 ANS 1 3 3 </s>", 0.0),  # a wrong digit
        ("7 5 2 1 4 8 3 1 ANS 1 3 2", 0.0),  # cut off
        ("ANS 1 3 2 ANS 1 3 2 </s>", 0.0),  # answered twice
        ("ANS 1 3 2 </s> ANS 1 3 2 </s>", 0.0),
        ("1 3 2 </s>", 0.0),
    ],
)
def test_reward(response: str, value: float) -> None:
    assert reward(Problem(47, 85), ids(response)) == value


def test_pool_is_a_function_of_its_seed() -> None:
    assert pool(512, 0) == pool(512, 0)
    assert len(set(pool(512, 0))) == 512
    assert pool(512, 0) != pool(512, 1)


def test_demonstrations_err_as_their_openers_say() -> None:
    rng = random.Random(0)
    right: dict[int, list[float]] = {0: [], 1: [], 2: []}
    lengths = []
    for _ in range(6000):
        problem = Problem(rng.randrange(100), rng.randrange(100))
        said = demonstration(problem, rng)
        lengths.append(len(said))
        style = (said[0] - 16) % 3
        assert TOKENS[said[0]][0] == "b", KINDS
        assert said.count(EOS) == said.count(ANSWER) == 1
        right[style].append(reward(problem, said))
    shares = {style: sum(values) / len(values) for style, values in right.items()}
    # both columns must be right: (1 − .03)², (1 − .15)², (1 − .35)²
    assert shares == pytest.approx({0: 0.9409, 1: 0.7225, 2: 0.4225}, abs=0.04)
    assert {style: len(values) / 6000 for style, values in right.items()} == pytest.approx(
        {0: 0.1, 1: 0.6, 2: 0.3}, abs=0.03
    )
    assert max(lengths) <= RESPONSE
    # 1.3 openers, two columns of 4 and .9 words, .3 closers, 5 of the answer
    assert sum(lengths) / 6000 == pytest.approx(1.3 + 2 * 4.9 + 0.3 + 5, abs=0.1)
