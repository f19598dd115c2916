"""ROLL: the columnar `rollout_dump_dir`, and the RLLoggingBoard layout of `save_logging_board_dir`.

The dump (`dump_rollout_to_specific_path`, roll/pipeline/rlvr/utils.py) is one JSON object of columns for a step:
`global_step`, `id` (of the prompt), `prompt`, `messages` (JSON), `responses` (special tokens stripped), `scores`, …

The board (`save_metrics`, roll/pipeline/rlvr/rlvr_pipeline.py) is JSONL, one response a line: `prompt` and `response`
with special tokens and padding, `response_tokens` (entries of the vocabulary, padded), and from the response's first
token on `logprobs` (the trainer's, before the update), `ref_logprobs`, `new_response_mask`.
Its `token_rewards` are over another span, so `reward` alone is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import Span, show
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE, text_group

__all__ = ["ROLL", "ROLL_BOARD"]

_COLUMNS = ("global_step", "id", "prompt", "messages", "responses", "scores")
_BOARD = ("prompt", "response", "response_tokens", "new_response_mask", "logprobs", "reward", "step")
_ASIDE = ("ref_logprobs", "log_probs2", "old_log_probs2_entropy")  # per token, without a place of their own


def _is_dump(names: frozenset[str]) -> bool:
    return {"responses", "scores", "global_step"} <= names


def _is_board(names: frozenset[str]) -> bool:
    return {"prompt", "response_tokens", "logprobs", "new_response_mask"} <= names


def _dump(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fields = Fields(line, raw)
    fields.need("responses", "global_step")
    responses = fields.elements("responses") or []
    columns = {name: fields.elements(name, len(responses)) for name in raw}
    fields.check()
    for index in range(len(responses)):
        yield _response(_Row(line, columns, index), index)


class _Row(Fields):
    """One row of the columns; errors name the column and the place."""

    def __init__(self, line: int, columns: dict[str, list[Any] | None], index: int) -> None:
        row = {name: values[index] for name, values in columns.items() if values is not None}
        super().__init__(line, row)
        self._index = index

    def wrong(self, name: str, message: str) -> None:
        super().wrong(f"{name}[{self._index}]", message)


def _response(row: _Row, index: int) -> dict[str, Any]:
    row.need("responses", "global_step")
    response, step, score = row.text("responses"), row.step("global_step"), row.number("scores")
    prompt, group, meta = _prompt(row), row.name("id"), row.rest(_COLUMNS)
    row.check()
    assert prompt is not None
    group = group or text_group(prompt)
    return {
        "step": step,
        "sample_id": f"{group}/{index}",
        "group_id": group,
        "prompt_text": prompt if isinstance(prompt, str) else None,
        "response_text": response,
        "reward": score,
        "meta": meta,
        TOKENISE: {"prompt": prompt, "response": response},
    }


def _prompt(row: _Row) -> str | list[Any] | None:
    """What the policy saw: `messages` in the chat template, else `prompt` as it is."""
    text = row.text("messages")
    if not text:
        row.need("prompt")
        return row.text("prompt")
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        messages = None
    if isinstance(messages, list) and messages and all(isinstance(part, dict) and "role" in part for part in messages):
        return messages
    row.wrong("messages", f"{show(text)} is not a JSON list of chat messages")
    return None


def _board(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, raw)
    fields.need("prompt", "response_tokens", "new_response_mask", "step")
    prompt, response, reward = fields.text("prompt"), fields.text("response"), fields.number("reward")
    entries, mask = fields.elements("response_tokens") or [], fields.flags("new_response_mask") or []
    step = fields.step("step")
    length = len(mask) - mask[::-1].index(True) if True in mask else 0  # the rest is padding
    if length > len(entries):
        fields.wrong("response_tokens", f"has {len(entries)} entries, but new_response_mask marks {length} tokens")
    if not all(isinstance(entry, str) for entry in entries[:length]):
        fields.wrong("response_tokens", "expected entries of the vocabulary, as strings")
    logprobs = fields.logprobs("logprobs", len(mask), Span(0, length, mask[:length]))
    aside = {name: fields.numbers(name, len(mask)) for name in _ASIDE}
    meta = fields.rest((*_BOARD, *_ASIDE)) | {name: values[:length] for name, values in aside.items() if values}
    fields.check()
    assert prompt is not None
    if not length:
        yield LeftOut("their mask marks no token of the response")
        return
    yield {
        "step": step,
        "sample_id": str(line),
        "group_id": text_group(prompt),
        "prompt_text": prompt,
        "response_text": response,
        "response_mask": mask[:length],
        "old_logprobs": logprobs,
        "reward": reward,
        "meta": meta,
        TOKENISE: {"prompt": prompt, "vocabulary": entries[:length]},
    }


ROLL = Adapter("roll", _is_dump, _dump)
ROLL_BOARD = Adapter("roll-board", _is_board, _board)
