"""The precise reading of one record: every rule, one after the other, with words for whoever broke it.

Slow on purpose and complete: it is the reference for `check`, which only says which rows to bring here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from service.errors import FieldError
from service.ingest import values
from service.ingest.columns import LOGPROBS
from service.ingest.meta import Unkeepable, kept_together
from service.ingest.names import KNOWN, REQUIRED, near_miss
from service.ingest.values import Reader, Wrong

__all__ = ["NOT_ENDED", "Examined", "examine", "parse_line"]

NOT_ENDED = "the record does not end on its line: write one JSON object a line, not pretty-printed"


class Examined:
    """What the reading of one record came to: `record` (native, plain JSON data, if `errors` is empty)."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.record: dict[str, Any] = {}
        self.unknown: list[str] = []  # names that the rollout record does not have
        self.errors: list[FieldError] = []

    def wrong(self, field: str, message: str) -> None:
        self.errors.append(FieldError(message, self.line, values.clip(field)))


def parse_line(line: int, text: bytes) -> dict[str, Any] | FieldError:
    """The object on a line, with NaN and infinities as Python reads them; or why there is none."""
    try:
        value = json.loads(text)
    except UnicodeDecodeError as error:
        return FieldError(f"is not UTF-8: byte 0x{text[error.start]:02x} in column {error.start + 1}", line)
    except RecursionError:
        return FieldError("is nested too deeply", line)
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
            return FieldError(NOT_ENDED, line)
        return FieldError(f"is not JSON: {error.msg} in column {error.colno}", line)
    except ValueError:  # Python's limit on the digits of an integer
        return FieldError("has a number of more than 4300 digits", line)
    if not isinstance(value, dict):
        return FieldError(f"expected one JSON object a line, found {values.json_name(value)}", line)
    return value


def examine(line: int, raw: Mapping[str, Any], step: int | None) -> Examined:
    """Read the record on `line`. `step`: the one given for all records, if any."""
    examined = Examined(line)
    fields = {name: value for name, value in raw.items() if value is not None}  # null = absent
    for name in raw:
        meant = None if name in KNOWN else near_miss(name)
        if meant:
            examined.wrong(name, f"unknown field {values.show(name)}; did you mean {meant!r}?")
    _read_step(examined, fields, step)
    for name in REQUIRED:
        if name not in fields:
            examined.wrong(name, "is required and missing")
    for name, read in _SCALARS.items():
        _read(examined, fields, name, read)
    _read_lists(examined, fields)
    _read_meta(examined, fields)
    return examined


_SCALARS: dict[str, Reader] = {
    "sample_id": values.identifier,
    "group_id": values.identifier,
    "prompt_text": values.text,
    "response_text": values.text,
    "finish_reason": values.text,
    "logprobs_approximate": values.boolean,
}

# name -> (element, whether elements may be null, whether one value may stand for the list)
_LISTS: dict[str, tuple[Reader, bool, bool]] = {
    "response_mask": (values.flag, False, False),
    **dict.fromkeys(LOGPROBS, (values.number, True, False)),
    "reward": (values.number, False, True),
    "advantage": (values.number, True, True),
    "trainer_keep": (values.boolean, True, False),
    "policy_version": (values.counter, False, True),
    "turn": (values.turn, False, False),
    "minibatch": (values.counter, False, True),
}


def _read(examined: Examined, fields: Mapping[str, Any], name: str, read: Reader) -> None:
    if name in fields:
        try:
            examined.record[name] = read(fields[name])
        except Wrong as wrong:
            examined.wrong(name, str(wrong))


def _read_step(examined: Examined, fields: Mapping[str, Any], given: int | None) -> None:
    if "step" not in fields:
        if given is None:
            examined.wrong("step", "is required and missing; give it in the record, or as step= beside the file")
        examined.record["step"] = given
        return
    _read(examined, fields, "step", values.step)
    own = examined.record.get("step", given)
    if given is not None and own != given:
        examined.wrong("step", f"the record is of step {own}, but the upload was given step={given}")


def _read_lists(examined: Examined, fields: Mapping[str, Any]) -> None:
    for name in ("prompt_token_ids", "response_token_ids"):
        if name in fields and _read_list(examined, fields, name, values.token_id, nulls=False) == 0:
            why = " (without one token before it, the first of the response has no probability)"
            examined.wrong(name, "is empty" + (why if name == "prompt_token_ids" else ""))
    response = fields.get("response_token_ids")
    length = len(response) if isinstance(response, list) else None
    for name, (read, nulls, scalar) in _LISTS.items():
        if name not in fields:
            continue
        if scalar and not isinstance(fields[name], list):
            _read(examined, fields, name, read)
        else:
            _check_length(examined, name, _read_list(examined, fields, name, read, nulls=nulls), length)
    counted = _counted(examined, length)
    for name in LOGPROBS:
        _check_logprobs(examined, name, examined.record.get(name), counted)
    _read_top(examined, fields, length, counted)


def _read_list(examined: Examined, fields: Mapping[str, Any], name: str, read: Reader, *, nulls: bool) -> int | None:
    """The length of a list; None where it is none. Its first bad element is named, the others are counted."""
    elements = fields[name]
    if not isinstance(elements, list):
        examined.wrong(name, f"expected a list, found {values.json_name(elements)}")
        return None
    examined.record[name] = _read_elements(examined, name, elements, read, nulls=nulls)
    return len(elements)


