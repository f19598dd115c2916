"""Log-probabilities: never positive, never NaN, null where not known, and what sentinels become."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ingest.files import Importing, ndjson, record

LOGPROBS = ["rollout_logprobs", "old_logprobs", "new_logprobs"]


@pytest.mark.parametrize("name", LOGPROBS)
@pytest.mark.parametrize("positive", [1e-300, 1e-7, 0.7, 1])
def test_positive_on_a_counted_token(importing: Importing, name: str, positive: float) -> None:
    field, message = importing.error(**{name: [-1.0, positive, positive]})
    assert field == f"{name}[1]"
    assert message.startswith(f"{float(positive)} is a positive log-probability; ")
    assert message.endswith(" (and 1 more element of the list)")
    assert ("1.0 is a sentinel for 'missing' in some trainers: write null" in message) == (positive == 1)


@pytest.mark.parametrize("name", LOGPROBS)
@pytest.mark.parametrize("sentinel", [0.0, 1.0, 100, -1e300, None])
def test_sentinels_on_masked_tokens_become_null(importing: Importing, name: str, sentinel: Any) -> None:
    row = importing.row(response_mask=[1, 0, 1], **{name: [-1, sentinel, -2]})
    assert row[name] == [-1, None, -2]


def test_zero_is_a_log_probability_and_null_is_none(importing: Importing) -> None:
    row = importing.row(rollout_logprobs=[0, -0.0, None])
    assert row["rollout_logprobs"] == [0.0, 0.0, None]
    assert str(row["rollout_logprobs"]) == "[0.0, 0.0, None]"  # −0 is 0


@pytest.mark.parametrize("name", [*LOGPROBS, "advantage", "reward"])
@pytest.mark.parametrize(
    ("token", "shown"),
    [("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("1e999", "inf"), ("-1e999", "-inf")],
)
def test_tokens_that_json_does_not_have(importing: Importing, name: str, token: str, shown: str) -> None:
    line = ndjson([record(response_mask=[1, 1, 0], **{name: [-1, -1, "X"]})]).replace(b'"X"', token.encode())
    assert importing.errors(ndjson([record("b")]) + line) == [
        (2, f"{name}[2]", f"{shown} is not a finite number; write null where it is not known")
    ]


@pytest.mark.parametrize("bad", ["-1", True, [-1]])
def test_no_number(importing: Importing, bad: Any) -> None:
    assert importing.error(rollout_logprobs=[-1, bad, -1])[0] == "rollout_logprobs[1]"


def test_number_too_large_for_a_double(importing: Importing) -> None:
    assert importing.error(old_logprobs=[-1, -(10**400), -1])[0] == "old_logprobs[1]"


def test_mask_that_cannot_be_read_hides_no_other_error(importing: Importing) -> None:
    errors = importing.errors([record(response_mask=[1, 1], rollout_logprobs=[1, 1, "x"])])
    assert [(field, message) for _, field, message in errors] == [
        ("response_mask", "has 2 entries, but response_token_ids has 3 (one short: shifted?)"),
        ("rollout_logprobs[2]", "'x' is not a number"),
    ]


def top(ids: Any, logprobs: Any, sample: str = "a", **fields: Any) -> dict[str, Any]:
    return record(sample, rollout_top_token_ids=ids, rollout_top_logprobs=logprobs, **fields)


def test_top_lists(importing: Importing) -> None:
    importing(
        [
            top([[3, 7], None, []], [[-0.5, None], [], None]),
            top([[1], [2], [3]], [[-1], [-2], [-3.5]], sample="b"),
            record("c"),
        ]
    )
    first, second, third = importing.rows()
    assert first["rollout_top_token_ids"] == [[3, 7], None, None]  # an empty position is one not known
    assert first["rollout_top_logprobs"] == [[-0.5, None], None, None]
    assert second["rollout_top_token_ids"] == [[1], [2], [3]]
    assert second["rollout_top_logprobs"] == [[-1], [-2], [-3.5]]
    assert third["rollout_top_token_ids"] is third["rollout_top_logprobs"] is None


def test_top_lists_on_masked_tokens(importing: Importing) -> None:
    importing([top([[3], [4, 5], [6]], [[-0.5], [1.0, 2.0], [-1]], response_mask=[1, 0, 1])])
    assert importing.rows()[0]["rollout_top_logprobs"] == [[-0.5], [None, None], [-1]]


@pytest.mark.parametrize(
    ("ids", "logprobs", "field", "says"),
    [
        ([[1]] * 3, None, "rollout_top_token_ids", "is given without rollout_top_logprobs; give both or neither"),
        (None, [[-1]] * 3, "rollout_top_logprobs", "is given without rollout_top_token_ids; give both or neither"),
        (
            [[1], [2], [3]],
            [[-1], [-1, -2], [-1]],
            "rollout_top_logprobs[1]",
            "has 2 entries, but rollout_top_token_ids[1] has 1",
        ),
        (
            [[1], None, [3]],
            [[-1], [-1], [-1]],
            "rollout_top_logprobs[1]",
            "has 1 entries, but rollout_top_token_ids[1]",
        ),
        ([[1], [2], [3]], [[-1], [0.5], [-1]], "rollout_top_logprobs[1][0]", "0.5 is a positive log-probability"),
        ([[1], [2], [-3]], [[-1]] * 3, "rollout_top_token_ids[2][0]", "-3 is not a token id"),
        ([[1], [None], [3]], [[-1]] * 3, "rollout_top_token_ids[1][0]", "null is not a token id"),
        ([[1], [2], [3]], [[-1], ["x"], [-1]], "rollout_top_logprobs[1][0]", "'x' is not a number"),
        ([1, 2, 3], [[-1]] * 3, "rollout_top_token_ids[0]", "expected a list or null, found a number"),
        ("abc", [[-1]] * 3, "rollout_top_token_ids", "expected a list of lists, found a string"),
    ],
)
def test_bad_top_lists(importing: Importing, ids: Any, logprobs: Any, field: str, says: str) -> None:
    ((line, name, message),) = importing.errors([record("a"), top(ids, logprobs, sample="b"), record("c")])
    assert (line, name) == (2, field)
    assert says in message


def test_top_list_bad_in_one_chunk_and_good_in_another_column_layout(importing: Importing) -> None:
    records = [top([[1], [2], [3]], [[-1]] * 3, sample="a"), record("b", rollout_top_token_ids=[[1], [2], [3]])]
    ((line, name, _),) = importing.errors(records)
    assert (line, name) == (2, "rollout_top_token_ids")
