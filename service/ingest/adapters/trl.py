"""TRL's `log_completions`: a Parquet file for each logging step, one row a response, text only.

Written by `GRPOTrainer.log` (trl/trainer/grpo_trainer.py): `step`, `prompt` and `completion` (text, or chat messages),
a column for each reward function, columns of the user's own (`log_extra`), and `advantage`, one number a response.

Reward functions write floats, NaN where they did not apply. Every float column counts as one, and `reward` is their
sum, unweighted: neither `reward_weights` nor which of them are `log_extra`'s is in the file. meta keeps each under
`rewards`, and where there are several their names under `summed_rewards`, of which the import's notes tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE, conversation, reply, text_group

__all__ = ["TRL"]

_MAPPED = ("step", "prompt", "completion", "advantage")


def _recognises(names: frozenset[str]) -> bool:
    return set(_MAPPED) <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fields = Fields(line, raw)
    fields.need("prompt", "completion", "step")
    prompt, response = conversation(fields, "prompt"), reply(fields, "completion")
    step, advantage = fields.step("step"), fields.number("advantage")
    rewards = {name: fields.number(name) for name in raw if name not in _MAPPED and isinstance(raw[name], float)}
    meta = fields.rest((*_MAPPED, *rewards))
    fields.check()
    assert prompt is not None
    names = sorted(rewards) if len(rewards) > 1 else None
    given = {name: reward for name, reward in rewards.items() if reward is not None}
    yield {
        "step": step,
        "sample_id": str(line),
        "group_id": text_group(prompt),
        "prompt_text": prompt if isinstance(prompt, str) else None,
        "response_text": response,
        "reward": sum(given.values()) if given else None,
        "advantage": advantage,
        "meta": {**meta, **_messages(prompt), "rewards": given, "summed_rewards": names},
        TOKENISE: {"prompt": prompt, "response": response},
    }


def _messages(prompt: str | list[Any]) -> dict[str, Any]:
    return {} if isinstance(prompt, str) else {"prompt": prompt}


TRL = Adapter("trl", _recognises, _convert)
