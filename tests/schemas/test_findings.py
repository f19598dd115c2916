"""What an import found, as it is kept and told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.schemas.findings import by_level, sentence


def finding(*lines: int) -> dict[str, Any]:
    return {"message": "Odd.", "examples": [{"line": line, "field": "reward"} for line in lines]}


def test_by_level() -> None:
    """A catalog from before there were notes holds warnings without a level."""
    kept = [{"code": "a", "level": "note"}, {"code": "b", "level": "warning"}, {"code": "c"}]
    assert by_level(json.dumps(kept)) == {"warnings": kept[1:], "notes": kept[:1]}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "Odd."),
        ([7], "Odd. First in line 7."),
        ([7, 7], "Odd. First in line 7."),
        ([9, 7], "Odd. First in lines 7 and 9."),
        ([1, 2, 3], "Odd. First in lines 1, 2 and 3."),
    ],
)
def test_sentence(lines: list[int], said: str) -> None:
    assert sentence(finding(*lines)) == said
