"""open-instruct `{run}_rollouts_{shard}.jsonl` (`save_traces`): one response a line, prompt and response apart.

The trainer's mask of tool tokens is not in the file, so that every response token counts, with the import's warning.
Where a tool was called, its tokens have a log-prob of 0.0: such a one is not known there. Log-probs may also hold 1.0,
open-instruct's sign for "not valid". Its `prompt_idx` starts again with every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import Span
from service.ingest.adapters.fields import Fields

__all__ = ["OPEN_INSTRUCT"]

_NEEDED = ("step", "sample_idx", "prompt_idx", "prompt_tokens", "response_tokens")
_READ = ("logprobs", "reward", "advantage", "finish_reason")
_INVALID_LOGPROB = 1.0


def _recognises(names: frozenset[str]) -> bool:
    return set(_NEEDED) <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, raw)
    fields.need(*_NEEDED)
    fields.check()
    prompt, response = fields.ids("prompt_tokens"), fields.ids("response_tokens")
    step, group = fields.step("step"), fields.name("prompt_idx")
    if prompt == []:
        fields.wrong("prompt_tokens", "is empty")
    fields.check()
    if not response:
        yield LeftOut("the response has no token")
        return
    record = {
        "step": step,
        "sample_id": fields.name("sample_idx"),
        "group_id": f"{step}/{group}",
        "prompt_token_ids": prompt,
        "response_token_ids": response,
        "rollout_logprobs": fields.logprobs(
            "logprobs", len(response), Span(0, len(response), _sampled(fields, response)), _INVALID_LOGPROB
        ),
        "reward": fields.number("reward"),
        "advantage": fields.number("advantage"),
        "finish_reason": fields.text("finish_reason"),
        "meta": fields.rest((*_NEEDED, *_READ)),
    }
    fields.check()
    yield record


def _sampled(fields: Fields, response: list[int]) -> list[bool]:
    """Which tokens are no tool's for sure: with a tool, those whose log-prob is not 0.0."""
    info, logprobs = fields.get("request_info"), fields.get("logprobs")
    called = isinstance(info, dict) and info.get("tool_calleds") is True
    if called and isinstance(logprobs, list) and len(logprobs) == len(response):
        return [value != 0 for value in logprobs]
    return [True] * len(response)


OPEN_INSTRUCT = Adapter("open-instruct", _recognises, _convert)
