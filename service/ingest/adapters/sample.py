"""The `Sample` of slime, which miles shares: one dict per response, as `Sample.to_dict()` gives it.

`tokens` is prompt + response, `response_length` says where the response begins, and every list about tokens is over the
response. Plain data in, plain data out: what holds tensors is turned into lists before it comes here.

`turn` stays null: `loss_mask` is 0 on a tool's tokens, but also on those that an earlier policy sampled in a partial
rollout, so that a gap in it need not be another's turn.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import BadRecord, FieldError
from service.ingest.adapters.common import prompt_hash, rest, shift

__all__ = ["SAMPLE_FIELDS", "Notes", "aligned", "bad", "known", "sample_ids", "sample_record"]

Notes = Counter[str]  # what was noticed, and in how many responses

SAMPLE_FIELDS = (
    *("index", "group_index", "rollout_id", "prompt", "tokens", "response", "response_length", "label", "reward"),
    *("loss_mask", "weight_versions", "rollout_log_probs", "remove_sample", "status"),
)  # what has a place in the record; the others go to meta
_NUMBERS = {int, float, bool, type(None)}

EMPTY = "responses without a token, or without a prompt, were left out"
SEVERAL_VERSIONS = (
    "responses were sampled by several weight versions: meta lists them, policy_version is null, because the dump does "
    "not say which token is whose"
)
NOT_FINITE = "responses have log-probs or advantages that are not finite; those are null"


def bad(position: int, field: str, message: str) -> BadRecord:
    """The refusal of a file for one of its samples (0-based); the line of the error is the sample's number."""
    return BadRecord(f"Sample {position + 1}, {field}: {message}.", [FieldError(message, position + 1, field)])


def aligned(position: int, field: str, values: Any, length: int) -> list[Any]:
    """A list over the response. Raises `BadRecord` for another length, naming a shift by one."""
    if not isinstance(values, (list, array)):
        raise bad(position, field, f"expected a list, found {type(values).__name__}")
    if len(values) != length:
        hint = shift(len(values), length)
        raise bad(position, field, f"has {len(values)} entries, but the response has {length} tokens{hint}")
    if not set(map(type, values)) <= _NUMBERS:
        raise bad(position, field, "holds something that is no number")
    return list(values)


def known(values: Sequence[Any], mask: Sequence[int], notes: Notes) -> list[Any]:
    """Log-probs or advantages, null where the mask is 0 (slime and miles store 0.0
    there) and where they are not finite."""
    lost = False
    kept: list[Any] = []
    for value, counts in zip(values, mask, strict=True):
        if not counts or value is None:
            kept.append(None)
        elif math.isfinite(value):
            kept.append(value)
        else:
            kept.append(None)
            lost = True
    notes[NOT_FINITE] += lost
    return kept


def sample_ids(indices: Sequence[Any], positions: Sequence[int]) -> list[str]:
    """[samples] ids of one step: the sample's index, with its position where siblings share one or none is known."""
    often = Counter(indices)
    return [
        f"row-{position}" if index is None else str(index) if often[index] == 1 else f"{index}/{position}"
        for position, index in zip(positions, indices, strict=True)
    ]


def sample_record(
    step: int, position: int, sample: Mapping[str, Any], sample_id: str, notes: Notes
) -> dict[str, Any] | None:
    """The native record of one sample; None where it has no response or no prompt. Raises `BadRecord`."""
    tokens, length = sample.get("tokens"), sample.get("response_length")
    if not isinstance(tokens, list):
        raise bad(position, "tokens", "is required and missing")
    if not isinstance(length, int) or not 0 <= length <= len(tokens):
        raise bad(position, "response_length", f"{length!r} is not a length within the {len(tokens)} tokens")
    if length in (0, len(tokens)):
        notes[EMPTY] += 1
        return None
    prompt, response = tokens[:-length], tokens[-length:]
    group, mask, logprobs = (sample.get(name) for name in ("group_index", "loss_mask", "rollout_log_probs"))
    mask = [1] * length if mask is None else aligned(position, "loss_mask", mask, length)  # as the trainer fills it
    record: dict[str, Any] = {
        "step": step,
        "sample_id": sample_id,
        "group_id": prompt_hash(prompt) if group is None else str(group),
        "prompt_token_ids": prompt,
        "response_token_ids": response,
        "response_mask": [0] * length if sample.get("remove_sample") else mask,  # the trainer drops it from the loss
    }
    if logprobs is not None:
        logprobs = aligned(position, "rollout_log_probs", logprobs, length)
        record["rollout_logprobs"] = known(logprobs, record["response_mask"], notes)
    return {**record, **_about(sample, notes)}


def _about(sample: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """Everything that is not over tokens."""
    meta = rest(sample, SAMPLE_FIELDS)
    if sample.get("label") is not None:
        meta["label"] = sample["label"]
    if sample.get("remove_sample"):
        meta["remove_sample"] = True
    if sample.get("rollout_id") is not None:
        meta["rollout_id"] = sample["rollout_id"]  # of the execution that this sample was part of, not of the step
    found: dict[str, Any] = {"finish_reason": sample.get("status"), "response_text": sample.get("response") or None}
    if isinstance(sample.get("prompt"), str):
        found["prompt_text"] = sample["prompt"] or None
    elif sample.get("prompt"):
        meta["prompt"] = sample["prompt"]
    reward = sample.get("reward")
    if isinstance(reward, dict):  # --reward-key chose one of several, and is not in the file
        meta["reward"] = reward
        reward = None
    found["reward"] = reward
    versions = sample.get("weight_versions") or []
    if len(set(versions)) == 1 and str(versions[0]).isdecimal():
        found["policy_version"] = int(versions[0])
    elif versions:
        meta["weight_versions"] = versions
        if len(set(versions)) > 1 and all(str(version).isdecimal() for version in versions):
            numbers = [int(version) for version in versions]
            meta["policy_versions"] = [min(numbers), max(numbers)]
        notes[SEVERAL_VERSIONS] += len(set(versions)) > 1
    return {name: value for name, value in {**found, "meta": meta or None}.items() if value is not None}
