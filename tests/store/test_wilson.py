"""Wilson's interval in SQL, against published values and against the equation that defines it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from service.settings import Settings
from service.store.store import Store

Z = 1.959963984540054  # Φ⁻¹(.975)


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    directory: Path = tmp_path_factory.mktemp("wilson") / "data"
    Store(Settings(data_dir=directory)).close()
    return duckdb.connect(directory / "lens.duckdb", read_only=True)


def interval(lens: duckdb.DuckDBPyConnection, k: int, n: int) -> tuple[float, float]:
    found = lens.execute("SELECT _wilson($k, $n, -1), _wilson($k, $n, 1)", {"k": k, "n": n}).fetchone()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_values_that_newcombe_prints(
    lens: duckdb.DuckDBPyConnection, k: int, n: int, low: float, high: float
) -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), Table I, method 3
    assert interval(lens, k, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(1, 4), (3, 10), (500, 1000), (7, 10_000_000), (9_999_999, 10_000_000)])
def test_each_end_is_as_far_from_the_share_as_its_own_spread(lens: duckdb.DuckDBPyConnection, k: int, n: int) -> None:
    for p in interval(lens, k, n):
        assert (k / n - p) ** 2 == pytest.approx(Z**2 * p * (1 - p) / n, rel=1e-6)


def test_the_ends_of_the_scale(lens: duckdb.DuckDBPyConnection) -> None:
    low, high = interval(lens, 5, 5)
    assert (low, high) == (pytest.approx(5 / (5 + Z**2)), 1.0)
    assert interval(lens, 0, 5) == (pytest.approx(0.0, abs=1e-15), pytest.approx(Z**2 / (5 + Z**2)))
    assert interval(lens, 0, 0) == (None, None)
