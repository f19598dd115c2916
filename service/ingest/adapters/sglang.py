"""SGLang's /generate responses: JSONL, one response a line.

Written by SGLang's tokenizer manager: `text`, `output_ids`, `prompt_token_ids` (with `return_prompt_token_ids`), and in
`meta_info` `output_token_logprobs` and `input_token_logprobs` (with `return_logprob`), lists of [logprob | null, token
id, text | null], `output_top_logprobs` (with `top_logprobs_num`), such a list for each position or null, or flat lists
(with `return_flat_raw_output_top_logprobs`), `finish_reason`, `weight_version`, `weight_versions` of the tokens, `id`,
`prompt_tokens`. Log-probs of the output are after `logit_bias` and temperature, before top-k and top-p. Whoever logs it
may add `step`, `reward`, `advantage`, `group_id`, and the prompt as `prompt` or `messages`, or the step is given with
the upload.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import kept, shift, show, token_id
from service.ingest.adapters.engine import (
    WITHOUT_TOKENS,
    Pair,
    best_first,
    engine_record,
    logprob,
    policy_versions,
    prompt_of,
    top_fields,
    version_number,
)
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE

__all__ = ["SGLANG"]

_HOW = (
    "ask for return_prompt_token_ids, or return_logprob with logprob_start_len=0, or add the prompt's text as `prompt`"
)
_TOPS = [f"_{what}_flat{form}" for what in ("val", "idx") for form in ("", "_b64", "_b64_dtype")]
_FLAT = [f"{side}_top_logprobs{what}" for side in ("input", "output") for what in (*_TOPS, "_shape", "_null_prefix")]
_READ = ("id", "weight_version", "output_token_logprobs", "output_top_logprobs", *_FLAT)
_ARRAYS = {"float32": "f", "float64": "d", "int32": "i", "int64": "q"}


def _recognises(names: frozenset[str]) -> bool:
    return "meta_info" in names and bool({"text", "output_ids"} & names)


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, raw)
    if fields.get("error") is not None and fields.get("meta_info") is None:
        yield LeftOut("the engine answered with an error")
        return
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
    about = _about(meta, ids)
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
    _unflatten(meta, name, length)
    for index, triples in enumerate(meta.elements(name, length) or []):
        if triples is not None and not isinstance(triples, list):
            meta.wrong(f"{name}[{index}]", f"expected a list or null, found {show(triples)}")
            return []
        pairs = [_pair(meta, f"{name}[{index}][{place}]", triple) for place, triple in enumerate(triples or [])]
        tops.append(best_first((pair[0], pair[1]) for pair in pairs if pair is not None and pair[1] is not None))
    return tops


def _unflatten(meta: Fields, name: str, length: int) -> None:
    """Flat top log-probs made the list of each position's that stands else: `shape` is positions × K."""
    shape = meta.get(f"{name}_shape")
    if shape is None:
        return
    try:
        rows, width = shape
        without = meta.get(f"{name}_null_prefix") or 0
        values, ids = _row(meta, f"{name}_val_flat"), _row(meta, f"{name}_idx_flat")
        if not all(type(count) is int and count >= 0 for count in (rows, width, without)):
            raise ValueError
        if rows + without != length or not len(values) == len(ids) == rows * width:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        meta.wrong(f"{name}_shape", f"does not fit the flat lists, or the response's {length} tokens")
        return
    pairs = [list(pair) for pair in zip(values, ids, strict=True)]
    nested = [pairs[row * width : (row + 1) * width] for row in range(rows)]
    meta.raw = {**meta.raw, name: [None] * without + nested}


def _row(meta: Fields, name: str) -> Sequence[Any]:
    """A flat list, or the bytes of one."""
    if meta.get(name) is not None:
        return list(meta.get(name))
    found = array(_ARRAYS[meta.get(f"{name}_b64_dtype")], base64.b64decode(meta.get(f"{name}_b64"), validate=True))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _about(meta: Fields, ids: list[int] | None) -> dict[str, Any]:
    """How it ended, and under which weights: a number where they are numbered."""
    structured = isinstance(meta.get("finish_reason"), dict)
    reason = meta.inside("finish_reason").text("type") if structured else meta.text("finish_reason")
    version = meta.name("weight_version")
    versions: list[int] | int | None = policy_versions(meta, ids)
    if versions is None and len(meta.elements("weight_versions") or []) < 2:
        versions = version_number(version)
    named = version is not None and versions is None
    read = _READ if structured else (*_READ, "finish_reason")  # its matched stop, say
    beside = meta.rest(read if named else (*read, "weight_versions"))
    about = {**beside, "weight_version": version} if named else beside
    return {"finish_reason": reason, "policy_version": versions, "meta": about}


SGLANG = Adapter("sglang", _recognises, _convert)
