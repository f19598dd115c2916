"""What adapters share."""

from __future__ import annotations

import hashlib
import math

from service.ingest.adapters.common import Span, number, plain, prompt_hash, within


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
