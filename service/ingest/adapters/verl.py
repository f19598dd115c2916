"""verl's `trainer.rollout_data_dir` (and `validation_data_dir`): JSONL, one response a line, text only.

Written by `_write_generations` (verl/trainer/ppo/ray_trainer.py) and, with `uid`, by the trainer of
verl/trainer/ppo/v1/trainer_base.py: `input` and `output` (special tokens stripped), `gts`, `score`, `step`, and every
key of the reward function's extra info. No token ids, log-probs, advantages or mask. Responses that the latter makes up
to fill its batch, of no text and reward 0, have a uid of their own, `pad` and a UUID's digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE, text_group

__all__ = ["VERL"]

_MAPPED = ("input", "output", "score", "step", "uid")
_PADDING = re.compile(r"pad[0-9a-f]{32}_\d+_0")
_UID = re.compile(r"(.+)_\d+_\d+", re.DOTALL)  # {prompt}_{rollout}_{output}


def _recognises(names: frozenset[str]) -> bool:
    return {"input", "output", "score", "step"} <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, raw)
    fields.need("input", "output", "step")
    prompt, response, uid = fields.text("input"), fields.text("output"), fields.name("uid")
    step, score = fields.step("step"), fields.number("score")
    meta = fields.rest(_MAPPED)
    fields.check()
    if uid is not None and _PADDING.fullmatch(uid):
        yield LeftOut("the trainer made them up to fill its batch")
        return
    assert prompt is not None
    sample, group = _names(line, uid)
    yield {
        "step": step,
        "sample_id": sample,
        "group_id": group or text_group(prompt),
        "prompt_text": prompt,
        "response_text": response,
        "reward": score,
        "meta": meta,
        TOKENISE: {"prompt": prompt, "response": response},
    }


def _names(line: int, uid: str | None) -> tuple[str, str | None]:
    """Sample and group. A uid without a rollout's number is the prompt's, which its responses share."""
    if uid is None:
        return str(line), None
    match = _UID.fullmatch(uid)
    return (uid, match[1]) if match else (f"{uid}/{line}", uid)


VERL = Adapter("verl", _recognises, _convert)
