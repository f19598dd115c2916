"""Findings: warnings, which change results, and notes, which normal logs have too; of an upload or of an analysis.

{code, level, message, count, examples: [{line, field, step, sample_id, position, …}]}. A check that is done again later
puts its name into `source`, and the step that it looked at into `step`: what it finds replaces what it found before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

__all__ = ["Finding", "Level", "as_warning", "at_level", "by_level", "messages", "sentence"]

Finding = dict[str, Any]
Level = Literal["warning", "note"]


def as_warning(message: str) -> Finding:
    """A warning that is its message."""
    return {"level": "warning", "message": message}


def at_level(level: Level, findings: list[Finding]) -> list[Finding]:
    """Those of one level; earlier versions kept warnings only."""
    return [one for one in findings if one.get("level", "warning") == level]


def by_level(text: str) -> dict[str, list[Finding]]:
    """`warnings` and `notes` from the JSON that the catalog keeps."""
    found = json.loads(text)
    return {"warnings": at_level("warning", found), "notes": at_level("note", found)}


def messages(level: Level, text: str) -> list[str]:
    """What the findings of one level say, from the JSON that the catalog keeps."""
    return [one["message"] for one in at_level(level, json.loads(text))]


def sentence(finding: Mapping[str, Any]) -> str:
    """The message, and the lines of the file where it was seen first."""
    lines = sorted({example["line"] for example in finding["examples"] if "line" in example})
    return f"{finding['message']} {_first(lines)}" if lines else str(finding["message"])


def _first(lines: Sequence[int]) -> str:
    if len(lines) == 1:
        return f"First in line {lines[0]}."
    return f"First in lines {', '.join(map(str, lines[:-1]))} and {lines[-1]}."
