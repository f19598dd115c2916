"""The task: adding two numbers of two digits in a small language with noisy habits.

    prompt    BOS a a + b b =
    response  opener(s) · ones column · tens column · closer(s) · ANS c d d EOS
    column    [lead] a b [link] sum carry              a, b: the column's two digits, copied

An opener gives away how carefully the demonstrator works: its style sets the chance that a column's sum digit is
wrong. A policy that has learned the demonstrations can hence earn more by opening carefully, and by copying right.
616 tokens: 16 symbols, and 150 words of each of four kinds whose frequencies follow Zipf's law. Everything is a
function of the seeds that are passed in.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, product

__all__ = ["PROMPT", "RESPONSE", "TOKENS", "VOCABULARY", "Problem", "demonstration", "pool", "reward"]

SYMBOLS = ["<pad>", "<s>", "</s>", "+", "=", "ANS", *"0123456789"]
PAD, BOS, EOS, PLUS, EQUALS, ANSWER = range(6)
ZERO = 6
KINDS = ("opener", "lead", "link", "closer")
WORDS = 150
POOL_SEED = 0
PROMPT, RESPONSE = 7, 32
"""Tokens of every prompt, and of the longest response."""

STYLES = {"careful": (0.10, 0.03), "neutral": (0.60, 0.15), "sloppy": (0.30, 0.35)}
"""Style of an opener → how often it is drawn, and the chance that a column's sum digit is wrong."""
SECOND_OPENER, LEAD, LINK, CLOSER = 0.3, 0.5, 0.4, 0.3


def _words() -> list[str]:
    """Pronounceable words, the kind in their first letters: opener ba…, lead da…, link ga…, closer ka…."""
    ends = [a + b + c for a, b, c in product("aeiou", "lmnrstvz", "aeiou")]
    return [first + end for first in "bdgk" for end in ends[:WORDS]]


TOKENS = [*SYMBOLS, *_words()]
VOCABULARY = len(TOKENS)


@dataclass(frozen=True)
class Problem:
    """a + b, each of 0 … 99."""

    a: int
    b: int

    @property
    def prompt(self) -> list[int]:
        """BOS a a + b b =."""
        return [BOS, ZERO + self.a // 10, ZERO + self.a % 10, PLUS, ZERO + self.b // 10, ZERO + self.b % 10, EQUALS]

    @property
    def answer(self) -> list[int]:
        """ANS c d d EOS of the right sum."""
        total = self.a + self.b
        return [ANSWER, ZERO + total // 100, ZERO + total // 10 % 10, ZERO + total % 10, EOS]


def pool(size: int, seed: int) -> list[Problem]:
    """`size` different problems."""
    chosen = random.Random(f"pool {seed}").sample(range(100 * 100), size)  # noqa: S311 a seeded experiment
    return [Problem(*divmod(number, 100)) for number in chosen]


def reward(problem: Problem, response: Sequence[int]) -> float:
    """1 where the response ends with the right answer and has said ANS and EOS only there, else 0."""
    right = list(response[-5:]) == problem.answer
    return float(right and ANSWER not in response[:-5] and EOS not in response[:-5])


def demonstration(problem: Problem, rng: random.Random) -> list[int]:
    """A demonstrator's response, right or wrong."""
    style = rng.choices(range(len(STYLES)), [share for share, _ in STYLES.values()])[0]
    mistake = list(STYLES.values())[style][1]
    said = [_opener(style, rng) for _ in range(1 + (rng.random() < SECOND_OPENER))]
    carry, digits = 0, []
    for a, b in ((problem.a % 10, problem.b % 10), (problem.a // 10, problem.b // 10)):
        digit, following = (a + b + carry) % 10, (a + b + carry) // 10
        if rng.random() < mistake:
            digit = (digit + rng.randrange(1, 10)) % 10
        said += [*_maybe("lead", LEAD, rng), ZERO + a, ZERO + b]
        said += [*_maybe("link", LINK, rng), ZERO + digit, ZERO + following]
        carry = following
        digits.append(digit)
    said += _maybe("closer", CLOSER, rng)
    return [*said, ANSWER, ZERO + carry, ZERO + digits[1], ZERO + digits[0], EOS]


_ZIPF = list(accumulate(1 / rank for rank in range(1, WORDS + 1)))


def _word(kind: str, rank: int) -> int:
    return len(SYMBOLS) + WORDS * KINDS.index(kind) + rank


def _maybe(kind: str, chance: float, rng: random.Random) -> list[int]:
    if rng.random() >= chance:
        return []
    return [_word(kind, rng.choices(range(WORDS), cum_weights=_ZIPF)[0])]


def _opener(style: int, rng: random.Random) -> int:
    """Every third opener is of the style, the most frequent first."""
    ranks = WORDS // len(STYLES)
    return _word("opener", len(STYLES) * rng.choices(range(ranks), cum_weights=_ZIPF[:ranks])[0] + style)
