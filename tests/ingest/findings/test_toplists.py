"""Top lists beside the sampled token, and lists that show that sampling was cut off."""

from __future__ import annotations

import math
from typing import Any

import pytest

from service.ingest.findings import truncation
from tests.ingest.files import Importing, record
from tests.ingest.findings.cases import TOKENS, findings, healthy, note, warning

ENTRIES = [0.5, 0.2, 0.1, 0.05]  # of every list: .15 is left to other tokens


def with_lists(records: list[dict[str, Any]], entries: list[float] = ENTRIES) -> list[dict[str, Any]]:
    """Lists of ids 1, 2, 3, …; the tokens sampled are the first, the second, and one of probability .02 in none."""
    logps = [math.log(entry) for entry in entries]
    for one in records:
        one["response_token_ids"] = [(1, 2, 99)[place % 3] for place in range(TOKENS)]
        one["rollout_logprobs"] = [(logps[0], logps[1], math.log(0.02))[place % 3] for place in range(TOKENS)]
        one["rollout_top_token_ids"] = [[*range(1, len(entries) + 1)]] * TOKENS
        one["rollout_top_logprobs"] = [logps] * TOKENS
    return records


def test_lists_that_agree(importing: Importing) -> None:
    assert findings(importing, with_lists(healthy())) == {}


def test_rounding_is_no_disagreement(importing: Importing) -> None:
    """Three digits in the list, bfloat16 beside it."""
    records = with_lists(healthy())
    for one in records:
        one["rollout_top_logprobs"] = [[round(logp, 3) for logp in entries] for entries in one["rollout_top_logprobs"]]
        one["rollout_logprobs"] = [logp * (1 + 2**-9) for logp in one["rollout_logprobs"]]
    assert findings(importing, records) == {}


def test_the_first_entry_stored_for_the_sampled_token(importing: Importing) -> None:
    """24 responses with 8 tokens that are not the first entry; for two of them the list does not know enough."""
    records = with_lists(healthy())
    for one in records:
        one["rollout_logprobs"] = [math.log(0.5)] * TOKENS
        one["rollout_top_logprobs"] = [*one["rollout_top_logprobs"]]
        one["rollout_top_logprobs"][1] = [None, -2, -3, -4]
        one["rollout_top_logprobs"][4] = [-1, None, -3, -4]
    found = warning(importing, records, "first_top_entry")
    assert found["count"] == 144
    assert "first entry on 144 of 144 tokens that are another: " in found["message"]
    assert found["examples"][0] == {
        "line": 1,
        "field": "rollout_logprobs",
        "step": 0,
        "sample_id": "0/0/0",
        "position": 2,
    }


def test_raw_beside_processed(importing: Importing) -> None:
    """The first and the second are sharper than in the list; the third is in no list, as it should be."""
    records = with_lists(healthy())
    for one in records:
        one["rollout_logprobs"] = [(math.log(0.8), math.log(0.15), -4.0)[place % 3] for place in range(TOKENS)]
    found = warning(importing, records, "top_lists_disagree")
    assert found["count"] == 192
    mean = (math.log(0.8 / 0.5) + math.log(0.15 / 0.2)) / 2
    assert f"192 have another one in the list (logged − listed: {mean:+.3g} nats on average). Raw" in found["message"]


def test_lists_of_other_positions(importing: Importing) -> None:
    """Each list holds what another token could have been; the sampled one is likelier than its last entry."""
    records = with_lists(healthy())
    for one in records:
        one["rollout_top_token_ids"] = [[11, 12, 13, 14]] * TOKENS
    found = warning(importing, records, "top_lists_disagree")
    assert "sampled tokens: 192 are not in the list, though likelier than its last entry. Raw" in found["message"]


def test_a_few_that_disagree_are_no_pattern(importing: Importing) -> None:
    """2 of 288 tokens; 3 would be more than 1 %."""
    records = with_lists(healthy())
    for one in records[:2]:
        one["rollout_logprobs"][0] = -3.0
    assert findings(importing, records) == {}
    records[2]["rollout_logprobs"][0] = -3.0
    assert warning(importing, records, "top_lists_disagree")["count"] == 3


