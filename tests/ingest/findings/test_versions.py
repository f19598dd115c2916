"""Responses that several versions of the policy sampled."""

from __future__ import annotations

from tests.ingest.files import Importing
from tests.ingest.findings.cases import TOKENS, findings, healthy, note


def test_several_versions_in_one_response(importing: Importing) -> None:
    records = [one | {"policy_version": 3} for one in healthy()]
    records[1]["policy_version"] = [3] * 6 + [4] * 6
    records[8]["policy_version"] = [1] * 4 + [5] * 4 + [4] * 4
    del records[0]["policy_version"]
    found = note(importing, records, "several_policy_versions")
    assert found["count"] == 2
    assert found["message"].startswith("2 responses were sampled by several policy versions (up to 4 apart): ")
    assert [one["line"] for one in found["examples"]] == [2, 9]


def test_a_span_that_the_log_states_for_the_whole_response(importing: Importing) -> None:
    """As adapters tell it: nothing says which token is whose."""
    records = [one | {"meta": {"policy_versions": [2, 2]}} for one in healthy()]
    records[1]["meta"] = {"policy_versions": [3, 5]}
    records[2]["meta"] = {"policy_versions": ["3", 5], "about": '"policy_versions":[1,9]'}
    records[3]["meta"] = {"policy_versions": [5]}
    found = note(importing, records, "several_policy_versions")
    assert found["count"] == 1
    assert "(up to 2 apart)" in found["message"]
    assert [(one["line"], one["field"]) for one in found["examples"]] == [(2, "meta.policy_versions")]


def test_one_version_each(importing: Importing) -> None:
    records = [one | {"policy_version": index} for index, one in enumerate(healthy())]
    records[3]["policy_version"] = [3] * TOKENS
    assert findings(importing, records) == {}
