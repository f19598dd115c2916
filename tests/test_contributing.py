"""CONTRIBUTING.md is true: its worked example, one function and one test, is a method like any other."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from dppo_core.methods.catalog import METHODS
from tests.live import REPOSITORY

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S)


@pytest.fixture
def example() -> Iterator[None]:
    """The method of the first block, registered for the time of a test."""
    before = dict(METHODS)
    exec(compile(BLOCKS[0], "CONTRIBUTING.md, the method", "exec"), {})
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.usefixtures("example")
def test_the_example_s_own_test_passes() -> None:
    names: dict[str, object] = {}
    exec(compile(BLOCKS[1], "CONTRIBUTING.md, the test", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()  # type: ignore[operator]


@pytest.mark.usefixtures("example")
def test_the_example_is_listed_and_takes_part_in_agreement() -> None:
    from service.schemas.methods import all_methods
    from service.worker.measure import Agreement
    from tests.worker.test_measure import THRESHOLDS, segment, tokens_of

    (listed,) = [method for method in all_methods() if method.method == "ratio_band"]
    assert listed.rule == "Drop iff r > c or r < 1/c, either sign of A; coef = keep·r·A."
    assert listed.parameters == {"c": 2.0}
    assert listed.variants == {"wide": {"c": 8.0}}
    agreement = Agreement([METHODS["ratio_band"], METHODS["ppo_old"]], THRESHOLDS)
    agreement.add(tokens_of(segment(), "end"))
    row = next(row for row in agreement.rows() if row["other"] == "ppo_old")
    assert row["n"] == 3  # one of the four counted tokens has no μ


@pytest.mark.usefixtures("example")
def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        exec(BLOCKS[0], {})
