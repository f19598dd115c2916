"""`meta`, fields that the rollout record does not have, and names that were meant to be one of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.ingest.names import KNOWN, near_miss
from service.ingest.record import Decoder, Undecodable
from tests.ingest.files import Importing, ndjson, record


def meta_of(importing: Importing, /, **fields: Any) -> Any:
    text = importing.row(**fields)["meta"]
    return None if text is None else json.loads(text)


def test_unknown_fields_are_kept_in_meta(importing: Importing) -> None:
    manifest = importing(
        [
            record("a", entropy=[0.5, 1.0, 2.5], env_name="math"),
            record("b"),
            record("c", env_name="code", meta={"k": 1}),
            record("d", env_name=None),
        ]
    )
    assert [row["meta"] for row in importing.rows()] == [
        '{"entropy":[0.5,1,2.5],"env_name":"math"}',
        None,
        '{"env_name":"code","k":1}',
        None,
    ]
    assert manifest["notes"] == [
        {
            "code": "unknown_fields",
            "level": "note",
            "message": "Fields that the rollout record does not have were kept in meta: 'env_name' (2), 'entropy' (1).",
            "count": 3,
            "examples": [{"line": 1, "field": "entropy"}, {"line": 1, "field": "env_name"}],
        }
    ]


def test_unknown_field_that_meta_has_too(importing: Importing) -> None:
    assert meta_of(importing, meta={"x": 1}, x=1.0) == {"x": 1}  # the same: once
    assert meta_of(importing, meta={"x": 1}, x=2) == {"x": 1, "record.x": 2}
    assert meta_of(importing, meta={"x": 1, "record.x": 3}, x=2) == {"x": 1, "record.x": 3, "record.record.x": 2}
    assert meta_of(importing, meta={"x": None}, x=2) == {"x": 2}


@pytest.mark.parametrize("name", ["", "a b", "ünï", "extra_0", "__class__", "self", 'q"uote', "class", "x.y", "a\nb"])
def test_names_of_any_kind(importing: Importing, name: str) -> None:
    assert meta_of(importing, **{name: [1, {"y": None}]}) == {name: [1, {}]}


def test_more_names_than_are_learnt(importing: Importing) -> None:
    """Every record with ten names of its own; the decoder takes in 256."""
    records = [record(str(index), **{f"own{index}x{k}": k for k in range(10)}) for index in range(60)]
    manifest = importing(records)
    assert sorted(list(json.loads(row["meta"]).items()) for row in importing.rows()) == sorted(
        [(f"own{index}x{k}", k) for k in range(10)] for index in range(60)
    )
    (note,) = manifest["notes"]
    assert note["count"] == 600
    assert note["message"].endswith(", and 580 more.")


def test_names_beyond_the_limit_are_left_to_the_slow_reading() -> None:
    decoder = Decoder()
    for number in range(256):
        decoder.decode(json.dumps(record(**{f"own{number}x": 1})).encode())
    with pytest.raises(Undecodable):
        decoder.decode(json.dumps(record(own256x=1)).encode())
    assert len(decoder.extras(decoder.decode(json.dumps(record(own255x=1)).encode()))) == 1


def test_more_names_than_are_counted(importing: Importing) -> None:
    (note,) = importing([record(**{f"own{k}x": k for k in range(1500)})])["notes"]
    assert note["count"] == 1500


@pytest.mark.parametrize("meta", [1, "text", [1], True])
def test_meta_is_an_object(importing: Importing, meta: Any) -> None:
    assert importing.error(meta=meta)[0] == "meta"


def test_meta_without_content_is_none(importing: Importing) -> None:
    assert meta_of(importing, meta={}) is None
    assert meta_of(importing, meta={"a": None, "b": {}}) == {"b": {}}


def test_bad_json_inside_of_meta(importing: Importing) -> None:
    line = ndjson([record(meta={"a": {"b": [1, "X"]}}, other=["X"])]).replace(b'"X"', b"NaN", 1)
    assert importing.errors(line)[0][1] == "meta.a.b[1]"
    line = ndjson([record(other=[1, "X"])]).replace(b'"X"', b"-Infinity")
    assert importing.errors(line)[0][1] == "other[1]"
    line = ndjson([record(meta={"a": "\udc00"})])
    assert importing.errors(line) == [
        (1, "meta", "has half a surrogate pair in one of its strings, which is no character")
    ]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_depth(importing: Importing) -> None:
    assert meta_of(importing, meta={"x": nested(90)}) == {"x": nested(90)}
    field, message = importing.error(meta={"x": nested(500)})
    assert field.startswith("meta.x[0][0]")  # type: ignore[union-attr]
    assert message == "is nested more than 100 levels deep"
    assert importing.error(other=nested(500))[1] == "is nested more than 100 levels deep"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("rollout_logprob", "rollout_logprobs"),
        ("rolloutLogprobs", "rollout_logprobs"),
        ("advantages", "advantage"),
        ("rollout-logprobs", "rollout_logprobs"),
        ("ROLLOUT_LOGPROBS", "rollout_logprobs"),
        ("rewards", "reward"),
        ("old_log_probs", "old_logprobs"),
        ("minibatches", "minibatch"),
        ("sampleId", "sample_id"),
        ("groupID", "group_id"),
        ("repsonse_mask", "response_mask"),
        ("response_msk", "response_mask"),
        ("response_maskk", "response_mask"),
        ("response_mosk", "response_mask"),
        ("Step", "step"),
        ("steps", "step"),
        ("metas", "meta"),
        ("_step", "step"),
        ("prompt_tokens_ids", "prompt_token_ids"),
        ("prompt_token_id", "prompt_token_ids"),
        ("prompts_token_id", "prompt_token_ids"),
        ("policy_versions", "policy_version"),
        ("finishReasons", "finish_reason"),
        ("responseMsk", "response_mask"),
        ("Rewrd", "reward"),
        ("log_probs_approximat", "logprobs_approximate"),
    ],
)
def test_near_misses(importing: Importing, name: str, meant: str) -> None:
    assert importing.error(**{name: None}) == (name, f"unknown field {name!r}; did you mean {meant!r}?")


@pytest.mark.parametrize(
    "name",
    [
        "prompt_tokens",
        "response",
        "tokens",
        "logprobs",
        "entropy",
        "run",
        "group",
        "sample",
        "id",
        "text",
        "data",
        "ref_logprobs",
        "upload",
        "row_hash",
        "prompt",
        "loss_mask",
        "trainer",
        "version",
        "x" * 1000,
    ],
)
def test_names_of_their_own(name: str) -> None:
    assert near_miss(name) is None


def test_known_names_are_apart_from_each_other() -> None:
    assert len(KNOWN) == 22


def test_near_miss_in_a_file_that_has_unknown_fields(importing: Importing) -> None:
    records = [record("a", own=1), record("b", own=1, rewrad=1), record("c", owm=2)]
    assert [(line, field) for line, field, _ in importing.errors(records)] == [(2, "rewrad")]


def test_names_in_messages_are_short_and_can_be_sent(importing: Importing) -> None:
    (note,) = importing([record(**{"x" * 10_000: 1})])["notes"]
    assert note["examples"] == [{"line": 1, "field": "x" * 100 + "…"}]
    assert len(note["message"]) < 300
    (error,) = importing.errors([record(**{"x" * 10_000: "\ud800"})])
    assert len(str(error)) < 300
    (_, name, message), _ = importing.errors([record(**{"step\ud800": 1})])
    assert name == "step?"
    assert message.isprintable()
    assert len(importing.error(step="y" * 10_000)[1]) < 200
