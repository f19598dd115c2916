"""Records whose log holds text instead of token ids: what they ask `service.ingest.tokens` to tokenise.

Such a record is native but for `TOKENISE`, a JSON object:

    prompt      text, or chat messages for the tokenizer's chat template; absent where the ids are known
    response    text; absent where the ids are known
    vocabulary  the response as entries of the vocabulary ("Ġhello"): exact ids, in place of `response`
    pieces      texts of the engine's own tokens: log-probs are kept only if the new tokens are the first of them
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from service.ingest.adapters.common import kind
from service.ingest.adapters.fields import Fields

__all__ = ["TOKENISE", "conversation", "reply", "text_group"]

TOKENISE = "tokenise"


def text_group(prompt: str | list[Any]) -> str:
    """A group id for a log that names none: responses to the same prompt text share it."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
    return "prompt-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def conversation(fields: Fields, name: str) -> str | list[Any] | None:
    """A prompt: text, or a list of chat messages with a role. None, and noted as wrong, for anything else."""
    value = fields.get(name)
    if isinstance(value, str):
        return fields.text(name)
    if isinstance(value, list) and value and all(isinstance(part, dict) and "role" in part for part in value):
        return list(fields.plain(name) or [])
    if value is not None:
        fields.wrong(name, f"expected text or a list of chat messages, found {kind(value)}")
    return None


def reply(fields: Fields, name: str) -> str | None:
    """A response: text, or one message of the assistant. None, and noted as wrong, for anything else."""
    value = conversation(fields, name)
    if not isinstance(value, list):
        return value
    if not value:
        return None  # it was wrong
    if len(value) > 1:
        what = "holds several messages (tool calls?): text does not say which tokens the policy wrote; log token ids"
        fields.wrong(name, what)
        return None
    content = value[0].get("content")
    if isinstance(content, str) and not value[0].get("tool_calls"):
        return content
    fields.wrong(f"{name}[0].content", "expected the text of the response, without tool calls; log token ids")
    return None
