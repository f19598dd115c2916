"""One value of a record, read precisely: the value as it is meant, or a sentence about what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from service.ingest.check import MAX_ID, MAX_TOKEN, MAX_TURN, is_good_id
from service.ingest.task import MAX_STEP

__all__ = [
    "Reader",
    "Wrong",
    "boolean",
    "clip",
    "counter",
    "flag",
    "identifier",
    "json_name",
    "number",
    "show",
    "step",
    "text",
    "token_id",
    "turn",
]

Reader = Callable[[Any], Any]
_INT64 = 1 << 63
_CLIP = 100  # characters of a name in a message


class Wrong(Exception):
    """What is wrong with a value; the message goes after the field's name."""


def show(value: Any) -> str:
    """A value for a message: short, and of no more than its first characters."""
    if isinstance(value, (dict, list)):
        return json_name(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    shown = repr(value[:_CLIP] if isinstance(value, str) else value)
    return shown if len(shown) <= 60 else shown[:57] + "…" + shown[0]


def clip(name: str) -> str:
    """A name from a file for a message: not too long, and text that can be sent."""
    shown = name if len(name) <= _CLIP else name[:_CLIP] + "…"
    return shown.encode(errors="replace").decode()


def json_name(value: Any) -> str:
    """The JSON type of a value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    for kind, name in ((str, "a string"), ((int, float), "a number"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kind):
            return name
    return "something that JSON does not have"


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _between(value: Any, top: int, what: str) -> int:
    number = _integer(value)
    if number is None or not 0 <= number <= top:
        raise Wrong(f"{show(value)} is not {what} (an integer from 0 to {top})")
    return number


def step(value: Any) -> int:
    return _between(value, MAX_STEP, "a step")


def token_id(value: Any) -> int:
    return _between(value, MAX_TOKEN, "a token id")


def turn(value: Any) -> int:
    return _between(value, MAX_TURN, "a turn")


def counter(value: Any) -> int:
    """A policy version or a minibatch."""
    number = _integer(value)
    if number is None or not -_INT64 <= number < _INT64:
        raise Wrong(f"{show(value)} is not an integer of 64 bits")
    return number


def flag(value: Any) -> bool:
    """An element of a mask."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    raise Wrong(f"{show(value)} is not 0 or 1")


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"{show(value)} is not true or false")
    return value


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong(f"{show(value)} is not a number")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if not math.isfinite(real):
        raise Wrong(f"{real} is not a finite number; write null where it is not known")
    return real


def text(value: Any) -> str:
    if isinstance(value, bytes):
        raise Wrong("is not valid UTF-8")
    if not isinstance(value, str):
        raise Wrong(f"expected a string, found {json_name(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Wrong("has half a surrogate pair, which is no character") from error
    return value


def identifier(value: Any) -> str:
    """A sample_id or group_id: a string, or an int as its decimal digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _decimal(value)
    if not isinstance(value, (str, bytes)):
        raise Wrong(f"expected a string or an integer, found {json_name(value)}")
    name = text(value)
    if not is_good_id(name):
        what = (
            "is empty"
            if not name
            else f"is longer than {MAX_ID} characters"
            if len(name) > MAX_ID
            else ("holds a control character")
        )
        raise Wrong(f"{what}; an id has 1 to {MAX_ID} characters, no control characters among them")
    return name


def _decimal(value: int) -> str:
    if abs(value) >= 10**199:
        raise Wrong("is a number of 200 digits or more; an id has at most 200 characters")
    return str(value)
