"""atropos `data_path_to_save_groups`: one group of responses a line, each field a list over them, lengths ragged.

`masks` holds −100 on tokens that are not trained and the token id on those that are; `inference_logprobs` holds 1.0
where masked: whatever the environment chose not to train, so that a gap is not always a turn, and `turn` stays null. A
list as long as the group holds a value for each response, any other field is of the group; what has no place in the
record goes to meta. The step is not in the file: it travels beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import NOTHING_COUNTS, rest, within
from service.ingest.adapters.fields import Fields

__all__ = ["ATROPOS"]

_NEEDED = ("tokens", "masks", "scores")
_READ = ("inference_logprobs", "advantages")
_MASKED = -100
_SENTINEL = 1.0


def _recognises(names: frozenset[str]) -> bool:
    return set(_NEEDED) <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    group = Fields(line, raw)
    group.need(*_NEEDED)
    group.check()
    size = len(group.elements("tokens") or [])
    group.elements("masks", size)
    scores = group.numbers("scores", size)
    # the writer leaves a list empty where no response had the field
    columns = {name: group.elements(name, size) for name in _READ if group.get(name)}
    group.inside("generation_params")
    meta = group.rest((*_NEEDED, *_READ))
    group.check()
    for index in range(size):
        names = {"tokens": raw["tokens"], "masks": raw["masks"], **columns}
        one = Fields(line, {f"{name}[{index}]": values[index] for name, values in names.items() if values})
        record = _record(one, index)
        if record is None:
            yield LeftOut(NOTHING_COUNTS)
            continue
        record["sample_id"], record["group_id"] = f"{line}/{index}", str(line)
        record["reward"] = scores and scores[index]
        record["meta"] = rest({name: _of(value, index, size) for name, value in meta.items()}, ())
        yield record


def _of(value: Any, index: int, size: int) -> Any:
    """What a field of the group says of one of its responses."""
    return value[index] if isinstance(value, list) and len(value) == size else value


def _record(fields: Fields, index: int) -> dict[str, Any] | None:
    """What is of one response alone; None where no token counts. Raises `BadRecord`."""
    tokens, masks, advantages = f"tokens[{index}]", f"masks[{index}]", f"advantages[{index}]"
    fields.need(tokens, masks)
    ids = fields.ids(tokens) or []
    fields.check()
    marks = fields.elements(masks, len(ids)) or []
    fields.check()
    odd = next((place for place, mark in enumerate(marks) if mark not in (_MASKED, ids[place])), None)
    if odd is not None:
        fields.wrong(f"{masks}[{odd}]", "is neither −100 nor the token's id: shifted?")
        fields.check()
    if all(mark == _MASKED for mark in marks):
        return None
    span = fields.response(masks, [mark != _MASKED for mark in marks])
    fields.check()
    assert span is not None
    per_token = isinstance(fields.get(advantages), list)
    record = {
        "prompt_token_ids": ids[: span.start],
        "response_token_ids": ids[span.start :],
        "response_mask": span.mask,
        "rollout_logprobs": fields.logprobs(f"inference_logprobs[{index}]", len(ids), span, _SENTINEL),
        "advantage": within(fields.numbers(advantages, len(ids)), span) if per_token else fields.number(advantages),
    }
    fields.check()
    return record


ATROPOS = Adapter("atropos", _recognises, _convert)
