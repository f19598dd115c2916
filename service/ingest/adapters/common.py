"""What adapters share: the response within a sequence, one value of a file, and how to speak of it.

The standard library is enough for all of this; adapters also run beside a trainer.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = [
    "MAX_NAME",
    "MAX_STEP",
    "MAX_TOKEN",
    "Span",
    "clip",
    "entries",
    "flag",
    "kept",
    "kind",
    "mark",
    "more",
    "name",
    "number",
    "plain",
    "prompt_hash",
    "show",
    "text",
    "token_id",
    "within",
]

MAX_TOKEN = (1 << 31) - 1
MAX_STEP = (1 << 32) - 1
MAX_NAME = 150  # characters
_MAX_DEPTH = 60
_CLIP = 60  # characters of a value in a message
_T = TypeVar("_T")


@dataclass(frozen=True)
class Span:
    """The response in a list over the whole sequence: [start:stop], and which of its tokens count."""

    start: int
    stop: int
    mask: list[bool]


def kept(values: list[_T | None]) -> list[_T | None] | None:
    """The list, or None if nothing in it is known."""
    return values if any(value is not None for value in values) else None


def within(values: Sequence[_T | None] | None, span: Span) -> list[_T | None] | None:
    """A list over the whole sequence, cut to the response; null where the mask is 0."""
    if values is None:
        return None
    cut = values[span.start : span.stop]
    return kept([value if counts else None for value, counts in zip(cut, span.mask, strict=True)])


def prompt_hash(ids: Iterable[int]) -> str:
    """A name for a prompt, the same wherever its token ids are: for formats that do not say which prompt it was."""
    return "prompt-" + hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]


def token_id(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_TOKEN:
        raise ValueError(f"{show(value)} is not a token id (an integer from 0 to {MAX_TOKEN})")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise ValueError(f"{show(value)} is not 0 or 1")
    return bool(value)


def mark(value: Any) -> bool | None:
    return None if value is None or (value == -1 and type(value) is not bool) else flag(value)


def number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{show(value)} is not a number")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if math.isinf(real):
        raise ValueError(f"{real} is not a finite number")
    return None if math.isnan(real) else real


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, found {kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a surrogate pair, which is no character") from None
    return value


def name(value: Any) -> str:
    """A name for a sample or a group: a string, or an integer as its digits. Shorter than an id, to be part of one."""
    if type(value) is int and abs(value) < 10**MAX_NAME:
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"expected a string or an integer, found {kind(value)}")
    if not 0 < len(value) <= MAX_NAME or any(unicodedata.category(letter) == "Cc" for letter in value):
        raise ValueError(f"is no name of 1 to {MAX_NAME} characters, no control characters among them")
    return text(value)


def plain(value: Any, depth: int = 0) -> Any:
    """A value for meta: null where a number is not finite, as Python writes it into JSON."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [plain(element, depth + 1) for element in value]
    if isinstance(value, dict):
        return {text(key): plain(element, depth + 1) for key, element in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return kind(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return repr(value[:_CLIP] if isinstance(value, str) else value)


def kind(value: Any) -> str:
    """The JSON type of a value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    for types, name in ((str, "a string"), ((int, float), "a number"), (list, "a list"), (dict, "an object")):
        if isinstance(value, types):
            return name
    return "something that JSON does not have"


def clip(name: str) -> str:
    shown = name if len(name) <= 100 else name[:100] + "…"
    return shown.encode(errors="replace").decode()


def entries(length: int) -> str:
    return "1 entry" if length == 1 else f"{length} entries"


def more(count: int) -> str:
    return "" if count == 0 else f" (and {count} more element{'s' if count > 1 else ''} of the list)"
