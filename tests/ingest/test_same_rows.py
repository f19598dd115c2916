"""The same records make the same rows, whatever container, order of keys or spelling they come in."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings

from tests.ingest.files import Importing, ndjson, parquet, record

logprob = st.one_of(st.none(), st.floats(-1e3, 0.0), st.just(-0.0))
number = st.floats(-1e6, 1e6)
token = st.integers(0, 2**31 - 1)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)


@st.composite
def records(draw: st.DrawFn, **fixed: Any) -> dict[str, Any]:
    """A valid record with any subset of the optional fields."""
    n = draw(st.integers(1, 4))

    def per_token(element: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
        return st.lists(element, min_size=n, max_size=n)

    inner = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    optional = {
        "response_mask": per_token(st.sampled_from([0, 1])),
        "rollout_logprobs": per_token(logprob),
        "old_logprobs": per_token(logprob),
        "new_logprobs": per_token(logprob),
        "reward": number | per_token(number),
        "advantage": number | per_token(st.none() | number),
        "trainer_keep": per_token(st.none() | st.booleans()),
        "policy_version": token | per_token(token),
        "turn": per_token(token),
        "minibatch": st.integers(-5, 5) | per_token(st.integers(-5, 5)),
        "prompt_text": words,
        "response_text": words,
        "finish_reason": words,
        "logprobs_approximate": st.booleans(),
        "meta": st.dictionaries(words, st.none() | number | st.integers() | words | st.lists(number, max_size=2)),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(optional))))
    fields = {name: draw(optional[name]) for name in sorted(chosen)}
    if draw(st.booleans()):
        fields["rollout_top_token_ids"] = [draw(st.lists(token, min_size=k, max_size=k)) for k in inner]
        fields["rollout_top_logprobs"] = [draw(st.lists(logprob, min_size=k, max_size=k)) for k in inner]
    return {
        "step": draw(st.integers(0, 2)),
        "sample_id": draw(ids),
        "group_id": draw(ids),
        "prompt_token_ids": draw(st.lists(token, min_size=1, max_size=4)),
        "response_token_ids": draw(per_token(token)),
        **fields,
        **fixed,
    }


def rows_of(content: bytes | Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        importing = Importing(Path(folder))
        importing(content)
        return importing.rows()


def with_shared_types(some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A Parquet column has one type: numbers become lists where another record has a list, meta becomes JSON."""
    shared = []
    for one in some:
        changed = dict(one)
        for name in ("advantage", "policy_version", "minibatch"):
            if name in one and any(isinstance(other.get(name), list) for other in some):
                value = one[name]
                changed[name] = value if isinstance(value, list) else [value] * len(one["response_token_ids"])
        if "meta" in one:
            changed["meta"] = json.dumps(one["meta"])
        shared.append(changed)
    return shared


@settings(max_examples=20, deadline=None)
@given(st.lists(records(), min_size=1, max_size=5, unique_by=lambda one: (one["step"], one["sample_id"])))
def test_containers(some: list[dict[str, Any]]) -> None:
    text = ndjson(some)
    plain = rows_of(text)
    assert len(plain) == len(some)
    assert rows_of(gzip.compress(text)) == plain
    assert rows_of(zstandard.ZstdCompressor().compress(text)) == plain
    if len({isinstance(one["reward"], list) for one in some if "reward" in one}) < 2:
        with tempfile.TemporaryDirectory() as folder:
            shared = with_shared_types(some)
            names = sorted({name for one in shared for name in one})
            path = Path(folder) / "in.parquet"
            parquet(path, {name: pa.array([one.get(name) for one in shared]) for name in names})
            assert rows_of(path) == plain


@settings(max_examples=20, deadline=None)
@given(records(), st.randoms(use_true_random=False))
def test_spellings(one: dict[str, Any], random: Any) -> None:
    (plain,) = rows_of(ndjson([one]))
    keys = list(one)
    random.shuffle(keys)
    shuffled = json.dumps({key: one[key] for key in keys} | {"turn": one.get("turn")}, separators=(" , ", " : "))
    assert rows_of(shuffled.encode()) == [plain]

    def respell(value: Any) -> Any:
        if isinstance(value, list):
            return [respell(item) for item in value]
        if isinstance(value, dict):
            return {key: respell(item) for key, item in reversed(value.items())}
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        if isinstance(value, float):
            return int(value) if value.is_integer() else value
        return float(value) if float(value) == value else value

    respelled = {name: value if name in ("sample_id", "group_id") else respell(value) for name, value in one.items()}
    assert rows_of(ndjson([respelled])) == [plain]


