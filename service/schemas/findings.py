"""What an import found: warnings, which change results, and notes, which normal logs have too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["by_level", "sentence"]

Finding = dict[str, Any]  # code, level, message, count, examples ({line, field, …})


def by_level(text: str) -> dict[str, list[Finding]]:
    """`warnings` and `notes` of an upload from the JSON that the catalog keeps; earlier versions kept warnings only."""
    found = json.loads(text)
    return {
        f"{level}s": [one for one in found if one.get("level", "warning") == level] for level in ("warning", "note")
    }


def sentence(finding: Mapping[str, Any]) -> str:
    """The message, and the lines of the file where it was seen first."""
    lines = sorted({example["line"] for example in finding["examples"]})
    return f"{finding['message']} {_first(lines)}" if lines else str(finding["message"])


def _first(lines: Sequence[int]) -> str:
    if len(lines) == 1:
        return f"First in line {lines[0]}."
    return f"First in lines {', '.join(map(str, lines[:-1]))} and {lines[-1]}."
