"""The shapes of log-probs in vLLM's responses, as tokens of the response."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from service.ingest.adapters.common import kind, shift, show, token_id
from service.ingest.adapters.engine import Pair, best_first, logprob
from service.ingest.adapters.fields import Fields

__all__ = ["Tokens", "chat_tokens", "completion_tokens", "offline_tokens", "unflatten"]

_ID = "token_id:"


@dataclass
class Tokens:
    """A response. `names` are the engine's own texts of its tokens, for where it gave no ids.

    `prompt` are those of the prompt's tokens, where the lists begin with them, and `prompt_ids` their ids.
    """

    ids: list[int] | None
    names: list[str] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    tops: list[list[Pair]] = field(default_factory=list)
    lost_tops: bool = False  # top log-probs that are keyed by text, which does not say whose they are
    prompt: list[str] = field(default_factory=list)
    prompt_ids: list[int] | None = None


def completion_tokens(fields: Fields, ids: list[int] | None, prompt_length: int) -> Tokens:
    """Of `tokens`, `token_logprobs` and `top_logprobs`; with `echo` they begin with the prompt.

    Its first token has no log-prob, a sampled one always has.
    `top_logprobs` of a position holds the sampled token and the top N: N + 1 entries where it is not among them.
    """
    names = fields.elements("tokens")
    if not names:
        return Tokens(ids)
    if not all(isinstance(name, str) for name in names):
        fields.wrong("tokens", "expected strings")
        return Tokens(ids)
    values = fields.elements("token_logprobs", len(names)) or [None] * len(names)
    tops = fields.elements("top_logprobs", len(names)) or [None] * len(names)
    echoed = values[0] is None if ids is None else len(names) == prompt_length + len(ids)
    start = prompt_length if echoed else 0
    prompt, names, values, tops = names[:start], names[start:], values[start:], tops[start:]
    tokens = _named(fields, "tokens", ids, names)
    tokens.prompt, tokens.prompt_ids = prompt, _ids_of(prompt) if prompt else None
    tokens.logprobs = _values(fields, "token_logprobs", values)
    for index, entries in enumerate(tops):
        if entries is not None and not isinstance(entries, dict):
            fields.wrong(f"top_logprobs[{index}]", f"expected an object, found {kind(entries)}")
            return tokens
        tokens.tops.append(_pairs(fields, f"top_logprobs[{index}]", (entries or {}).items(), tokens))
    tokens.lost_tops = tokens.lost_tops and any(len(entries or {}) > 1 for entries in tops)
    count = min((len(top) for top in tokens.tops if top), default=0)
    tokens.tops = [top[:count] for top in tokens.tops]
    return _without_sampled_only(tokens)


def chat_tokens(fields: Fields, ids: list[int] | None) -> Tokens:
    """Of `content`. Its top list is cut to N entries with the sampled token first, however unlikely that is.

    /inference/v1/generate has `token_id` in place of `token`.
    """
    content = fields.each("content")
    names = [_name_of(entry.raw) for entry in content]
    tokens = _named(fields, "content", ids, names)
    tokens.logprobs = [_value(entry, "logprob", entry.get("logprob")) for entry in content]
    for index, entry in enumerate(content):
        listed = entry.each("top_logprobs")
        pairs = _pairs(entry, "top_logprobs", ((_name_of(top.raw), top.get("logprob")) for top in listed), tokens)
        # The last one may stand where the N-th best was pushed out.
        if tokens.ids is not None and index < len(tokens.ids) and pairs and pairs[-1][0] == tokens.ids[index]:
            pairs.pop()
        tokens.tops.append(pairs)
    return tokens


def offline_tokens(fields: Fields, ids: list[int] | None) -> Tokens:
    """Of a list of {token id: {logprob, rank}}. The sampled token need not be the first entry."""
    if ids is None:
        fields.need("token_ids")
        return Tokens(None)
    tokens = Tokens(ids)
    for index, entries in enumerate(fields.elements("logprobs", len(ids)) or []):
        if not isinstance(entries, dict) or str(ids[index]) not in entries:
            fields.wrong(f"logprobs[{index}]", f"has no entry for the sampled token {ids[index]} (shifted?)")
            return tokens
        values = {name: entry.get("logprob") if isinstance(entry, dict) else entry for name, entry in entries.items()}
        tokens.logprobs.append(_value(fields, f"logprobs[{index}]", values[str(ids[index])]))
        named = ((_ID + name, value) for name, value in values.items())
        tokens.tops.append(_pairs(fields, f"logprobs[{index}]", named, tokens))
    count = min((len(top) for top in tokens.tops), default=0)
    tokens.tops = [top[:count] for top in tokens.tops]
    return _without_sampled_only(tokens)


def _named(fields: Fields, name: str, ids: list[int] | None, names: list[str]) -> Tokens:
    """Tokens by their ids, or by names that are ids; the two must agree."""
    by_name = _ids_of(names)
    if ids is not None and len(names) != len(ids):
        fields.wrong(name, f"has {len(names)} entries, but token_ids has {len(ids)}{shift(len(names), len(ids))}")
    elif ids is not None and by_name is not None and by_name != ids:
        fields.wrong(name, "is of other tokens than token_ids (shifted?)")
    return Tokens(by_name if ids is None else ids, names)


def unflatten(fields: Fields, name: str) -> None:
    """`FlatLogprobs` (of `SamplingParams.flat_logprobs`) made the list of {token id: {logprob}} that stands else."""
    flat = fields.get(name)
    if not isinstance(flat, dict) or "start_indices" not in flat:
        return
    try:
        entries = list(zip(flat["token_ids"], flat["logprobs"], strict=True))
        spans = zip(flat["start_indices"], flat["end_indices"], strict=True)
        places = [{str(token): {"logprob": value} for token, value in entries[start:end]} for start, end in spans]
    except (KeyError, TypeError, ValueError):
        fields.wrong(name, "has lists that do not fit together")
        places = []
    fields.raw = {**fields.raw, name: [entries or None for entries in places]}


def _name_of(entry: dict[str, Any]) -> str:
    return str(entry.get("token")) if entry.get("token_id") is None else f"{_ID}{entry['token_id']}"


def _ids_of(names: list[str]) -> list[int] | None:
    """Names as the ids that they are; None if one is no id."""
    ids = [token for token in map(_id_of, names) if token is not None]
    return ids if len(ids) == len(names) else None


def _id_of(name: Any) -> int | None:
    digits = name.removeprefix(_ID) if isinstance(name, str) and name.startswith(_ID) else ""
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 11 else None


def _values(fields: Fields, name: str, values: list[Any]) -> list[float | None]:
    return [_value(fields, f"{name}[{index}]", value) for index, value in enumerate(values)]


def _value(fields: Fields, name: str, value: Any) -> float | None:
    try:
        return logprob(value)
    except ValueError as error:
        fields.wrong(name, str(error))
        return None


def _pairs(fields: Fields, name: str, entries: Iterable[tuple[Any, Any]], tokens: Tokens) -> list[Pair]:
    """Top entries, best first; none where they are keyed by text."""
    pairs = []
    for key, value in entries:
        token = _id_of(key)
        if token is None:
            tokens.lost_tops = True
            return []
        try:
            token_id(token)
        except ValueError as error:
            fields.wrong(name, f"{show(key)}: {error}")
            return []
        found = _value(fields, name, value)
        if found is not None:
            pairs.append((token, found))
    return best_first(pairs)


def _without_sampled_only(tokens: Tokens) -> Tokens:
    """Without lists that hold the sampled token alone, which is no top 1: `logprobs` was 0."""
    sampled = zip(tokens.tops, tokens.ids or [], strict=False)
    if all(len(top) < 2 and [token for token, _ in top] in ([], [own]) for top, own in sampled):
        tokens.tops = []
    return tokens