def _read_elements(
    examined: Examined, name: str, elements: list[Any], read: Reader, *, nulls: bool
) -> list[Any] | None:
    good: list[Any] = []
    first: tuple[int, str] | None = None
    bad = 0
    for index, element in enumerate(elements):
        try:
            good.append(None if nulls and element is None else read(element))
        except Wrong as wrong:
            first = first or (index, str(wrong))
            bad += 1
    if first is None:
        return good
    examined.wrong(f"{name}[{first[0]}]", first[1] + _and_more(bad - 1))
    return None


def _and_more(count: int) -> str:
    return "" if count == 0 else f" (and {count} more element{'s' if count > 1 else ''} of the list)"


def _check_length(examined: Examined, name: str, length: int | None, expected: int | None) -> None:
    if length is None or expected is None or length == expected:
        return
    entries = "1 entry" if length == 1 else f"{length} entries"
    hint = {-1: " (one short: shifted?)", 1: " (one more: shifted?)"}.get(length - expected, "")
    examined.wrong(name, f"has {entries}, but response_token_ids has {expected}{hint}")


def _counted(examined: Examined, length: int | None) -> list[bool] | None:
    """Which tokens count; None where that is not to be known."""
    mask = examined.record.get("response_mask", [True] * (length or 0))
    return mask if mask is not None and len(mask) == length else None


def _check_logprobs(
    examined: Examined, name: str, logprobs: list[float | None] | None, counted: list[bool] | None
) -> None:
    if logprobs is None or counted is None:
        return
    bad = [
        (index, logprob)
        for index, (logprob, counts) in enumerate(zip(logprobs, counted, strict=False))
        if counts and logprob is not None and logprob > 0
    ]
    if bad:
        index, logprob = bad[0]
        examined.wrong(f"{name}[{index}]", _positive(logprob) + _and_more(len(bad) - 1))


def _positive(logprob: float) -> str:
    sentinel = (
        "1.0 is a sentinel for 'missing' in some trainers: write null"
        if logprob == 1
        else ("write null where it is not known")
    )
    return f"{logprob} is a positive log-probability; {sentinel}"


def _read_top(examined: Examined, fields: Mapping[str, Any], length: int | None, counted: list[bool] | None) -> None:
    names = ("rollout_top_token_ids", "rollout_top_logprobs")
    given = [name for name in names if name in fields]
    if len(given) == 1:
        missing = names[1] if given[0] == names[0] else names[0]
        examined.wrong(given[0], f"is given without {missing}; give both or neither")
    ids, logprobs = (
        _read_nested(examined, fields, name, read, nulls=nulls, length=length) if name in fields else None
        for name, read, nulls in zip(names, (values.token_id, values.number), (False, True), strict=True)
    )
    if ids is None or logprobs is None or len(ids) != len(logprobs):
        return
    for index, (some_ids, some_logprobs) in enumerate(zip(ids, logprobs, strict=True)):
        if len(some_ids) != len(some_logprobs):
            examined.wrong(
                f"{names[1]}[{index}]", f"has {len(some_logprobs)} entries, but {names[0]}[{index}] has {len(some_ids)}"
            )
            return
    if counted is not None and len(counted) == len(logprobs):
        for index, some_logprobs in enumerate(logprobs):
            if counted[index]:
                _check_logprobs(examined, f"{names[1]}[{index}]", some_logprobs, [True] * len(some_logprobs))
                if examined.errors and (examined.errors[-1].field or "").startswith(f"{names[1]}[{index}]"):
                    return


def _read_nested(
    examined: Examined, fields: Mapping[str, Any], name: str, read: Reader, *, nulls: bool, length: int | None
) -> list[list[Any]] | None:
    """The lists of a list, null ones as empty; None if one of them is bad (the first bad one is named)."""
    outer = fields[name]
    if not isinstance(outer, list):
        examined.wrong(name, f"expected a list of lists, found {values.json_name(outer)}")
        return None
    _check_length(examined, name, len(outer), length)
    read_lists: list[list[Any]] = []
    for index, inner in enumerate(outer):
        if inner is not None and not isinstance(inner, list):
            examined.wrong(f"{name}[{index}]", f"expected a list or null, found {values.json_name(inner)}")
            return None
        good = _read_elements(examined, f"{name}[{index}]", inner or [], read, nulls=nulls)
        if good is None:
            return None
        read_lists.append(good)
    examined.record[name] = read_lists
    return read_lists


def _read_meta(examined: Examined, fields: Mapping[str, Any]) -> None:
    """`meta` and the unknown fields, merged."""
    meta = fields.get("meta", {})
    if not isinstance(meta, dict):
        examined.wrong("meta", f"expected an object, found {values.json_name(meta)}")
        meta = {}
    extras = {name: value for name, value in fields.items() if name not in KNOWN}
    examined.unknown = list(extras)
    try:
        both = kept_together(meta, extras)
    except Unkeepable as wrong:
        examined.wrong(wrong.field, str(wrong))
        return
    try:
        json.dumps(both, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        examined.wrong("meta", "has half a surrogate pair in one of its strings, which is no character")
        return
    if both:
        examined.record["meta"] = both
