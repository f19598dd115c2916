"""A row of a `DataProto`, as the export of `service.cli.exports` writes it: verl's RolloutSkip, ROLL's rollout mock.

The dumps themselves are pickles of a class, which only the trainer's own environment may open. verl pads the prompt on
the left and the response on the right: `responses`, `response_mask` and the log-probs are over the response block, and
`response_mask` is also 0 on tool tokens. ROLL pads the whole sequence on the right: `response_mask` is over it, and the
lists of log-probs begin with the second token. Stable-RL's fork adds the engine's most likely tokens of each position.
The step stands in `meta.json` beside the dump (RolloutSkip) or in its name.

A batch of verl's TransferQueue (RolloutTqSkip) has the same names without padding, so no `attention_mask`. It says
which weights sampled a response, from `min_global_steps` to `max_global_steps`: N after N updates, so that step N of a
synchronous run samples with N − 1. `policy_version` is the step that these weights are the current ones of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import prompt_hash, turns
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.skyrl import NO_RESPONSE, meta_of, whole

__all__ = ["BATCH_KEYS", "DATAPROTO", "NON_TENSOR_KEYS", "VERSIONS"]

_LISTS = {
    "rollout_log_probs": "rollout_logprobs",  # verl
    "infer_logprobs": "rollout_logprobs",  # ROLL
    "old_log_probs": "old_logprobs",
    "advantages": "advantage",
}
_TOPS = {"rollout_topk_token_ids": "rollout_top_token_ids", "rollout_topk_logprobs": "rollout_top_logprobs"}
BATCH_KEYS = ("input_ids", "attention_mask", "responses", "response_mask", *_LISTS, *_TOPS, "rm_scores", "prompt_id")
NON_TENSOR_KEYS = ("uid",)
VERSIONS = ("min_global_steps", "max_global_steps")


def _recognises(names: frozenset[str]) -> bool:
    return {"input_ids", "response_mask"} <= names and bool(names & {"attention_mask", "responses"})


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    ids = whole(line, raw, "input_ids")
    real = whole(line, raw, "attention_mask", len(ids)) if "attention_mask" in raw else [1] * len(ids)
    mask = whole(line, raw, "response_mask")
    if len(mask) == len(ids):  # ROLL
        start, shift = next((place for place, one in enumerate(mask) if one), len(ids)), 1
    else:
        start, shift = len(ids) - len(whole(line, raw, "responses", len(mask))), 0
    kept = [place for place in range(start, len(ids)) if real[place]]  # places of the response in the whole row
    if not kept:
        yield LeftOut(NO_RESPONSE)
        return
    prompt = [token for token, is_real in zip(ids[:start], real[:start], strict=True) if is_real]
    offset = 0 if shift else start  # where the mask's own count begins
    group = next((raw[name] for name in ("uid", "prompt_id") if raw.get(name) is not None), None)
    meta = meta_of(line, raw, (*BATCH_KEYS, *NON_TENSOR_KEYS, *VERSIONS, "step", "row", "prompts"))
    version, span = _versions(line, raw)
    record: dict[str, Any] = {
        "step": raw.get("step"),
        "sample_id": str(raw.get("row", line - 1)),
        "group_id": prompt_hash(prompt) if group is None else str(group),
        "prompt_token_ids": prompt,
        "response_token_ids": [ids[place] for place in kept],
        "response_mask": [mask[place - offset] for place in kept],
        "policy_version": version,
        "meta": {**meta, **span} or None,
    }
    record["turn"] = turns(record["response_mask"])  # the mask is 0 on a tool's tokens
    for source, target in (_LISTS | _TOPS).items():
        if raw.get(source) is not None:
            values = whole(line, raw, source, len(mask) - shift)
            record[target] = [values[place - offset - shift] for place in kept]
    if raw.get("rm_scores") is not None:
        record["reward"] = sum(whole(line, raw, "rm_scores"))
    yield {name: value for name, value in record.items() if value is not None}


def _versions(line: int, raw: dict[str, Any]) -> tuple[int | None, dict[str, list[int]]]:
    """The step of the weights that sampled the response; of several, for meta, the first's and the last's."""
    fields = Fields(line, raw)
    low, high = (fields.integer(name) for name in VERSIONS)
    fields.check()
    if low is None or high is None:
        return None, {}
    return (low + 1, {}) if low == high else (None, {"policy_versions": [low + 1, high + 1]})


DATAPROTO = Adapter("dataproto", _recognises, _convert)
