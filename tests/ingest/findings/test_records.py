"""What a healthy log gives, and what records say of themselves."""

from __future__ import annotations

from tests.ingest.files import Importing, record
from tests.ingest.findings.cases import findings, healthy, warning


def test_nothing_to_say(importing: Importing) -> None:
    assert findings(importing, healthy()) == {}
    assert findings(importing, [record(rollout_logprobs=[-1, -2, -3], advantage=0, reward=0)]) == {}


def test_the_manifest_holds_both_levels(importing: Importing) -> None:
    manifest = importing([record("a", colour="red"), record("b", response_mask=...)])
    assert [(one["code"], one["level"]) for one in manifest["warnings"]] == [("no_response_mask", "warning")]
    assert [(one["code"], one["level"]) for one in manifest["notes"]] == [("unknown_fields", "note")]


def test_no_mask(importing: Importing) -> None:
    records = [record(str(index), response_mask=... if index % 2 else [1, 0, 1]) for index in range(10)]
    assert warning(importing, records, "no_response_mask") == {
        "code": "no_response_mask",
        "level": "warning",
        "message": "5 records have no response_mask: every response token counts. If tool or observation tokens are "
        "among them, log the mask.",
        "count": 5,
        "examples": [
            {"line": line, "field": "response_mask", "step": 0, "sample_id": str(line - 1)} for line in (2, 4, 6)
        ],
    }
    rows = importing.rows()
    assert [row["response_mask"] for row in rows[:2]] == [[True, False, True], [True, True, True]]
    assert [row["counted_tokens"] for row in rows[:2]] == [2, 3]


def test_marked_approximate(importing: Importing) -> None:
    records = [record("a"), record("b", logprobs_approximate=True), record("c", logprobs_approximate=False)]
    found = warning(importing, records, "approximate")
    assert found["count"] == 1
    assert found["message"].startswith("1 record is approximate: token ids made from text")
    assert found["examples"] == [{"line": 2, "field": "logprobs_approximate", "step": 0, "sample_id": "b"}]


def test_findings_of_a_whole_file_are_those_of_its_chunks(importing: Importing) -> None:
    """Two chunks and more; a finding's count and examples go on over their borders."""
    padding = "x" * 2_000_000
    records = [record(str(index), response_mask=..., prompt_text=padding) for index in range(5)]
    found = warning(importing, records, "no_response_mask")
    assert found["count"] == 5
    assert [one["line"] for one in found["examples"]] == [1, 2, 3]


def test_rows_that_are_there_already_are_looked_at_as_well(importing: Importing) -> None:
    records = [record(str(index), response_mask=...) for index in range(3)]
    importing(records)
    again = importing(records, existing=importing.pieces())
    assert (again["skipped"], again["warnings"][0]["count"]) == (3, 3)
