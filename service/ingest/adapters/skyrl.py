"""SkyRL `dump_data_batch`: one row of a `TrainingInputBatch`, as the export of `service.cli.exports` writes it.

The dump itself is a pickle of a class, which only the trainer's own environment may open. A row is left-padded: tokens
and the lists over the response end at the right edge, `response_mask` says where the response begins. `rewards` and
`uids` are removed before the dump, and the step stands in its name only. In step-wise training a row is a turn, whose
prompt is the conversation so far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from service.errors import BadRecord, FieldError
from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import plain, prompt_hash, rest, shift, turns

__all__ = ["NO_RESPONSE", "ROW_KEYS", "SKYRL", "meta_of", "whole"]

_LISTS = {"rollout_logprobs": "rollout_logprobs", "action_log_probs": "old_logprobs", "advantages": "advantage"}
ROW_KEYS = ("sequences", "attention_mask", "response_mask", "loss_mask", *_LISTS)

NO_RESPONSE = "no response token"


def _recognises(names: frozenset[str]) -> bool:
    return {"sequences", "attention_mask", "response_mask"} <= names


def whole(line: int, raw: dict[str, Any], name: str, length: int | None = None) -> list[Any]:
    """A list of a padded row. Raises `BadRecord` where it is none, or not of the length of its neighbours."""
    values = raw.get(name)
    if not isinstance(values, list):
        problem = "is required and missing" if values is None else "expected a list"
    elif length is not None and len(values) != length:
        problem = f"has {len(values)} entries, expected {length}{shift(len(values), length)}"
    else:
        return values
    raise BadRecord(f"Line {line}, {name}: {problem}.", [FieldError(problem, line, name)])


def meta_of(line: int, raw: dict[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """What else the row has. Raises `BadRecord` for what meta cannot keep."""
    found = {}
    for name, value in rest(raw, taken).items():
        try:
            found[name] = plain(value)
        except ValueError as error:
            raise BadRecord(f"Line {line}, {name}: {error}.", [FieldError(str(error), line, name)]) from None
    return found


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    sequence = whole(line, raw, "sequences")
    attention = whole(line, raw, "attention_mask", len(sequence))
    response = whole(line, raw, "response_mask")
    tokens = [token for token, real in zip(sequence, attention, strict=True) if real]
    length = sum(1 for one in response if one)
    if length == 0:
        yield LeftOut(NO_RESPONSE)
        return
    if not all(response[-length:]) or length >= len(tokens):
        problem = "is not a run of ones at the right edge, shorter than the tokens"
        raise BadRecord(f"Line {line}, response_mask: {problem}.", [FieldError(problem, line, "response_mask")])
    prompt, mask = tokens[:-length], whole(line, raw, "loss_mask", len(response))[-length:]
    record = {
        "step": raw.get("step"),
        "sample_id": str(raw.get("row", line - 1)),
        "group_id": prompt_hash(prompt),
        "prompt_token_ids": prompt,
        "response_token_ids": tokens[-length:],
        "response_mask": mask,
        "turn": turns(mask),  # the mask is 0 on what an environment said
        "meta": meta_of(line, raw, (*ROW_KEYS, "step", "row")) or None,
    }
    for source, target in _LISTS.items():
        if raw.get(source) is not None:
            record[target] = whole(line, raw, source, len(response))[-length:]
    yield {name: value for name, value in record.items() if value is not None}


SKYRL = Adapter("skyrl", _recognises, _convert)
