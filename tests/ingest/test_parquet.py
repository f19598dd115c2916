"""Parquet files: the same names as columns, any type that loses nothing."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import BadRecord, TooLarge
from tests.ingest.files import Importing, parquet

BASE: dict[str, Any] = {
    "step": [0, 1],
    "sample_id": ["a", "b"],
    "group_id": ["g", "h"],
    "prompt_token_ids": [[1, 2], [3]],
    "response_token_ids": [[4, 5], [6]],
    "response_mask": [[True, False], [True]],
}


def table(**columns: Any) -> dict[str, Any]:
    """The base columns with changes; `...` leaves one out."""
    return {name: column for name, column in {**BASE, **columns}.items() if column is not ...}


def rows(importing: Importing, **columns: Any) -> list[dict[str, Any]]:
    importing(parquet(importing.folder / f"in-{importing.count}", table(**columns)))
    return importing.rows()


def errors(importing: Importing, **columns: Any) -> list[tuple[int | None, str | None, str]]:
    return importing.errors(parquet(importing.folder / f"in-{importing.count}", table(**columns)))


def test_only_what_is_required(importing: Importing) -> None:
    manifest = importing(parquet(importing.folder / "in", table(response_mask=...)))
    assert (manifest["rollouts"], manifest["tokens"], manifest["counted_tokens"]) == (2, 3, 3)
    assert [one["code"] for one in manifest["warnings"]] == ["no_response_mask"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.uint8(),
        pa.int16(),
        pa.uint16(),
        pa.int32(),
        pa.uint32(),
        pa.int64(),
        pa.uint64(),
        pa.float32(),
        pa.float64(),
    ],
)
def test_width_of_numbers(importing: Importing, kind: Any) -> None:
    first, second = rows(
        importing,
        step=pa.array([0, 1], kind),
        prompt_token_ids=pa.array([[1, 2], [3]], pa.list_(kind)),
        response_token_ids=pa.array([[4, 5], [6]], pa.list_(kind)),
        turn=pa.array([[0, 1], None], pa.list_(kind)),
        response_mask=pa.array([[1, 0], [1]], pa.list_(kind)),
        advantage=pa.array([2, None], kind),
        policy_version=pa.array([3, None], kind),
        minibatch=pa.array([[3, 4], None], pa.list_(kind)),
        reward=pa.array([[1, 2], None], pa.list_(kind)),
    )
    assert (first["step"], second["step"]) == (0, 1)
    assert first["prompt_token_ids"] == [1, 2]
    assert first["response_mask"] == [True, False]
    assert (first["turn"], second["turn"]) == ([0, 1], None)
    assert (first["advantage"], second["advantage"]) == ([2, 2], None)
    assert (first["policy_version"], second["policy_version"]) == ([3, 3], None)
    assert (first["minibatch"], second["minibatch"]) == ([3, 4], None)
    assert (first["reward"], first["token_rewards"], second["reward"]) == (3, [1, 2], None)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int32()])
def test_width_of_logprobs(importing: Importing, kind: Any) -> None:
    value = -2 if kind == pa.int32() else -2.5
    logprobs = pa.array([np.array([value, value], kind.to_pandas_dtype()), None], pa.list_(kind))
    top = pa.array([[[value], None], None], pa.list_(pa.list_(pa.float64()))).cast(pa.list_(pa.list_(kind)))
    first, second = rows(
        importing, rollout_logprobs=logprobs, rollout_top_logprobs=top, rollout_top_token_ids=[[[7], []], None]
    )
    assert (first["rollout_logprobs"], second["rollout_logprobs"]) == ([value, None], None)
    assert (first["rollout_top_logprobs"], first["rollout_top_token_ids"]) == ([[value], None], [[7], None])


@pytest.mark.parametrize(
    "make",
    [pa.large_list, pa.list_view, pa.large_list_view, lambda kind: pa.list_(kind, 2)],
    ids=["large_list", "list_view", "large_list_view", "fixed_size"],
)
def test_kinds_of_lists(importing: Importing, make: Any) -> None:
    lists = [[-1.0, -2.0], [-3.0, -4.0], None]
    first, second, third = rows(
        importing,
        step=[0, 0, 0],
        sample_id=["a", "b", "c"],
        group_id=["g"] * 3,
        response_mask=...,
        prompt_token_ids=pa.array([[1, 2], [3, 4], [5, 6]], make(pa.int64())),
        response_token_ids=pa.array([[1, 2], [3, 4], [5, 6]], make(pa.int64())),
        rollout_logprobs=pa.array(lists, make(pa.float64())),
        rollout_top_logprobs=pa.array([[one, one] if one else None for one in lists], make(make(pa.float64()))),
        rollout_top_token_ids=pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]], None], make(make(pa.int64()))),
    )
    assert (first["prompt_token_ids"], third["response_token_ids"]) == ([1, 2], [5, 6])
    assert [row["rollout_logprobs"] for row in (first, second, third)] == lists
    assert second["rollout_top_logprobs"] == [[-3.0, -4.0], [-3.0, -4.0]]
    assert second["rollout_top_token_ids"] == [[5, 6], [7, 8]]
    assert third["rollout_top_logprobs"] is None


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_kinds_of_strings(importing: Importing, kind: Any) -> None:
    first, second = rows(
        importing,
        sample_id=pa.array(["a", "b"], kind),
        finish_reason=pa.array(["stop", None], kind),
        meta=pa.array(['{"x": 1}', None], kind),
    )
    assert (first["sample_id"], first["finish_reason"], first["meta"]) == ("a", "stop", '{"x":1}')
    assert (second["sample_id"], second["finish_reason"], second["meta"]) == ("b", None, None)


def test_integer_ids(importing: Importing) -> None:
    first, second = rows(importing, sample_id=pa.array([2**63, 1], pa.uint64()), group_id=[-1, 0])
    assert (first["sample_id"], first["group_id"]) == ("9223372036854775808", "-1")
    assert (second["sample_id"], second["group_id"]) == ("1", "0")


def test_64_bit_integers_are_exact(importing: Importing) -> None:
    first, _ = rows(importing, policy_version=[2**63 - 1, 0], minibatch=[[2**53 + 1, -(2**63)], None])
    assert first["policy_version"] == [2**63 - 1] * 2
    assert first["minibatch"] == [2**53 + 1, -(2**63)]


@pytest.mark.parametrize(
    "meta",
    [
        pa.array(['{"a": {"b": 1.0}, "n": null, "c": [1, null]}', None]),
        pa.array([{"a": {"b": 1}, "n": None, "c": [1, None]}, None]),
        pa.array([{"a": {"b": 1.0}, "c": [1, None]}, {"a": None, "c": None}]),
    ],
)
def test_meta(importing: Importing, meta: Any) -> None:
    first, second = rows(importing, meta=meta)
    assert (first["meta"], second["meta"]) == ('{"a":{"b":1},"c":[1,null]}', None)


def test_meta_as_a_map(importing: Importing) -> None:
    meta = pa.array([[("b", "2"), ("a", None)], []], pa.map_(pa.string(), pa.string()))
    assert [row["meta"] for row in rows(importing, meta=meta)] == ['{"b":"2"}', None]
    twice = pa.array([[("b", "2"), ("b", "3")], []], pa.map_(pa.string(), pa.string()))
    assert [(line, field) for line, field, _ in errors(importing, meta=twice)] == [(1, "meta")]


@pytest.mark.parametrize("text", ["[1]", "{", "1", "nonsense", '{"a": NaN}'])
def test_meta_that_is_no_object(importing: Importing, text: str) -> None:
    ((line, field, _),) = errors(importing, meta=[None, text])
    assert line == 2
    assert field in ("meta", "meta.a")


def test_unknown_columns(importing: Importing) -> None:
    path = parquet(
        importing.folder / "in",
        table(
            entropy=[[0.5, 1.0], None],
            when=[datetime.datetime(2026, 1, 2, 3, 4, 5), None],
            price=[decimal.Decimal("1.50"), None],
            raw=[b"\x00\xff", None],
            nothing=pa.nulls(2),
            own=[1, 2],
        ),
    )
    manifest = importing(path)
    assert [json.loads(row["meta"]) for row in importing.rows()] == [
        {"entropy": [0.5, 1], "when": "2026-01-02T03:04:05", "price": "1.50", "raw": "AP8=", "own": 1},
        {"own": 2},
    ]
    (note,) = manifest["notes"]
    assert (note["code"], note["count"]) == ("unknown_fields", 6)


def test_wrong_columns_are_all_named(importing: Importing) -> None:
    found = errors(
        importing,
        group_id=...,
        rollout_logprob=[None, [-1.0]],
        reward=["x", "y"],
        trainer_keep=[[1, 0], [1]],
        step=["0", "1"],
        meta=[1, 2],
        advantage=[datetime.date(2026, 1, 1)] * 2,
    )
    assert all(line is None for line, _, _ in found)
    assert {field: message for _, field, message in found} == {
        "step": "the column is string; it should hold integers",
        "rollout_logprob": "unknown column 'rollout_logprob'; did you mean 'rollout_logprobs'?",
        "reward": "the column is string; it should hold numbers or lists of numbers",
        "trainer_keep": "the column is list<element: int64>; it should hold lists of booleans",
        "meta": "the column is int64; it should hold JSON strings, structs or maps",
        "advantage": "the column is date32[day]; it should hold numbers or lists of numbers",
        "group_id": "the column is required and missing",
    }


def test_step_beside_the_file(importing: Importing) -> None:
    path = parquet(importing.folder / "in", table(step=...))
    importing(path, step=9)
    assert [row["step"] for row in importing.rows()] == [9, 9]
    assert importing.errors(path) == [(None, "step", "the column is required and missing")]
    path = parquet(importing.folder / "in2", table(step=[None, 3]))
    assert [(line, field) for line, field, _ in importing.errors(path, step=9)] == [(2, "step")]
    assert [(line, field) for line, field, _ in importing.errors(path)] == [(1, "step")]


@pytest.mark.parametrize(
    ("columns", "line", "field"),
    [
        ({"rollout_logprobs": [[-1.0, float("nan")], None]}, 1, "rollout_logprobs[1]"),  # masked, but no sentinel
        ({"rollout_logprobs": [None, [float("nan")]]}, 2, "rollout_logprobs[0]"),
        ({"old_logprobs": [None, [float("-inf")]]}, 2, "old_logprobs[0]"),
        ({"new_logprobs": [None, [0.5]]}, 2, "new_logprobs[0]"),
        ({"advantage": [1.0, float("nan")]}, 2, "advantage"),
        ({"advantage": [None, [float("inf")]]}, 2, "advantage[0]"),
        ({"reward": [float("nan"), 1.0]}, 1, "reward"),
        ({"reward": [[1.0, None], None]}, 1, "reward[1]"),
        ({"step": [0.5, 1]}, 1, "step"),
        ({"step": [-1, 1]}, 1, "step"),
        ({"sample_id": ["a", None]}, 2, "sample_id"),
        ({"sample_id": ["a", "b"], "group_id": pa.array(["g", None])}, 2, "group_id"),
        ({"group_id": ["", "g"]}, 1, "group_id"),
        ({"prompt_token_ids": [[1, None], [2]]}, 1, "prompt_token_ids[1]"),
        ({"prompt_token_ids": [[1], [2.5]]}, 2, "prompt_token_ids[0]"),
        ({"prompt_token_ids": [[1], None]}, 2, "prompt_token_ids"),
        ({"response_token_ids": [[4, 2**31], [6]]}, 1, "response_token_ids[1]"),
        ({"response_token_ids": [None, [6]]}, 1, "response_token_ids"),
        ({"response_mask": [[1, 2], [1]]}, 1, "response_mask[1]"),
        ({"response_mask": [[1], [1]]}, 1, "response_mask"),
        ({"policy_version": [1.5, 1]}, 1, "policy_version"),
        ({"turn": [[0, -1], None]}, 1, "turn[1]"),
        (
            {"rollout_top_token_ids": [[[1], [2]], None], "rollout_top_logprobs": [[[-1.0], None], None]},
            1,
            "rollout_top_logprobs[1]",
        ),
        ({"rollout_top_token_ids": [[[1], [2]], None]}, 1, "rollout_top_token_ids"),
        (
            {"rollout_top_token_ids": [[[1], [None]], None], "rollout_top_logprobs": [[[-1.0], [-1.0]], None]},
            1,
            "rollout_top_token_ids[1][0]",
        ),
        ({"own": [float("nan"), 1.0]}, 1, "own"),
        ({"reward": [float("nan"), 1.0], "meta": ['{"a": 1}', "{}"]}, 1, "reward"),
        ({"prompt_text": pa.array([b"\xff", b"ok"]).view(pa.string())}, 1, "prompt_text"),
        ({"sample_id": pa.array([b"ok", b"\xff"]).view(pa.string())}, 2, "sample_id"),
    ],
)
def test_bad_rows(importing: Importing, columns: dict[str, Any], line: int, field: str) -> None:
    found = errors(importing, **columns)
    assert [one[:2] for one in found] == [(line, field)]


@pytest.mark.parametrize("name", ["step", "sample_id", "group_id", "prompt_token_ids", "response_token_ids"])
def test_required_column_of_nothing_but_nulls(importing: Importing, name: str) -> None:
    found = errors(importing, **{name: pa.nulls(2)}, response_mask=...)
    assert [one[:2] for one in found] == [(1, name), (2, name)]


def test_row_numbers_go_on_over_batches_and_row_groups(importing: Importing) -> None:
    count = 9000
    columns = {
        "step": [0] * count,
        "sample_id": [str(index) for index in range(count)],
        "group_id": ["g"] * count,
        "prompt_token_ids": [[1]] * count,
        "response_token_ids": [[1]] * count,
        "reward": [float("nan") if index in (10, 5000, 8999) else 1.0 for index in range(count)],
    }
    path = parquet(importing.folder / "in", columns, row_group_size=1000)
    assert [line for line, _, _ in importing.errors(path)] == [11, 5001, 9000]


def test_two_columns_of_one_name(importing: Importing) -> None:
    columns = [pa.array(column) for column in BASE.values()]
    path = importing.folder / "in"
    pq.write_table(pa.table([*columns, columns[0]], names=[*BASE, "step"]), path)
    assert importing.errors(path) == [(None, "step", "the file has two columns of this name")]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)])
def test_column_of_lists_of_nulls(importing: Importing, make: Any) -> None:
    importing(
        parquet(
            importing.folder / "in",
            {
                "step": [0],
                "sample_id": ["a"],
                "group_id": ["g"],
                "prompt_token_ids": [[1]],
                "response_token_ids": [[4, 5]],
                "rollout_logprobs": pa.array([[None, None]], make(pa.null())),
                "rollout_top_logprobs": pa.array([[[None, None], [None, None]]], pa.list_(make(pa.null()))),
                "rollout_top_token_ids": [[[1, 2], [3, 4]]],
            },
        )
    )
    (row,) = importing.rows()
    assert row["rollout_logprobs"] == [None, None]
    assert row["rollout_top_logprobs"] == [[None, None], [None, None]]


def test_no_rows(importing: Importing) -> None:
    path = parquet(importing.folder / "in", {name: pa.array(column)[:0] for name, column in BASE.items()})
    assert "holds no record" in importing.refused(path).detail


def test_cut_off_and_damaged(importing: Importing) -> None:
    content = parquet(importing.folder / "in", table(prompt_text=["x" * 1000, "y" * 1000])).read_bytes()
    assert "cut off" in importing.refused(content[:-1]).detail
    assert isinstance(importing.refused(content[:-8] + b"\xff\xff\xff\x7fPAR1"), BadRecord)  # no such footer
    assert isinstance(importing.refused(b"PAR1PAR1"), BadRecord)
    damaged = bytearray(content)
    damaged[4:200] = b"\xff" * 196  # the first pages
    assert isinstance(importing.refused(bytes(damaged)), BadRecord)


def test_sizes_are_judged_before_reading(importing: Importing) -> None:
    path = parquet(importing.folder / "in", table())
    error = importing.refused(path, limits={"expanded_bytes": 50})
    assert isinstance(error, TooLarge)
    assert "more than 50 bytes" in error.detail


def test_bomb(importing: Importing) -> None:
    """Ten million equal ids are a few bytes of run lengths in the file, and 80 MB once read."""
    ids = pa.ListArray.from_arrays(pa.array([0, 10_000_000], pa.int32()), pa.array(np.zeros(10_000_000, np.int32)))
    columns = {"step": [0], "sample_id": ["a"], "group_id": ["g"], "prompt_token_ids": ids, "response_token_ids": [[1]]}
    path = parquet(importing.folder / "in", columns, compression="zstd")
    assert path.stat().st_size < 100_000
    error = importing.refused(path)
    assert isinstance(error, TooLarge)
    assert "expands more than 200 times" in error.detail


def test_pandas_writes_missing_values_as_nulls_or_as_nan(importing: Importing) -> None:
    first, second = rows(importing, reward=pa.array([1.0, None]), finish_reason=pa.array([None, "stop"]))
    assert (first["reward"], second["reward"]) == (1.0, None)
    assert (first["finish_reason"], second["finish_reason"]) == (None, "stop")


def test_name_of_a_column_that_is_not_utf_8(importing: Importing) -> None:
    content = parquet(importing.folder / "in", table(entropy=[1, 2])).read_bytes()
    error = importing.refused(content.replace(b"entropy", b"entr\xffpy"))
    assert isinstance(error, BadRecord)
    assert "cannot be read" in error.detail


def test_unknown_columns_of_types_that_json_does_not_have(importing: Importing) -> None:
    first, second = rows(
        importing,
        when=pa.array([1, None], pa.timestamp("ns")),
        took=pa.array([10**9 + 1, None], pa.duration("ns")),
        at=pa.array([1, None], pa.time64("ns")),
        both=pa.array([{"x": datetime.date(2026, 1, 2)}, None]),
        kind=pa.array(["a", None]).dictionary_encode(),
        none=pa.array([[None], None]),
    )
    assert json.loads(first["meta"]) == {
        "when": "1970-01-01 00:00:00.000000001",
        "took": "1000000001",
        "at": "00:00:00.000000001",
        "both": {"x": "2026-01-02"},
        "kind": "a",
        "none": [None],
    }
    assert second["meta"] is None
    bad = {"own": pa.array([[("b", "2"), ("b", "3")], []], pa.map_(pa.string(), pa.string()))}
    assert [(line, field) for line, field, _ in errors(importing, **bad)] == [(1, "own")]
    bad = {"own": pa.array([b"ok", b"\xff"]).view(pa.string())}
    assert errors(importing, **bad) == [(2, "own", "is not valid UTF-8")]
