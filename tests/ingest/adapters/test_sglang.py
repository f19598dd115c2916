"""SGLang's /generate, as the server of sglang 0.5.23 answered, and what it can answer besides.

tests/data/formats/sglang-0.5.23-generate.jsonl is written by write_sglang.py beside it. In its model, token (t + k) mod
16 follows t with log-prob −k·ln 2.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import words
from tests.ingest.files import Importing, ndjson

GENERATED = Path(__file__).parents[2] / "data" / "formats" / "sglang-0.5.23-generate.jsonl"
PROMPT = [7, 8, 7, 9]  # "2+2?"
COUNTS = {"cached_tokens": 0, "num_retractions": 0, "prompt_tokens": 4, "reasoning_tokens": 0}


def generated(importing: Importing) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The manifest, and the rows by sample, of the file that SGLang wrote."""
    manifest = importing(GENERATED, tokenizer=words(importing.folder / "words"), step=6)
    assert manifest["format"] == "sglang"
    return manifest, {row["sample_id"]: row for row in importing.rows()}


def meta_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row's meta without times."""
    meta = json.loads(row["meta"])
    assert meta.pop("e2e_latency") > 0
    assert meta.pop("response_sent_to_client_ts") > 0
    return meta


def ranked(*ranks: int) -> Any:
    """The log-probs of tokens of these ranks."""
    return pytest.approx([-rank * math.log(2) for rank in ranks], abs=1e-6)


def test_every_field(importing: Importing) -> None:
    manifest, rows = generated(importing)
    assert manifest["rollouts"] == 10
    assert [one["examples"][0]["line"] for one in manifest["warnings"] if one["code"] == "left_out"] == [9]  # an error
    row = rows["all"]
    assert (row["step"], row["reward"], row["advantage"], row["policy_version"]) == (6, None, None, None)
    # the prompt's ids out of input_token_logprobs, which begin at its first token
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 11, 12])
    assert row["rollout_logprobs"] == ranked(1, 1, 1)
    assert row["rollout_top_token_ids"] == [[10, 11], [11, 12], [12, 13]]
    assert row["rollout_top_logprobs"] == [ranked(1, 2)] * 3
    assert (row["finish_reason"], row["response_text"], row["prompt_text"]) == ("length", "4four is", None)
    assert row["logprobs_approximate"] is None
    assert meta_of(row) == {
        **COUNTS,
        "finish_reason": {"type": "length", "length": 3},
        "completion_tokens": 3,
        "output_token_logprobs_length": 3,
        "weight_version": "default",
        "weight_versions": [{"version": "default", "start": 0, "end": 3}],
    }


def test_two_answers_to_one_prompt(importing: Importing) -> None:
    _, rows = generated(importing)
    first, second = (row for row in rows.values() if row["response_tokens"] == 4 and row["sample_id"] != "mask")
    assert first["group_id"] == second["group_id"] == rows["all"]["group_id"]
    assert {tuple(row["prompt_token_ids"]) for row in (first, second)} == {tuple(PROMPT)}
    found = {tuple(row["response_token_ids"]): row for row in (first, second)}
    assert set(found) == {(10, 11, 13, 0), (10, 11, 0, 1)}
    third, fifth = found[10, 11, 13, 0], found[10, 11, 0, 1]
    assert (third["rollout_logprobs"], fifth["rollout_logprobs"]) == (ranked(1, 1, 2, 3), ranked(1, 1, 5, 1))
    assert third["rollout_top_token_ids"] == [[10, 11], [11, 12], [12, 13], [14, 15]]  # whatever was sampled
    assert fifth["rollout_top_token_ids"] == [[10, 11], [11, 12], [12, 13], [1, 2]]
    assert third["rollout_top_logprobs"] == [ranked(1, 2)] * 4


def test_a_response_of_its_end_token_alone(importing: Importing) -> None:
    """Rank 9, with a logit_bias of 9·ln 2, which the log-prob contains: odds of 1 to 1 − 2^−9."""
    row = generated(importing)[1]["ended"]
    assert (row["prompt_token_ids"], row["response_token_ids"], row["response_text"]) == (PROMPT, [2], "")
    assert row["rollout_logprobs"] == pytest.approx([-math.log(2 - 1 / 512)], abs=1e-6)
    assert (row["finish_reason"], row["rollout_top_token_ids"]) == ("stop", None)
    assert meta_of(row)["finish_reason"] == {"type": "stop", "matched": 2}


@pytest.mark.parametrize("name", ["flat", "flat-b64"])
def test_flat_top_lists(importing: Importing, name: str) -> None:
    """return_flat_raw_output_top_logprobs, as numbers and as encoded arrays."""
    row = generated(importing)[1][name]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 11, 12])
    assert row["rollout_top_token_ids"] == [[10, 11], [11, 12], [12, 13]]
    assert row["rollout_top_logprobs"] == [ranked(1, 2)] * 3
    assert set(meta_of(row)) == set(meta_of(generated(importing)[1]["all"]))


