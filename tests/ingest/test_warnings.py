"""What is imported all the same, and warned of once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ingest.files import Importing, record


def warning(importing: Importing, records: list[Any], code: str) -> dict[str, Any] | None:
    found = [one for one in importing(records)["warnings"] if one["code"] == code]
    assert len(found) <= 1
    return found[0] if found else None


def test_nothing_to_warn_of(importing: Importing) -> None:
    assert importing([record(rollout_logprobs=[-1, -2, -3], advantage=0, reward=0)])["warnings"] == []


def test_no_mask(importing: Importing) -> None:
    records = [record(str(index), response_mask=... if index % 2 else [1, 0, 1]) for index in range(10)]
    assert warning(importing, records, "no_response_mask") == {
        "code": "no_response_mask",
        "message": "5 records have no response_mask: every response token counts. If tool or observation tokens are "
        "among them, log the mask.",
        "count": 5,
        "examples": [{"line": line, "field": "response_mask"} for line in (2, 4, 6)],
    }
    rows = importing.rows()
    assert [row["response_mask"] for row in rows[:2]] == [[True, False, True], [True, True, True]]
    assert [row["counted_tokens"] for row in rows[:2]] == [2, 3]


@pytest.mark.parametrize("name", ["rollout_logprobs", "old_logprobs", "new_logprobs"])
def test_a_record_of_zeros(importing: Importing, name: str) -> None:
    records = [record(str(index), **{name: [-1, -2, -3]}) for index in range(20)]
    records[7][name] = [0, 0.0, None]
    found = warning(importing, records, "zero_logprobs")
    assert found is not None
    assert found["message"].startswith(f"2 of 59 {name} on counted tokens are exactly 0, in 1 records all of them: ")
    assert "a missing log-prob stored as probability 1?" in found["message"]
    assert found["count"] == 2
    assert found["examples"] == [{"line": 8, "field": name}]


def test_a_record_of_nulls_is_none_of_zeros(importing: Importing) -> None:
    records = [record("a", rollout_logprobs=[None] * 3), record("b", rollout_logprobs=[0, 0, 0])]
    found = warning(importing, records, "zero_logprobs")
    assert found is not None
    assert found["examples"] == [{"line": 2, "field": "rollout_logprobs"}]


def test_zeros_only_on_the_counted_tokens_matter(importing: Importing) -> None:
    records = [record(response_mask=[0, 0, 1], rollout_logprobs=[0, 0, -1])]
    assert warning(importing, records, "zero_logprobs") is None
    records = [record(response_mask=[1, 1, 0], rollout_logprobs=[0, 0, -1])]
    assert warning(importing, records, "zero_logprobs") is not None


@pytest.mark.parametrize(("zeros", "warned"), [(6, False), (7, True)])
def test_share_of_zeros(importing: Importing, zeros: int, warned: bool) -> None:
    """10 records of 3 tokens: more than 6 zeros are more than 20 %."""
    records = [record(str(index), rollout_logprobs=[0 if index < zeros else -1, -1, -1]) for index in range(10)]
    assert (warning(importing, records, "zero_logprobs") is not None) == warned


@pytest.mark.parametrize(
    ("logprobs", "warned"),
    [
        ([-1, -2, -3], False),
        ([-1, -1, -1], False),
        ([-1, -1 + 0.9e-6, -1], False),
        ([-1, -1 + 1.1e-6, -2], True),
        ([-2, None, -1], False),
    ],
)
def test_unsorted_top_lists(importing: Importing, logprobs: list[float | None], warned: bool) -> None:
    def lists(middle: list[float | None]) -> dict[str, Any]:
        return {"rollout_top_token_ids": [[1], [1, 2, 3], [1]], "rollout_top_logprobs": [[-9], middle, [-0.5]]}

    records = [record("a"), record("b", **lists([-1, -2, -3])), record("c", **lists(logprobs))]
    found = warning(importing, records, "unsorted_top_logprobs")
    assert (found is not None) == warned
    if found:
        assert found["count"] == 1
        assert found["examples"] == [{"line": 3, "field": "rollout_top_logprobs"}]
    masked = record("c", **lists(logprobs), response_mask=[1, 0, 1])
    assert warning(importing, [masked], "unsorted_top_logprobs") is None
