"""Answers are worked out once, for all who ask at the same time too, and the ones asked for last are kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from service.store.results import Results

TABLE = pa.table({"x": [1.0, 2.0]})  # 16 bytes


def test_an_answer_is_worked_out_once_for_all_who_ask_at_once() -> None:
    results, asked, go = Results(1000), [], threading.Event()

    def answer() -> pa.Table:
        asked.append(1)
        go.wait(10)
        return TABLE

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(results.get, "a", answer) for _ in range(3)]
        go.set()
        assert all(future.result() is TABLE for future in futures)
    assert results.get("a", answer) is TABLE
    assert asked == [1]


def test_an_error_is_not_kept() -> None:
    results = Results(1000)

    def fails() -> pa.Table:
        raise ValueError("no such column")

    for _ in range(2):
        with pytest.raises(ValueError, match="no such column"):
            results.get("a", fails)
    assert results.get("a", lambda: TABLE) is TABLE


def test_what_was_asked_for_longest_ago_is_forgotten() -> None:
    results, asked = Results(2 * TABLE.nbytes), []

    def ask(what: str) -> None:
        results.get(what, lambda: asked.append(what) or TABLE)

    for what in "abaca":  # b is the oldest when c comes
        ask(what)
    assert asked == ["a", "b", "c"]
    ask("b")
    assert asked == ["a", "b", "c", "b"]
    results.get("large", lambda: pa.table({"x": [0.0] * 1000}))  # does not fit: nothing is kept
    ask("b")
    assert asked == ["a", "b", "c", "b", "b"]


def test_what_is_the_same_is_carried_over() -> None:
    results, asked = Results(2 * TABLE.nbytes), []

    def ask(of: Results, what: str) -> None:
        of.get(what, lambda: asked.append(what) or TABLE)

    ask(results, "a")
    ask(results, "b")
    later = results.carry(lambda what: what == "b")
    ask(later, "b")
    assert asked == ["a", "b"]
    ask(later, "a")
    ask(later, "c")  # the third: b was asked for longest ago
    ask(later, "a")
    assert asked == ["a", "b", "a", "c"]
    ask(later, "b")
    assert asked == ["a", "b", "a", "c", "b"]