@settings(max_examples=15, deadline=None)
@given(records(sample_id="a"), records(sample_id="a"))
def test_other_content_has_another_hash(one: dict[str, Any], other: dict[str, Any]) -> None:
    (first,), (second,) = rows_of(ndjson([one])), rows_of(ndjson([other]))
    hashes = first.pop("row_hash"), second.pop("row_hash")
    assert (hashes[0] == hashes[1]) == (first == second)


CHANGES: list[dict[str, Any]] = [
    {"step": 1},
    {"sample_id": "b"},
    {"group_id": "h"},
    {"prompt_token_ids": [1, 3]},
    {"prompt_token_ids": [1, 2, 3]},
    {"response_token_ids": [3, 4, 6]},
    {"response_mask": [1, 1, 0]},
    {"rollout_logprobs": [-1, -1, -1]},
    {"rollout_logprobs": [-1, -1, None]},
    {"rollout_logprobs": [-1, None, -1]},
    {"rollout_logprobs": [-1, 0, -1]},
    {"rollout_logprobs": [None, None, None]},
    {"old_logprobs": [-1, -1, -1]},
    {"new_logprobs": [-1, -1, -1]},
    {"reward": 3},
    {"reward": [1, 1, 1]},
    {"reward": [2, 1, 0]},
    {"reward": 0},
    {"advantage": 0},
    {"advantage": [0, 0, None]},
    {"trainer_keep": [True, True, None]},
    {"trainer_keep": [True, True, False]},
    {"policy_version": 0},
    {"minibatch": 0},
    {"turn": [0, 0, 0]},
    {"prompt_text": ""},
    {"response_text": ""},
    {"finish_reason": ""},
    {"logprobs_approximate": False},
    {"logprobs_approximate": True},
    {"meta": {"a": 1}},
    {"meta": {"a": "1"}},
    {"a": 2},
    {"rollout_top_token_ids": [[1], [], []], "rollout_top_logprobs": [[-1], [], []]},
    {"rollout_top_token_ids": [[], [1], []], "rollout_top_logprobs": [[], [-1], []]},
    {"rollout_top_token_ids": [[], [1], []], "rollout_top_logprobs": [[], [None], []]},
    {"rollout_top_token_ids": [[], [], []], "rollout_top_logprobs": [[], [], []]},
]


def test_every_field_is_in_the_hash(importing: Importing) -> None:
    hashes = {importing.row(**change)["row_hash"] for change in ({}, *CHANGES)}
    assert len(hashes) == len(CHANGES) + 1


def test_hash_of_a_record_does_not_depend_on_its_neighbours(importing: Importing) -> None:
    """Neighbours with nulls, with other fields, with longer lists."""
    top = {"rollout_top_token_ids": [[1, 2], None, []], "rollout_top_logprobs": [[-1, None], None, []]}
    neighbours = [
        record("x", rollout_logprobs=[None, -1, None], trainer_keep=[True, None, False], reward=[1, 2, 3]),
        record("y", **top, meta={"a": 1}),
    ]
    some = [*neighbours, record("m", rollout_logprobs=[-1, -2, -3], trainer_keep=[True, True, False])]
    alone = {}
    for one in some:
        importing([one])
        alone[one["sample_id"]] = importing.rows()[0]
    for order in itertools.permutations(some):
        importing(list(order))
        assert {row["sample_id"]: row for row in importing.rows()} == alone


def test_zero_has_one_sign(importing: Importing) -> None:
    """In Python −0 equals 0, in bytes it does not."""
    rows = [
        importing.row(reward=zero, advantage=zero, rollout_logprobs=[zero] * 3, meta={"x": zero})
        for zero in (0, 0.0, -0.0)
    ]
    assert len({row["row_hash"] for row in rows}) == 1
    assert str(rows[2]["reward"]) == "0.0"


