"""How numbers are written."""

from __future__ import annotations

import math

import pytest

from web.numbers import count, number, percent, plain, probability, signed, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0285, "0.0285"),
        (1.2364, "1.24"),
        (99.95, "100"),
        (312.4, "312"),
        (4321.4, "4,321"),
        (0.00012345, "1.23×10⁻⁴"),
        (-2.5, "−2.50"),
        (1.5e7, "1.50×10⁷"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_three_significant_digits_and_a_dash_where_nothing_is_known(value: float | None, text: str) -> None:
    assert number(value) == text


def test_signs_counts_and_settings() -> None:
    assert (signed(0.25), signed(-0.25), signed(0.0), signed(None)) == ("+0.250", "−0.250", "0", "–")
    assert (count(1234567), count(0), count(None)) == ("1,234,567", "0", "–")
    assert (plain(0.28), plain(1.28), plain(None)) == ("0.28", "1.28", "–")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (10, 24, "41.7 %"),
        (0, 24, "0 %"),
        (24, 24, "100 %"),
        (1, 100000, "0.00100 %"),
        (99999, 100000, "> 99.9 %"),
        (0, 0, "–"),
        (None, 3, "–"),
        (1, None, "–"),
    ],
)
def test_a_share_of_nothing_is_not_known(part: int | None, whole: int | None, text: str) -> None:
    assert percent(part, whole) == text


def test_probabilities_near_one_show_their_distance_from_it() -> None:
    assert probability(math.log(0.125)) == "0.125"
    assert probability(math.log1p(-0.001)) == "1 − 0.00100"
    assert probability(0.0) == "1.00"
    assert probability(None) == "–"


def test_bytes() -> None:
    assert [size(n) for n in (12, 637_000, 1_250_000_000, None)] == ["12 B", "637 kB", "1.25 GB", "–"]
