"""NeMo-RL `train_data_step{N}.jsonl`: one response a line, a slice of the batch that keeps the batch's axis.

Every list is wrapped in a list of one, rows are padded on the right to the longest of the batch, and
`generation_logprobs` is 0.0 wherever the mask is 0. The step stands in the file's name alone, and counts from 1: N is
the step whose update makes the checkpoint `step_N`. Which responses share a prompt is told by the prompt itself.
`policy_version` stays null: asynchronous GRPO writes the same file, of responses that older policies sampled, and does
not say which. The mask is 0 on tokens of other roles alone, so that each gap in it begins another `turn`.
With `force_on_policy_ratio` the trainer computes no `prev_logprobs` and writes zeros: where the whole sequence, prompt
included, has nothing else, they are not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import NOTHING_COUNTS, Span, prompt_hash, turns, within
from service.ingest.adapters.fields import Fields

__all__ = ["NEMO_RL"]

_NEEDED = ("token_ids", "token_loss_mask", "input_lengths")
_READ = (
    *("idx", "sample_loss_mask", "rewards", "filtered_rewards", "advantages", "generation_logprobs", "prev_logprobs"),
)


def _recognises(names: frozenset[str]) -> bool:
    return set(_NEEDED) <= names or names == {"content", "rewards", "idx"}


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, {name: _unwrapped(name, value) for name, value in raw.items()})
    if raw.keys() == {"content", "rewards", "idx"}:
        fields.wrong("content", "is all there is: val_data files hold no token ids; upload the train_data_step files")
    else:
        fields.need(*_NEEDED, "idx")
    ids = fields.ids("token_ids") or []
    fields.check()
    mask = fields.flags("token_loss_mask", len(ids))
    stop = fields.integer("input_lengths") or 0
    if not 0 < stop <= len(ids):
        fields.wrong("input_lengths", f"is {stop}, but token_ids has {len(ids)} entries")
    elif mask is not None and any(mask[stop:]):
        fields.wrong("token_loss_mask", f"marks a token beyond the first {stop} (input_lengths), which is padding")
    if mask is not None and True not in mask:
        fields.check()
        yield LeftOut(NOTHING_COUNTS)
        return
    span = None if mask is None else fields.response("token_loss_mask", mask, stop)
    fields.check()
    assert span is not None
    yield _record(fields, ids, span)


def _record(fields: Fields, ids: list[int], span: Span) -> dict[str, Any]:
    length, prompt = len(ids), ids[: span.start]
    turn = turns(span.mask)
    trains = fields.number("sample_loss_mask")
    if trains == 0:  # a response that the trainer left out of its loss
        span = Span(span.start, span.stop, [False] * len(span.mask))
    # with dynamic sampling `rewards` is of the batch before it was filtered: not of this response
    reward = "rewards" if fields.get("filtered_rewards") is None else "filtered_rewards"
    advantage = fields.get("advantages")
    old = fields.logprobs("prev_logprobs", length, span)
    record = {
        "sample_id": fields.name("idx"),
        "group_id": prompt_hash(prompt),
        "prompt_token_ids": prompt,
        "response_token_ids": ids[span.start : span.stop],
        "response_mask": span.mask,
        "turn": turn,
        "rollout_logprobs": fields.logprobs("generation_logprobs", length, span),
        "old_logprobs": old if old and any(fields.get("prev_logprobs")) else None,
        "reward": fields.number(reward),
        "advantage": (
            within(fields.numbers("advantages", length), span)
            if isinstance(advantage, list)
            else fields.number("advantages")
        ),
        "meta": fields.rest((*_NEEDED, *_READ)),
    }
    fields.check()
    return record


_ROWS = ("token_ids", "token_loss_mask", "advantages", "generation_logprobs", "prev_logprobs", "content")


def _unwrapped(name: str, value: Any) -> Any:
    """The one row of a batch of one. A list that is not wrapped stays as it is."""
    if not isinstance(value, list) or len(value) != 1:
        return value
    if name in _ROWS and not isinstance(value[0], (list, str if name == "content" else list)):
        return value
    return value[0]


NEMO_RL = Adapter("nemo-rl", _recognises, _convert)
