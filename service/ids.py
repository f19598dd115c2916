"""Ids: a letter and hex digits, so that no path or hive key looks like a number, a date or a name from outside."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

__all__ = ["content_id", "new_id"]


def content_id(letter: str, content: Any) -> str:
    """The id of what `content` (plain JSON data) describes: the same content always has the same id."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return letter + hashlib.sha256(text.encode()).hexdigest()[:24]


def new_id(letter: str) -> str:
    """An id that was never used before."""
    return letter + secrets.token_hex(12)