def test_what_is_masked_or_null_is_not_compared(importing: Importing) -> None:
    records = with_lists(healthy())
    for one in records:
        one["response_mask"] = [0] * 3 + [1] * 9
        one["rollout_logprobs"][:4] = [-7.0, -7.0, -7.0, None]
        one["rollout_top_logprobs"] = [*one["rollout_top_logprobs"]]
        one["rollout_top_logprobs"][4] = [math.log(0.5), None, math.log(0.1), math.log(0.05)]
        one["rollout_logprobs"][4] = -0.2
        one["rollout_top_token_ids"] = [*one["rollout_top_token_ids"]]
        one["rollout_top_token_ids"][5] = one["rollout_top_logprobs"][5] = []
        one["rollout_logprobs"][5] = -0.1
    assert findings(importing, records) == {}


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
    found = findings(importing, records).get("unsorted_top_logprobs")
    assert (found is not None) == warned
    if found:
        assert (found["level"], found["count"]) == ("warning", 1)
        assert found["examples"] == [{"line": 3, "field": "rollout_top_logprobs", "step": 0, "sample_id": "c"}]
    masked = record("c", **lists(logprobs), response_mask=[1, 0, 1])
    assert "unsorted_top_logprobs" not in findings(importing, [masked])


def nucleus(whole: bool = True) -> list[dict[str, Any]]:
    """Twice lists of 1, 2, 2, 3, 3 and 4 entries a response; `whole`: of mass 1, else each less by a thousandth."""
    records = with_lists(healthy())
    for one in records:
        one["response_token_ids"] = [1] * TOKENS
        lists = [[1 / length] * length for length in (1, 2, 2, 3, 3, 4) * 2]
        lists = [entries if whole else [entry - 1e-3 for entry in entries] for entries in lists]
        one["rollout_top_logprobs"] = [[math.log(entry) for entry in entries] for entries in lists]
        one["rollout_top_token_ids"] = [[*range(1, len(entries) + 1)] for entries in lists]
        one["rollout_logprobs"] = [entries[0] for entries in one["rollout_top_logprobs"]]
    return records


def test_lists_of_a_renormalised_nucleus(importing: Importing) -> None:
    """24 responses, each with 8 lists of two or three entries; those of one say nothing, those of four are full."""
    found = warning(importing, nucleus(), "renormalised_lists")
    assert found["count"] == 192
    assert found["message"].startswith(
        "192 of 192 top lists with fewer than 4 entries hold the whole probability (1 within 0.0001): sampling was cut "
    )
    assert "The run says neither top_p nor top_k" in found["message"]


@pytest.mark.parametrize(
    ("sampling", "level", "words"),
    [
        ({"top_p": 0.9}, "note", "processed, of what was left (top-p 0.9). The mismatch"),
        ({"top_k": 50, "logprobs_mode": "processed"}, "note", "processed, of what was left (top-k 50). The mismatch"),
        ({"top_p": 0.9, "logprobs_mode": "raw"}, "warning", "The run says top-p 0.9, but raw log-probs"),
        ({"top_k": -1, "logprobs_mode": "processed"}, "warning", "The run says neither top_p nor top_k"),
    ],
)
def test_a_nucleus_and_what_the_run_says(
    importing: Importing, sampling: dict[str, Any], level: str, words: str
) -> None:
    found = findings(importing, nucleus(), sampling=sampling)["renormalised_lists"]
    assert found["level"] == level
    assert words in found["message"]


def test_all_lists_full_and_whole_is_top_k(importing: Importing) -> None:
    found = warning(importing, with_lists(healthy(), [0.5, 0.3, 0.2]), "renormalised_lists")
    assert found["message"].startswith("288 of 288 top lists of 3 entries hold the whole probability")


def test_lists_that_leave_something_out_are_raw(importing: Importing) -> None:
    assert findings(importing, nucleus(whole=False)) == {}
    assert findings(importing, with_lists(healthy(), [0.5, 0.3, 0.1998])) == {}


def test_sure_tokens_show_nothing(importing: Importing) -> None:
    """Raw lists of likely tokens hold nearly all mass as well."""
    records = with_lists(healthy(), [0.995, 0.004999])
    for one in records:
        one |= {"response_token_ids": [1] * TOKENS, "rollout_logprobs": [math.log(0.995)] * TOKENS}
    assert findings(importing, records) == {}


def test_a_run_that_does_not_say_which_log_probs(importing: Importing) -> None:
    found = note(importing, healthy(), "truncated_sampling", sampling={"top_p": 0.95, "top_k": 20})
    assert found["message"].startswith("The run samples with top-p 0.95 and top-k 20, and neither its logprobs_mode")
    for sampling in ({"top_p": 0.95, "logprobs_mode": "raw"}, {"top_p": 1.0, "top_k": -1}):
        assert findings(importing, healthy(), sampling=sampling) == {}


def test_only_so_many_lists_are_looked_at(importing: Importing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncation, "_MOST", 30)
    found = warning(importing, nucleus(), "renormalised_lists")
    assert found["count"] == 20  # of 30 lists in 5 rounds, the four of two or three entries in each
    assert "entries, among the first 30, hold" in found["message"]
