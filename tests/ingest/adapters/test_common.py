"""What adapters share."""

from __future__ import annotations

import hashlib
import math

from service.ingest.adapters.common import UNUSED, Span, number, plain, prompt_hash, rest, turns, within


def test_prompts_are_told_apart() -> None:
    """Ids run into each other without something between them."""
    assert len({prompt_hash(ids) for ids in ([1, 12], [11, 2], [112], [1, 12, 0])}) == 4
    assert prompt_hash([1, 12]) == "prompt-" + hashlib.sha256(b"1,12").hexdigest()[:16]


def test_not_a_number_is_not_known() -> None:
    assert number(math.nan) is None
    assert plain({"a": [math.nan, math.inf, 1.5]}) == {"a": [None, None, 1.5]}


def test_within_the_response() -> None:
    assert within([9, 8, 7, 6], Span(1, 3, [True, False])) == [8, None]
    assert within([9, 8, 7, 6], Span(1, 3, [False, False])) is None
    assert within(None, Span(1, 3, [True, True])) is None


def test_what_no_record_keeps_is_lists_alone() -> None:
    """A number by such a name is some trainer's own figure, a list of another name is kept whatever its length."""
    raw = {"kl": 0.5, "values": [0.5], "new": [0.5] * 9, "finite": {"pg_loss": True}, "step": 1, "a": None, "b": []}
    assert rest(raw, ("step",)) == {"kl": 0.5, "new": [0.5] * 9}
    assert all(UNUSED.values())


def test_turns_by_the_gaps_of_a_mask() -> None:
    """Masked tokens after counted ones lead up to the next turn; so do those at the end, not those at the start."""
    assert turns([1, 1, 0, 0, 1, 0]) == [0, 0, 1, 1, 1, 2]
    assert turns([True, True]) is None
    assert turns([0, 1, 0, 1]) == [0, 0, 1, 1]
    assert turns([0.0, 0.0]) is None  # nothing of it counts