@pytest.mark.parametrize(("one", "other"), [("1" + "0" * 20, "1e20"), ("1", "1.0"), ("[0, 2]", "[0.0, 20e-1]")])
def test_one_number_in_meta_has_one_spelling(importing: Importing, one: str, other: str) -> None:
    rows = [
        importing.row_of(ndjson([record(meta={"x": "X"}, y="X")]).replace(b'"X"', spelling.encode()))
        for spelling in (one, other)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("length", [1, 15, 16, 65535, 65536])
def test_length_of_lists(importing: Importing, length: int) -> None:
    """The header of a packed list grows at 16 and at 65536 elements; nulls are packed otherwise."""
    numbers = [-float(index) for index in range(length)]
    holes = [None if index % 3 == 0 else number for index, number in enumerate(numbers)]
    flags = [index % 2 for index in range(length)]
    some = [
        record(
            name,
            response_token_ids=list(range(length)),
            response_mask=mask,
            rollout_logprobs=numbers,
            old_logprobs=holes,
            trainer_keep=[bool(flag) for flag in flags],
            advantage=holes,
            minibatch=flags,
        )
        for name, mask in (("a", None), ("b", [float(flag) for flag in flags]))
    ]
    importing([*some, record("c")])
    for row, mask in zip(importing.rows()[:2], ([True] * length, [bool(flag) for flag in flags]), strict=True):
        assert row["response_token_ids"] == list(range(length))
        assert row["response_mask"] == mask
        assert row["rollout_logprobs"] == [n if counts else None for n, counts in zip(numbers, mask, strict=True)]
        assert row["old_logprobs"] == [n if counts else None for n, counts in zip(holes, mask, strict=True)]
        assert (row["trainer_keep"], row["advantage"], row["minibatch"]) == (flags, holes, flags)
    assert importing.rows()[2]["response_token_ids"] == [3, 4, 5]


def test_sentinels_of_masked_tokens_are_not_in_the_hash(importing: Importing) -> None:
    hashes = {
        importing.row(
            response_mask=[1, 0, 1],
            rollout_logprobs=[-1, sentinel, -2],
            rollout_top_token_ids=[[1], [2], [3]],
            rollout_top_logprobs=[[-1], [sentinel], [-2]],
        )["row_hash"]
        for sentinel in (0, 1.0, -3, None)
    }
    assert len(hashes) == 1


def test_upload_is_not_in_the_hash(importing: Importing) -> None:
    importing([record()], upload="u1")
    (first,) = importing.rows()
    importing([record()], upload="u2")
    (second,) = importing.rows()
    assert first["row_hash"] == second["row_hash"]
    assert (first["upload"], second["upload"]) == ("u1", "u2")


def test_hash_stays_what_it_is(importing: Importing) -> None:
    """Put together by hand: a release that hashes otherwise finds a conflict in every upload that comes again."""
    row = importing.row(
        rollout_logprobs=[-0.5, None, -1.5],
        reward=[1, 2, 3],
        advantage=0.5,
        meta={"k": [1, None]},
        rollout_top_token_ids=[[3, 9], None, [5]],
        rollout_top_logprobs=[[-0.5, None], None, [-1]],
    )
    head = msgspec.msgpack.encode(("rollout-v1", 0, "a", "g", 6.0, None, '{"k":[1,null]}', None, None, None))
    # Length + 1 and number of nulls of each list: prompt, response, mask, rollout, old, new, token_rewards, advantage,
    # trainer_keep, policy_version, turn, minibatch, top ids, top log-probs (all entries of all positions).
    shape = struct.pack("<28I", 3, 0, 4, 0, 4, 0, 4, 1, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 4, 1)
    lists = [
        struct.pack("<2I", 1, 2),
        struct.pack("<3I", 3, 4, 5),
        b"\1\1\1",
        struct.pack("<3d", -0.5, 0, -1.5),
        b"\1\0\1",  # where there are nulls: which are known
        struct.pack("<3d", 1, 2, 3),
        struct.pack("<3d", 0.5, 0.5, 0.5),
        struct.pack("<3I", 2, 0, 1),
        struct.pack("<3I", 3, 9, 5),
        struct.pack("<3I", 2, 0, 1),
        struct.pack("<3d", -0.5, 0, -1),
        b"\1\0\1",
    ]
    assert row["row_hash"] == hashlib.sha256(head + shape + b"".join(lists)).hexdigest()[:32]
