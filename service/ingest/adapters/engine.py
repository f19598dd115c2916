"""What responses of inference engines share: no step or reward of their own, and top log-probs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from service.ingest.adapters.common import number, prompt_hash
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE, conversation, text_group

__all__ = [
    "WITHOUT_TOKENS",
    "Pair",
    "best_first",
    "engine_record",
    "logprob",
    "policy_versions",
    "prompt_of",
    "top_fields",
    "version_number",
]

Pair = tuple[int, float]  # token id, log-prob

WITHOUT_TOKENS = "the engine gave no token of them"
_FLOOR = -9999.0  # how vLLM writes −∞, and "not known" in chat responses


def logprob(value: Any) -> float | None:
    """A log-prob; None where the engine had none. Raises `ValueError` for what is no number."""
    try:
        found = number(value)
    except ValueError:
        if isinstance(value, float) and value == -math.inf:
            return None
        raise
    if found is not None and found > 0:
        raise ValueError(f"{found} is a positive log-probability")
    return None if found is None or found <= _FLOOR else found


def best_first(pairs: Iterable[Pair]) -> list[Pair]:
    """Top entries by log-prob, equal ones as they stand."""
    return sorted(pairs, key=lambda pair: -pair[1])


def top_fields(tops: list[list[Pair]]) -> dict[str, Any]:
    """The record's top lists; none where no position has one."""
    if not any(tops):
        return {}
    return {
        "rollout_top_token_ids": [[token for token, _ in top] for top in tops],
        "rollout_top_logprobs": [[value for _, value in top] for top in tops],
    }


def policy_versions(fields: Fields, ids: list[int] | None) -> list[int] | None:
    """The weight version of each token, by the spans of `weight_versions`; None where they have names, not numbers."""
    if ids is None or not fields.get("weight_versions"):
        return None
    versions: list[int] = []
    named = False
    for span in fields.each("weight_versions"):
        version, start, end = span.name("version"), span.integer("start"), span.integer("end")
        if start != len(versions) or end is None or not start <= end <= len(ids):
            break
        number = version_number(version)
        named = named or number is None
        versions += [number or 0] * (end - start)
    if len(versions) != len(ids):
        fields.wrong("weight_versions", f"has spans that do not make up the response's {len(ids)} tokens")
    return None if named else versions


def version_number(version: str | None) -> int | None:
    """A weight version where they are numbered."""
    numbered = version is not None and version.isascii() and version.isdecimal() and len(version) < 19
    return int(version or "") if numbered else None


def prompt_of(*places: Fields) -> str | list[Any] | None:
    """The prompt as text or chat messages, if one of these objects holds it."""
    for fields in places:
        for name in ("prompt", "messages"):
            if fields.get(name) is not None:
                return conversation(fields, name)
    return None


def engine_record(
    sample: str, ids: list[int] | None, prompt: str | list[Any] | None, response: str | None, places: tuple[Fields, ...]
) -> dict[str, Any]:
    """A record without its response: names, prompt, and what stands beside the response in `places`."""
    beside: dict[str, Any] = {}
    for fields in places:
        found = {name: _numbers(fields, name) for name in ("reward", "advantage")}
        found |= {"step": fields.step("step"), "group_id": fields.name("group_id")}
        beside |= {name: value for name, value in found.items() if value is not None}
    record: dict[str, Any] = {
        "sample_id": sample,
        "group_id": text_group(prompt or "") if ids is None else prompt_hash(ids),
        "prompt_text": prompt if isinstance(prompt, str) else None,
        "response_text": response,
        **beside,
    }
    if ids is None:
        record[TOKENISE] = {"prompt": prompt}
    else:
        record["prompt_token_ids"] = ids
    return record


def _numbers(fields: Fields, name: str) -> Any:
    """A number, or one for each token."""
    return fields.numbers(name) if isinstance(fields.get(name), list) else fields.number(name)
