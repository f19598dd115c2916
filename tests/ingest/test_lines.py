"""NDJSON: what is a line, and what is said about one that is no record."""

from __future__ import annotations

import json

import pytest

from service.errors import BadRecord, TooLarge, UnsupportedMedia
from tests.ingest.files import Importing, ndjson, record

GOOD = json.dumps(record()).encode()


@pytest.mark.parametrize(
    "content",
    [GOOD, GOOD + b"\n", GOOD + b"\r\n", b"\xef\xbb\xbf" + GOOD, b"\n\n  \r\n\t" + GOOD + b" \n\n", b"  " + GOOD],
)
def test_tolerated(importing: Importing, content: bytes) -> None:
    assert importing(content)["rollouts"] == 1


def test_blank_lines_count_as_lines(importing: Importing) -> None:
    content = b"\n" + GOOD + b"\r\n \r\n\n" + b"{}" + b"\r\n"
    assert {line for line, _, _ in importing.errors(content)} == {5}


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty(importing: Importing, content: bytes) -> None:
    error = importing.refused(content)
    assert isinstance(error, BadRecord)
    assert "holds no record" in error.detail


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{x}", "is not JSON: Expecting property name enclosed in double quotes in column 2"),
        (b'{"step": 0} {"step": 1}', "is not JSON: Extra data in column 13"),
        (b'{"step": 01}', "is not JSON"),
        (b'"text"', "expected one JSON object a line, found a string"),
        (b"3", "expected one JSON object a line, found a number"),
        (b"[1, 2]", "expected one JSON object a line, found a list"),
        (b'{"sample_id": "\xff"}', "is not UTF-8: byte 0xff in column 16"),
        (b'{"step": ' + b"1" * 5000 + b"}", "has a number of more than 4300 digits"),
        (b'{"x": ' + b"[" * 100_000, "is nested too deeply"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
    ],
)
def test_no_record(importing: Importing, line: bytes, says: str) -> None:
    ((number, field, message),) = importing.errors(GOOD + b"\n" + line + b"\n")
    assert (number, field) == (2, None)
    assert says in message


@pytest.mark.parametrize("content", [b"[" + GOOD + b"]", b" \n[\n" + GOOD + b",\n", b"\xef\xbb\xbf[]"])
def test_json_array(importing: Importing, content: bytes) -> None:
    error = importing.refused(content)
    assert isinstance(error, BadRecord)
    assert "is a JSON array; write one JSON object a line" in error.detail


def test_pretty_printed_object_is_one_error(importing: Importing) -> None:
    error = importing.refused(json.dumps(record(), indent=2).encode())
    assert isinstance(error, BadRecord)
    assert [(one.line, one.message) for one in error.errors] == [
        (1, "the record does not end on its line: write one JSON object a line, not pretty-printed")
    ]


def test_last_line_cut_off(importing: Importing) -> None:
    ((line, _, message),) = importing.errors(GOOD + b"\n" + GOOD[:-20])
    assert line == 2
    assert "does not end on its line" in message


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16(importing: Importing, encoding: str) -> None:
    error = importing.refused(("\ufeff" + GOOD.decode()).encode(encoding))
    assert isinstance(error, UnsupportedMedia)
    assert "UTF-8" in error.detail


def test_line_over_the_limit(importing: Importing) -> None:
    long = record("b", meta={"x": "y" * 1000})
    assert importing([record(), long], limits={"line_bytes": 1200})["rollouts"] == 2
    error = importing.refused([record(), long], limits={"line_bytes": 1000})
    assert isinstance(error, TooLarge)
    assert [(one.line, one.message) for one in error.errors] == [
        (2, "the line is longer than 1000 bytes, the most a record may have")
    ]


@pytest.mark.parametrize("ends", [b"\n", b""])
def test_line_without_end_is_refused_at_the_limit(importing: Importing, ends: bytes) -> None:
    content = GOOD + b'\n{"x": "' + b"y" * (5 << 20) + ends
    error = importing.refused(content, limits={"line_bytes": 3 << 20})
    assert isinstance(error, TooLarge)
    assert error.errors[0].line == 2


def test_lines_across_blocks(importing: Importing) -> None:
    """Records of 700 kB, so that every block of 1 MiB cuts one."""
    records = [record(str(index), meta={"x": str(index) * 700_000}) for index in range(7)]
    assert importing(records)["rollouts"] == 7
    assert [json.loads(row["meta"])["x"][0] for row in importing.rows()] == list("0123456")
    bad = [*records[:5], record(step=-1), *records[5:]]
    assert [line for line, _, _ in importing.errors(ndjson(bad))] == [6]
