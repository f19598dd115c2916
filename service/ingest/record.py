"""One JSON line to a typed `Record`, quickly. A line that does not decode is read again by `examine`, with words.

The types are a little wider than the record's (every number may be spelled as a float): what a wider type lets
through is checked on the columns, in `check`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw, Struct

from service.ingest.names import KNOWN, near_miss

__all__ = ["ABSENT", "DECODE_ERRORS", "Decoder", "Record", "Undecodable", "names_of"]

ABSENT = Raw(b"")

_Numbers = list[float]
_Known = list[float | None]
_Whole = int | float


class Record(Struct, gc=False, forbid_unknown_fields=True):  # gc=False: lists of numbers hold no cycles
    """The fields of a native record as they stand in the file. None = absent or null."""

    sample_id: str | int
    group_id: str | int
    prompt_token_ids: _Numbers
    response_token_ids: _Numbers
    step: _Whole | None = None
    response_mask: list[int | float | bool] | None = None
    rollout_logprobs: _Known | None = None
    rollout_top_token_ids: list[_Numbers | None] | None = None
    rollout_top_logprobs: list[_Known | None] | None = None
    old_logprobs: _Known | None = None
    new_logprobs: _Known | None = None
    reward: float | _Numbers | None = None
    advantage: float | _Known | None = None
    trainer_keep: list[bool | None] | None = None
    policy_version: _Whole | list[int] | None = None
    turn: _Numbers | None = None
    minibatch: _Whole | list[int] | None = None
    prompt_text: str | None = None
    response_text: str | None = None
    finish_reason: str | None = None
    logprobs_approximate: bool | None = None
    meta: Raw = ABSENT


DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)  # what decoding a line raises


class Undecodable(Exception):
    """The line is no record, or not obviously one."""


_MAX_LEARNT = 256  # unknown names the decoder takes in; records with yet others are read the slow way
_UNLEARNABLE = re.compile(r'["\\\x00-\x1f]')  # what msgspec refuses in the name of a field
names_of = msgspec.json.Decoder(dict[str, Raw]).decode


class Decoder:
    """Decodes lines to records, and learns the unknown fields of a file as it meets them."""

    def __init__(self) -> None:
        self._attributes: dict[str, str] = {}  # attribute of the extended struct -> name in the file
        self.quick: Callable[[bytes | memoryview], Record] = msgspec.json.Decoder(Record).decode  # raises DECODE_ERRORS
        self.has_extras = False  # whether any record had a field of its own so far

    def decode(self, line: bytes | memoryview) -> Record:
        """The record of one line, its unknown fields included. Raises `Undecodable`."""
        try:
            return self.quick(line)
        except DECODE_ERRORS as error:
            if "unknown field" not in str(error):
                raise Undecodable from error
        try:
            self._learn(name for name in names_of(line) if name not in KNOWN)
            return self.quick(line)
        except DECODE_ERRORS as error:
            raise Undecodable from error

    def extras(self, record: Record) -> dict[str, Raw]:
        """The unknown fields of a record, by name, as JSON; null ones left out."""
        found = {}
        for attribute, name in self._attributes.items():
            value = getattr(record, attribute, ABSENT)
            if value is not ABSENT and (len(memoryview(value)) != 4 or bytes(value) != b"null"):
                found[name] = value
        return found

    def _learn(self, names: Iterable[str]) -> None:
        """Decode these names too, from now on. Raises `Undecodable` for a slip of the pen, and past the limit."""
        new = sorted(set(names).difference(self._attributes.values()))
        if len(self._attributes) + len(new) > _MAX_LEARNT or any(map(_UNLEARNABLE.search, new)):
            raise Undecodable
        if any(map(near_miss, new)):
            raise Undecodable
        self.has_extras = True
        for name in new:
            self._attributes[f"extra_{len(self._attributes)}"] = name
        extended = msgspec.defstruct(
            "ExtendedRecord",
            [(attribute, Raw, ABSENT) for attribute in self._attributes],
            bases=(Record,),
            rename=self._attributes,
            gc=False,
            forbid_unknown_fields=True,
        )
        self.quick = msgspec.json.Decoder(extended).decode  # type: ignore[assignment]
