"""Steps in another order than a trainer reaches them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ingest.files import Importing, record
from tests.ingest.findings.cases import findings, note, warning


def passes(*steps: int, each: int = 2) -> list[dict[str, Any]]:
    """`each` records of every step, in this order."""
    return [record(f"{place}/{of}", step=step) for place, step in enumerate(steps) for of in range(each)]


def test_steps_in_order(importing: Importing) -> None:
    assert findings(importing, passes(0, 1, 2, 5, 6)) == {}


def test_files_put_together_in_another_order(importing: Importing) -> None:
    found = note(importing, passes(0, 1, 10, 11, 2, 3), "steps_out_of_order")
    assert found["message"].startswith("Steps go back 1 time, but none comes twice: ")
    assert found["examples"] == [{"line": 9, "field": "step", "step": 2, "sample_id": "4/0"}]


def test_a_resumed_trainer_appended(importing: Importing) -> None:
    """Steps 3 to 5 come twice, each time with all of their 2 responses."""
    found = warning(importing, passes(0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7), "steps_repeated")
    assert found["count"] == 3
    assert found["message"].startswith(
        "Steps go back 1 time, and 3 of 8 steps come again (3, 4, 5), each time with as many responses as the others "
        "hold (2 and 2): a resumed trainer"
    )
    assert [(one["line"], one["step"]) for one in found["examples"]] == [(13, 3), (15, 4), (17, 5)]


def test_shards_put_together(importing: Importing) -> None:
    found = note(importing, passes(0, 1, 2, 0, 1, 2), "steps_interleave")
    assert found["message"].startswith("Steps go back 1 time, and 3 of 3 steps come again (0, 1, 2): ")


def test_an_asynchronous_trainer(importing: Importing) -> None:
    """Responses arrive as they end: steps 1 and 2 lie in each other's midst, and are as full as the others."""
    records = [record(str(place), step=step) for place, step in enumerate((0, 0, 1, 2, 1, 2, 3, 3))]
    assert note(importing, records, "steps_interleave")["count"] == 2


@pytest.mark.parametrize("size", [1, 3])
def test_the_order_goes_on_over_chunks(importing: Importing, size: int) -> None:
    """A chunk holds 4 MiB; each of these records 1.5."""
    records = [one | {"prompt_text": "x" * 1_500_000} for one in passes(0, 1, 0, 1, each=size)]
    assert note(importing, records, "steps_interleave")["count"] == 2
