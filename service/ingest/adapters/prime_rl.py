"""prime-rl `token_exports/step_S/rank_R.jsonl`, schema 1: one sequence a line, every list over the whole sequence.

The exporter runs in the forward before the optimizer step: `trainer_logprobs` is the trainer's own π of the step, and
`is_masked` its DPPO decision with that π. Lists hold figures on prompt tokens too (`inference_logprobs` is 0.0 there):
only what `loss_mask` marks is read. The file names neither the group nor the policy that sampled, and in an
asynchronous run that is an older one than the step's, by a number that varies: `policy_version` stays null. So does
`turn`: a gap in `loss_mask` may be a tool's output, or tokens that another part of the loss trains. Rewards are in some
versions only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import NOTHING_COUNTS, Span, prompt_hash, within
from service.ingest.adapters.fields import Fields

__all__ = ["PRIME_RL"]

_NEEDED = ("schema_version", "step", "rank", "export_sequence_idx", "token_ids", "loss_mask", "inference_logprobs")
_READ = ("export_step", "trainer_logprobs", "advantages", "rewards", "is_masked")  # into the record
_INTEGERS = ("micro_step", "micro_sequence_idx")  # these three into meta, what is over tokens cut to the response
_NUMBERS = ("entropy", "rl_weights", "ce_weights", "ref_kl_weights")
_MARKS = ("is_masked_high", "is_masked_low")


def _recognises(names: frozenset[str]) -> bool:
    return set(_NEEDED) <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, raw)
    fields.need(*_NEEDED)
    if raw.get("schema_version") not in (None, 1):
        fields.wrong("schema_version", "is not 1, the only schema of token exports that is known")
    ids = fields.ids("token_ids") or []
    fields.check()
    mask = fields.flags("loss_mask", len(ids))
    if mask is not None and True not in mask:
        fields.check()
        yield LeftOut(NOTHING_COUNTS)
        return
    span = None if mask is None else fields.response("loss_mask", mask)
    fields.check()
    assert span is not None
    yield _record(fields, ids, span)


def _record(fields: Fields, ids: list[int], span: Span) -> dict[str, Any]:
    length, prompt = len(ids), ids[: span.start]
    masked = within(fields.marks("is_masked", length), _within_rl(fields, span, length))
    # a run of several (versions before multi-tenancy was removed) counts its own steps
    step = fields.step("step") if fields.get("export_step") is None else fields.step("export_step")
    record: dict[str, Any] = {
        "step": step,
        "sample_id": f"r{fields.integer('rank')}/{fields.integer('export_sequence_idx')}",
        "group_id": prompt_hash(prompt),
        "prompt_token_ids": prompt,
        "response_token_ids": ids[span.start :],
        "response_mask": span.mask,
        "rollout_logprobs": fields.logprobs("inference_logprobs", length, _sampled(fields, span, length)),
        "new_logprobs": fields.logprobs("trainer_logprobs", length, span),
        "advantage": within(fields.numbers("advantages", length), span),
        "trainer_keep": masked and [None if value is None else not value for value in masked],
        "meta": _meta(fields, span, length),
    }
    rewards = set(within(fields.numbers("rewards", length), span) or []) - {None}
    if len(rewards) == 1:  # the response's reward, repeated on its tokens
        record["reward"] = rewards.pop()
    fields.check()
    return record


def _sampled(fields: Fields, span: Span, length: int) -> Span:
    """The span without tokens of the cross-entropy part of the loss: no policy of this run sampled those."""
    return _without(span, fields.numbers("ce_weights", length), bool)


def _within_rl(fields: Fields, span: Span, length: int) -> Span:
    """The span without tokens that are no part of the RL loss: `is_masked` is filled there too, and masks nothing."""
    return _without(span, fields.numbers("rl_weights", length), lambda weight: weight == 0)


def _without(span: Span, weights: list[float | None] | None, leaves_out: Callable[[float | None], bool]) -> Span:
    if weights is None:
        return span
    cut = weights[span.start : span.stop]
    mask = [counts and not leaves_out(weight) for counts, weight in zip(span.mask, cut, strict=True)]
    return Span(span.start, span.stop, mask)


def _meta(fields: Fields, span: Span, length: int) -> dict[str, Any]:
    meta: dict[str, Any] = {"env_name": fields.text("env_name"), "run_id": fields.text("run_id")}
    meta |= {name: fields.integer(name) for name in _INTEGERS}
    meta |= {name: within(fields.numbers(name, length), span) for name in _NUMBERS}
    meta |= {name: within(fields.marks(name, length), span) for name in _MARKS}
    meta |= fields.rest((*_NEEDED, *_READ, *meta))
    return {name: value for name, value in meta.items() if value is not None}


PRIME_RL = Adapter("prime-rl", _recognises, _convert)
