"""SGLang's /generate responses: JSONL, one response a line.

Written by SGLang's tokenizer manager: `text`, `output_ids`, `prompt_token_ids` (with `return_prompt_token_ids`), and in
`meta_info` `output_token_logprobs` and `input_token_logprobs` (with `return_logprob`), lists of [logprob | null, token
id, text | null], `output_top_logprobs` (with `top_logprobs_num`), such a list for each position or null,
`finish_reason`, `weight_version`, `id`, `prompt_tokens`. Whoever logs it may add `step`, `reward`, `advantage`,
`group_id`, and the prompt as `prompt` or `messages`, or the step is given with the upload.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import kept, shift, show, token_id
from service.ingest.adapters.engine import (
    WITHOUT_TOKENS,
    Pair,
    best_first,
    engine_record,
    logprob,
    prompt_of,
    top_fields,
)
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE

__all__ = ["SGLANG"]

_HOW = (
    "ask for return_prompt_token_ids, or return_logprob with logprob_start_len=0, or add the prompt's text as `prompt`"
)
_READ = ("id", "weight_version", "output_token_logprobs", "output_top_logprobs")


def _recognises(names: frozenset[str]) -> bool:
    return "meta_info" in names and bool({"text", "output_ids"} & names)


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, raw)
    meta = fields.inside("meta_info")
    output, inputs = _triples(meta, "output_token_logprobs"), _triples(meta, "input_token_logprobs")
    ids, response = fields.ids("output_ids"), fields.text("text")
    prompt, prompt_ids = prompt_of(fields), fields.ids("prompt_token_ids")
    if prompt_ids is None and inputs and len(inputs) == meta.integer("prompt_tokens"):
        prompt_ids = [token for token, _ in inputs]
    if prompt_ids is None and prompt is None:
        fields.wrong("prompt_token_ids", f"is required and missing; {_HOW}")
    if output is not None and ids is None:
        ids = [token for token, _ in output]
    if output is not None and ids != [token for token, _ in output]:
        _differ(meta, ids or [], output)
    if prompt_ids == []:
        fields.wrong("prompt_token_ids", "is empty")
    if ids is None and response is None:
        fields.wrong("output_ids", "is required and missing")
    tops = _tops(meta, len(ids or []))
    about = _about(meta)
    sample = meta.name("id") or str(line)
    record = engine_record(sample, prompt_ids, prompt, response, (fields,))
    if ids is None:
        record.setdefault(TOKENISE, {})["response"] = response
    else:
        record["response_token_ids"] = ids
        record["rollout_logprobs"] = kept([value for _, value in output]) if output else None
        record.update(top_fields(tops))
    fields.check()
    yield LeftOut(WITHOUT_TOKENS) if ids == [] else {**record, **about}


def _triples(fields: Fields, name: str) -> list[tuple[int, float | None]] | None:
    """(token id, log-prob) of each [logprob, token id, text]."""
    found = []
    for index, triple in enumerate(fields.elements(name) or []):
        pair = _pair(fields, f"{name}[{index}]", triple)
        if pair is None:
            return None
        found.append(pair)
    return found or None


def _pair(fields: Fields, name: str, triple: Any) -> tuple[int, float | None] | None:
    if not isinstance(triple, list) or len(triple) < 2:
        fields.wrong(name, f"{show(triple)} is not [logprob, token id, text]")
        return None
    try:
        return token_id(triple[1]), logprob(triple[0])
    except ValueError as error:
        fields.wrong(name, str(error))
        return None


def _differ(meta: Fields, ids: list[int], output: list[tuple[int, float | None]]) -> None:
    """Say how the log-probs' tokens differ from the response's."""
    by = len(output) - len(ids)
    what = (
        f"is of {len(output)} tokens, but output_ids has {len(ids)}{shift(len(output), len(ids))}"
        if by
        else "is of other tokens than output_ids"
    )
    meta.wrong("output_token_logprobs", what)


def _tops(meta: Fields, length: int) -> list[list[Pair]]:
    """The top log-probs of each position, best first."""
    name = "output_top_logprobs"
    tops: list[list[Pair]] = []
    for index, triples in enumerate(meta.elements(name, length) or []):
        if triples is not None and not isinstance(triples, list):
            meta.wrong(f"{name}[{index}]", f"expected a list or null, found {show(triples)}")
            return []
        pairs = [_pair(meta, f"{name}[{index}][{place}]", triple) for place, triple in enumerate(triples or [])]
        tops.append(best_first((pair[0], pair[1]) for pair in pairs if pair is not None and pair[1] is not None))
    return tops


def _about(meta: Fields) -> dict[str, Any]:
    """How it ended, and under which weights: a number where they are numbered."""
    structured = isinstance(meta.get("finish_reason"), dict)
    reason = meta.inside("finish_reason").text("type") if structured else meta.text("finish_reason")
    version = meta.name("weight_version")
    beside = meta.rest(_READ if structured else (*_READ, "finish_reason"))  # its matched stop, say
    if version is not None and version.isascii() and version.isdecimal() and len(version) < 19:
        return {"finish_reason": reason, "policy_version": int(version), "meta": beside}
    return {"finish_reason": reason, "meta": beside if version is None else {**beside, "weight_version": version}}


SGLANG = Adapter("sglang", _recognises, _convert)