def test_temperature_is_in_the_logprobs_and_top_k_is_not(importing: Importing) -> None:
    """T = 2 and top_k = 2: rank k has probability 2^(−k/2)/Z over all 16 tokens, two of which are of rank 15."""
    row = generated(importing)[1]["mask"]
    log_z = math.log(sum(2 ** (-rank / 2) for rank in [*range(1, 16), 15]))
    first, second = (-rank / 2 * math.log(2) - log_z for rank in (1, 2))
    assert row["response_token_ids"] == [10, 12, 13, 14]
    assert row["rollout_logprobs"] == pytest.approx([first, second, first, first], abs=1e-6)
    assert row["rollout_top_token_ids"] == [[10, 11], [11, 12], [13, 14], [14, 15]]
    assert row["rollout_top_logprobs"] == [pytest.approx([first, second], abs=1e-6)] * 4
    added = {"output_token_sampling_mask_length"}
    assert set(meta_of(row)) == set(meta_of(generated(importing)[1]["all"])) | added


def test_text_alone(importing: Importing) -> None:
    """Without return_logprob there are ids, but none of the prompt. A stop string is in the ids, not in the text."""
    row = generated(importing)[1]["text"]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 11, 12, 13, 14])
    assert (row["prompt_text"], row["response_text"]) == ("2+2?", "4four is it")
    assert row["rollout_logprobs"] is row["rollout_top_token_ids"] is None
    assert row["logprobs_approximate"] is True
    meta = meta_of(row)
    assert meta["approximate_token_ids"] == ["prompt"]
    assert meta["finish_reason"] == {"type": "stop", "matched": "é"}


def test_weight_versions(importing: Importing) -> None:
    manifest, rows = generated(importing)
    assert rows["version"]["policy_version"] == [7, 7, 7]
    row = rows["versions"]  # of which `weight_version` says 8
    assert (row["response_token_ids"], row["rollout_logprobs"]) == ([10, 11, 12, 13, 14, 15], ranked(*[1] * 6))
    assert row["policy_version"] == [7, 7, 7, 7, 8, 8]
    assert not {"weight_version", "weight_versions"} & set(meta_of(row))
    assert "several_policy_versions" in {one["code"] for one in manifest["notes"]}


TOP = [[[-0.1, 10, None], [-2.5, 11, None]], [[-0.2, 2, None], [-1.9, 6, None]]]


