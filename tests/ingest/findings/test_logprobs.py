"""Log-probs that are sentinels, or another policy's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ingest.files import Importing, record
from tests.ingest.findings.cases import TOKENS, findings, healthy, note, response, warning

LOGPROBS = ["rollout_logprobs", "old_logprobs", "new_logprobs"]


@pytest.mark.parametrize("name", LOGPROBS)
def test_a_record_of_zeros(importing: Importing, name: str) -> None:
    records = [record(str(index), **{name: [-1, -2, -3]}) for index in range(20)]
    records[7][name] = [0, 0.0, None]
    found = warning(importing, records, "zero_logprobs")
    assert found["message"].startswith(f"2 of 59 {name} on counted tokens are exactly 0, in 1 record all of them: ")
    assert "a missing log-prob stored as probability 1?" in found["message"]
    assert found["count"] == 2
    assert found["examples"] == [{"line": 8, "field": name, "step": 0, "sample_id": "7"}]


def test_a_record_of_nulls_is_none_of_zeros(importing: Importing) -> None:
    records = [record("a", rollout_logprobs=[None] * 3), record("b", rollout_logprobs=[0, 0, 0])]
    assert [one["line"] for one in warning(importing, records, "zero_logprobs")["examples"]] == [2]


def test_zeros_only_on_the_counted_tokens_matter(importing: Importing) -> None:
    records = [record(response_mask=[0, 0, 1], rollout_logprobs=[0, 0, -1])]
    assert findings(importing, records) == {}
    warning(importing, [record(response_mask=[1, 1, 0], rollout_logprobs=[0, 0, -1])], "zero_logprobs")


@pytest.mark.parametrize(("zeros", "warned"), [(6, False), (7, True)])
def test_share_of_zeros(importing: Importing, zeros: int, warned: bool) -> None:
    """10 records of 3 tokens: more than 6 zeros are more than 20 %."""
    records = [record(str(index), rollout_logprobs=[0 if index < zeros else -1, -1, -1]) for index in range(10)]
    assert ("zero_logprobs" in findings(importing, records)) == warned


def test_zeros_are_right_where_one_token_is_left(importing: Importing) -> None:
    records = [record(str(index), rollout_logprobs=[0, 0, -1]) for index in range(10)]
    found = note(importing, records, "zero_logprobs", sampling={"top_p": 0.9, "logprobs_mode": "processed"})
    assert (
        found["message"] == "20 of 30 rollout_logprobs on counted tokens are exactly 0, as they are where top-p 0.9 "
        "leaves one token."
    )
    warning(importing, records, "zero_logprobs", sampling={"top_p": 0.9, "logprobs_mode": "raw"})
    records = [record(str(index), old_logprobs=[0, 0, -1]) for index in range(10)]
    warning(importing, records, "zero_logprobs", sampling={"top_p": 0.9, "logprobs_mode": "processed"})


def test_zeros_are_right_where_all_are_rounded(importing: Importing) -> None:
    """verifiers rounds its records to 4 decimals; one log-prob off that grid, or none near 0, and it is not that."""
    records = [record(str(index), rollout_logprobs=[0, 0, -1.2345 - index / 1e4]) for index in range(10)]
    warning(importing, records, "zero_logprobs")
    records[3]["rollout_logprobs"] = [0, -0.0003, -1.5]
    assert note(importing, records, "zero_logprobs")["message"] == (
        "19 of 30 rollout_logprobs on counted tokens are exactly 0, as they are where log-probs are rounded to 4 "
        "decimals: those of a probability above .99995."
    )
    records[5]["rollout_logprobs"] = [0, -0.00031, -1.5]
    warning(importing, records, "zero_logprobs")


@pytest.mark.parametrize("name", LOGPROBS)
def test_stand_ins_for_minus_infinity(importing: Importing, name: str) -> None:
    records = healthy()
    records[4][name][3] = records[9][name][0] = -9999.0
    found = warning(importing, records, "impossible_logprobs")
    assert found["count"] == 2
    assert f"2 counted tokens have {name} below -1000 nats (down to -9999): " in found["message"]
    assert found["examples"][0] == {"line": 5, "field": name, "step": 0, "sample_id": "0/1/0", "position": 3}


def test_unlikely_tokens_are_drawn_now_and_then(importing: Importing) -> None:
    assert findings(importing, [response(rollout_logprobs=[-40.0] * TOKENS)]) == {}


@pytest.mark.parametrize(("column", "code"), [("old_logprobs", "old_is_rollout"), ("new_logprobs", "new_is_rollout")])
def test_one_log_prob_for_the_other(importing: Importing, column: str, code: str) -> None:
    """24 responses of 12 tokens; a float32 of the engine's is the same number."""
    records = [one | {column: [logp * (1 + 5e-8) for logp in one["rollout_logprobs"]]} for one in healthy()]
    found = warning(importing, records, code)
    assert found["count"] == 288
    assert found["message"].startswith(f"{column} equal rollout_logprobs within 1e-07 on 288 of 288 counted tokens ")
    assert found["examples"][0] == {"line": 1, "field": column, "step": 0, "sample_id": "0/0/0", "position": 0}


def test_old_and_new_alike_are_an_update_not_yet_made(importing: Importing) -> None:
    assert note(importing, [one | {"new_logprobs": one["old_logprobs"]} for one in healthy()], "new_is_old")


@pytest.mark.parametrize(("different", "warned"), [(2, True), (3, False)])
def test_nearly_all_tokens_are_the_same(importing: Importing, different: int, warned: bool) -> None:
    """Of 288 tokens, 1 % are 2.88; 2e-6 nats are what two kernels leave."""
    records = [one | {"old_logprobs": list(one["rollout_logprobs"])} for one in healthy()]
    for one in records[:different]:
        one["old_logprobs"][0] -= 2e-5
    assert ("old_is_rollout" in findings(importing, records)) == warned


def test_sure_tokens_are_alike_in_any_policy(importing: Importing) -> None:
    """Above .999, where six digits leave the same number: 238 of 240 responses, more than 99 % of the tokens."""
    records = healthy(steps=20)
    for one in records[2:]:
        for name in ("rollout_logprobs", "old_logprobs"):
            one[name] = [-0.000123] * TOKENS
    assert findings(importing, records) == {}
    few = [response(rollout_logprobs=[-1.0] * TOKENS, old_logprobs=[-1.0] * TOKENS)]
    assert findings(importing, few) == {}, "12 tokens are too few to say so"


def test_tokens_without_one_of_the_two_are_not_compared(importing: Importing) -> None:
    records: list[dict[str, Any]] = healthy()
    for one in records[:12]:
        del one["old_logprobs"]
    for one in records[12:]:
        one["old_logprobs"] = [None, *one["rollout_logprobs"][1:]]
        one["response_mask"] = [1] * (TOKENS - 1) + [0]
    assert warning(importing, records, "old_is_rollout")["count"] == 120  # 12 responses of 12 tokens less 2
