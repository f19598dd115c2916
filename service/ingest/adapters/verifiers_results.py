"""Legacy verifiers `results.jsonl`: one rollout a line, with a `trajectory` where it was asked for (state_columns).

A step of the trajectory holds the tokens of one call: the whole prompt, and the completion. Where a prompt begins with
all that was before, the steps are one response, and what came between is masked; where it does not (a context that was
compacted), another response begins. Evaluations name no step: it travels beside the file. The server's `response` of a
step holds the tokens once more, from before the step's were cut to a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import kept
from service.ingest.adapters.fields import Fields

__all__ = ["VERIFIERS_RESULTS"]

_READ = ("example_id", "trajectory", "reward", "advantage")
_OF_STEP = ("tokens", "advantage", "trajectory_id")
_OF_TOKENS = ("prompt_ids", "completion_ids", "completion_mask", "completion_logprobs")
_NO_TOKENS = LeftOut("its trajectory holds no token ids")


@dataclass
class _Response:
    """One response, as it grows from step to step."""

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    advantages: list[float | None] = field(default_factory=list)
    finish: str | None = None  # why the model stopped, in its last step

    def goes_on_in(self, prompt: list[int]) -> bool:
        return prompt[: len(self.prompt) + len(self.ids)] == self.prompt + self.ids

    def grow(self, ids: list[int], turn: int, mask: list[bool], logprobs: list[Any], advantage: float | None) -> None:
        self.ids += ids
        self.mask += mask
        self.turns += [turn] * len(ids)
        self.logprobs += [value if counts else None for value, counts in zip(logprobs, mask, strict=True)]
        self.advantages += [advantage if counts else None for counts in mask]


def _recognises(names: frozenset[str]) -> bool:
    return {"example_id", "completion", "trajectory"} <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    fields = Fields(line, raw)
    fields.need("example_id", "trajectory")
    steps = fields.each("trajectory")
    whole = fields.number("advantage")
    responses = _responses(steps, whole)
    name = next((found for step in steps if (found := step.name("trajectory_id"))), str(line))
    group, reward = fields.name("example_id"), fields.number("reward")
    meta = fields.rest(_READ)
    trajectory = [_about(step) for step in steps]
    fields.check()
    if not responses:
        yield _NO_TOKENS
    for index, response in enumerate(responses):
        yield {
            "sample_id": name if len(responses) == 1 else f"{name}/{index}",
            "group_id": group,
            "prompt_token_ids": response.prompt,
            "response_token_ids": response.ids,
            "response_mask": response.mask,
            "turn": response.turns,
            "rollout_logprobs": kept(response.logprobs),
            "advantage": kept(response.advantages),
            "reward": reward,
            "finish_reason": response.finish,
            # what is said of the steps stands with the first response of theirs
            "meta": meta if index else {**meta, "trajectory": trajectory},
        }


def _about(step: Fields) -> dict[str, Any]:
    """What a step says besides its tokens."""
    about = step.rest(_OF_STEP) | step.inside("tokens").rest(_OF_TOKENS)
    message = _message(step)
    if message is not None and "response" in about:
        about["response"]["message"] = message.rest(("tokens",))
    return about


def _message(step: Fields) -> Fields | None:
    """The server's message; None if the step has none, or has a response of another shape."""
    response = step.get("response")
    known = isinstance(response, dict) and isinstance(response.get("message"), dict)
    return step.inside("response").inside("message") if known else None


def _responses(steps: list[Fields], whole: float | None) -> list[_Response]:
    """The responses of a trajectory; `whole` is the rollout's advantage, for steps that have none of their own."""
    responses: list[_Response] = []
    for turn, step in enumerate(steps):
        tokens = step.inside("tokens")
        prompt, ids = tokens.ids("prompt_ids") or [], tokens.ids("completion_ids") or []
        if not ids:  # a call that gave nothing, or a prompt that was too long
            continue
        if not prompt:
            tokens.wrong("prompt_ids", "is missing or empty: without one token before it, the first has no log-prob")
            continue
        mask = tokens.flags("completion_mask", len(ids)) or [True] * len(ids)
        logprobs = _logprobs(tokens, mask)
        advantage = step.number("advantage")
        last = responses[-1] if responses else None
        if last is None or not last.goes_on_in(prompt):
            last = _Response(prompt)
            responses.append(last)
        between = prompt[len(last.prompt) + len(last.ids) :]
        last.grow(between, turn, [False] * len(between), [None] * len(between), None)
        last.grow(ids, turn, mask, logprobs, whole if advantage is None else advantage)
        message = _message(step)
        last.finish = None if message is None else message.text("finish_reason")
    return responses


def _logprobs(tokens: Fields, mask: list[bool]) -> list[float | None]:
    values = tokens.numbers("completion_logprobs", len(mask)) if tokens.get("completion_logprobs") else None
    if values is None:
        return [None] * len(mask)
    for index, (value, counts) in enumerate(zip(values, mask, strict=True)):
        if counts and value is not None and value > 0:
            tokens.wrong(f"completion_logprobs[{index}]", f"{value} is a positive log-probability")
            break
    return values


VERIFIERS_RESULTS = Adapter("verifiers-results", _recognises, _convert)
