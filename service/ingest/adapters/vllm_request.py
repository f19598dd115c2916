"""What a response of vLLM leaves to its request: the prompt it answers, and what was asked for."""

from __future__ import annotations

from typing import Any

from service.ingest.adapters.fields import Fields

__all__ = ["asked", "chosen_tops", "without_prompt"]


def asked(request: Fields, place: int, count: int) -> Fields:
    """The request of the answer at `place` of `count`, with its prompt's ids as `prompt_token_ids` if it names them.

    `prompt` of a completion may be token ids, or a list of prompts: each has as many answers, the first one's come
    first. In /inference/v1/generate the prompt is `token_ids`.
    """
    prompt, ids = request.get("prompt"), request.get("token_ids")
    if _holds(prompt, (str, list)) and count % len(prompt) == 0:
        prompt = prompt[place // (count // len(prompt))]
    if _holds(prompt, (int,)):
        prompt, ids = None, prompt
    ids = request.get("prompt_token_ids") if ids is None else ids
    return Fields(request.line, {**request.raw, "prompt": prompt, "prompt_token_ids": ids}, "request.", request.errors)


def chosen_tops(request: Fields) -> bool:
    """Whether top log-probs are of tokens that the request chose (`logprob_token_ids`), not of the most likely ones."""
    parameters = request.get("sampling_params")
    places = [request.raw, parameters if isinstance(parameters, dict) else {}]
    return any(place.get("logprob_token_ids") for place in places)


def without_prompt(text: str, prompt: Any, names: list[str]) -> str | None:
    """The response's part of a text that begins with the prompt (`echo`); None if the prompt's text is not known.

    `names` are the engine's texts of the prompt's tokens.
    """
    for head in (prompt, "".join(names)):
        if isinstance(head, str) and head and text.startswith(head):
            return text[len(head) :]
    return None


def _holds(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, list) and bool(value) and all(type(element) in types for element in value)