def line(meta: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A response of two tokens to a prompt of three, asked for with return_logprob and top_logprobs_num=2."""
    written = {
        "text": "4",
        "output_ids": [10, 2],
        "prompt_token_ids": [7, 8, 7],
        "meta_info": {
            "id": "r1",
            "finish_reason": {"type": "stop", "matched": 2},
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "weight_version": "12",
            "input_token_logprobs": [[None, 7, None], [-3.0, 8, None], [-1.0, 7, None]],
            "output_token_logprobs": [[-0.1, 10, None], [-0.2, 2, None]],
            "output_token_logprobs_length": 2,
            "input_top_logprobs": [None, [[-3.0, 8, None]], [[-1.0, 7, None]]],
            "output_top_logprobs": TOP,
            "output_token_ids_logprobs": [[[-5.0, 99, None]], [[-6.0, 99, None]]],
            **(meta or {}),
        },
        "step": 4,
        "reward": 1.0,
    }
    return {name: value for name, value in {**written, **fields}.items() if value is not ...}


def test_one_weight_version_for_all(importing: Importing) -> None:
    """Servers without `weight_versions`."""
    importing([line(advantage=0.5)])
    (row,) = importing.rows()
    assert (row["step"], row["reward"], row["advantage"], row["policy_version"]) == (4, 1, [0.5, 0.5], [12, 12])
    assert "weight_version" not in json.loads(row["meta"])


def test_weights_with_and_without_a_number(importing: Importing) -> None:
    spans = [{"version": "default", "start": 0, "end": 1}, {"version": "12", "start": 1, "end": 2}]
    importing([line({"weight_versions": spans})])
    (row,) = importing.rows()
    assert row["policy_version"] is None
    meta = json.loads(row["meta"])
    assert (meta["weight_version"], meta["weight_versions"]) == ("12", spans)


def test_ids_out_of_the_triples(importing: Importing) -> None:
    """Older servers write neither `output_ids` nor `prompt_token_ids`."""
    importing([line(output_ids=..., prompt_token_ids=...)])
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([7, 8, 7], [10, 2])


def test_half_a_prompt_is_no_prompt(importing: Importing) -> None:
    """logprob_start_len > 0: the triples begin inside the prompt."""
    short = {"input_token_logprobs": [[None, 8, None], [-1.0, 7, None]]}
    ((number, field, message),) = importing.errors([line(short, prompt_token_ids=...)])
    assert (number, field) == (1, "prompt_token_ids")
    assert message.startswith("is required and missing; ask for return_prompt_token_ids, or return_logprob")


def test_the_same_prompt_is_the_same_group(importing: Importing) -> None:
    importing(
        [line(), line({"id": "r2"}), line({"id": "r3"}, prompt_token_ids=[8, 8, 8]), line({"id": "r4"}, group_id="g")]
    )
    groups = [row["group_id"] for row in importing.rows()]
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == "g"


def test_top_lists_are_sorted_and_may_lack_a_position(importing: Importing) -> None:
    importing([line({"output_top_logprobs": [None, [[-1.9, 6, "2"], [-0.2, 2, None], [None, 5, None]]]})])
    (row,) = importing.rows()
    assert row["rollout_top_token_ids"] == [None, [2, 6]]
    assert row["rollout_top_logprobs"] == [None, [-0.2, -1.9]]


def test_flat_top_lists_may_lack_the_first_positions(importing: Importing) -> None:
    importing([flat(val_flat=[-1.9, -0.2], idx_flat=[6, 2], shape=[1, 2], null_prefix=1)])
    (row,) = importing.rows()
    assert row["rollout_top_token_ids"] == [None, [2, 6]]
    assert row["rollout_top_logprobs"] == [None, [-0.2, -1.9]]


def test_without_logprobs(importing: Importing) -> None:
    importing([without()])
    (row,) = importing.rows()
    assert row["rollout_logprobs"] is row["rollout_top_token_ids"] is row["policy_version"] is None
    assert json.loads(row["meta"]) == {"weight_version": "default", "finish_reason": {"type": "length", "length": 2}}


def without() -> dict[str, Any]:
    response = line()
    response["meta_info"] = {"id": "r1", "finish_reason": {"type": "length", "length": 2}, "weight_version": "default"}
    return response


def test_text_alone_is_approximate(importing: Importing, tmp_path: Path) -> None:
    response = {**without(), "prompt": "2+2?"}
    del response["output_ids"], response["prompt_token_ids"]
    importing([response], tokenizer=words(tmp_path / "words"))
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([7, 8, 7, 9], [10])
    assert row["logprobs_approximate"] is True
    assert json.loads(row["meta"])["approximate_token_ids"] == ["prompt", "response"]


def answered(*triples: list[Any], name: str = "output_token_logprobs") -> dict[str, Any]:
    return line({name: list(triples)})


def flat(**fields: Any) -> dict[str, Any]:
    """The top lists flat."""
    written = {"val_flat": [-0.1, -2.5, -0.2, -1.9], "idx_flat": [10, 11, 2, 6], "shape": [2, 2], **fields}
    return line({"output_top_logprobs": None, **{f"output_top_logprobs_{name}": one for name, one in written.items()}})


GOOD = [-0.2, 2, None]


@pytest.mark.parametrize(
    ("response", "field", "message"),
    [
        (answered(GOOD), "output_token_logprobs", "is of 1 tokens, but output_ids has 2 (one short: shifted?)"),
        (answered(GOOD, [-0.1, 10, None]), "output_token_logprobs", "is of other tokens than output_ids"),
        (answered([-0.1], GOOD), "output_token_logprobs[0]", "a list is not [logprob, token id, text]"),
        (answered([0.5, 10, None], GOOD), "output_token_logprobs[0]", "0.5 is a positive log-probability"),
        (answered(["x", 10, None], GOOD), "output_token_logprobs[0]", "'x' is not a number"),
        (answered(TOP[0], name="output_top_logprobs"), "output_top_logprobs", "has 1 entry, expected 2 (one short"),
        (line({"output_top_logprobs": [1, 2]}), "output_top_logprobs[0]", "expected a list or null, found 1"),
        (line({"weight_versions": [{"version": "1", "start": 0, "end": 1}]}), "weight_versions", "has spans that do"),
        (flat(shape=[1, 2]), "output_top_logprobs_shape", "does not fit the flat lists, or the response's 2 tokens"),
        (flat(shape=[2, 3]), "output_top_logprobs_shape", "does not fit"),
        (flat(shape=[1 << 60, 0], val_flat=[], idx_flat=[]), "output_top_logprobs_shape", "does not fit"),
        (flat(shape=[2.0, 2]), "output_top_logprobs_shape", "does not fit"),
        (flat(shape=2), "output_top_logprobs_shape", "does not fit"),
        (flat(val_flat=None, val_flat_b64="?"), "output_top_logprobs_shape", "does not fit"),
    ],
)
def test_bad_logprobs(importing: Importing, response: dict[str, Any], field: str, message: str) -> None:
    ((number, name, words_), *_) = importing.errors(ndjson([response]))
    assert (number, name) == (1, f"meta_info.{field}")
    assert words_.startswith(message)


@pytest.mark.parametrize(
    ("response", "field", "message"),
    [
        (line(step=...), "step", "is required and missing; give it in the record, or as step= beside the file"),
        (line(meta_info=3), "meta_info", "expected an object, found a number"),
    ],
)
def test_bad_lines(importing: Importing, response: dict[str, Any], field: str, message: str) -> None:
    ((number, name, words_), *_) = importing.errors(ndjson([response]))
    assert (number, name) == (1, field)
    assert words_.startswith(message)
