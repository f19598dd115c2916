"""vLLM's responses: JSONL, one a line, of its server (completions, chat, generate) or of `LLM.generate`.

The server (vllm/entrypoints) writes `choices`; `run_batch` puts the response into `response.body`; offline outputs have
`outputs` beside `prompt_token_ids`. Token ids come with `return_token_ids` (`token_ids`, `prompt_token_ids`) or as
strings "token_id:123" with `return_tokens_as_token_ids`. Without them the text is tokenised again, and log-probs are
kept only where the tokens are the same pieces. −9999.0 is how vLLM writes −∞: null here. `weight_versions` (generate,
offline) say under which weights each token was sampled. Whoever logs a response may add `step`, `reward`, `advantage`,
`group_id`, the prompt as `prompt` or `messages`, or the whole `request` beside the `response`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import kept
from service.ingest.adapters.engine import WITHOUT_TOKENS, engine_record, policy_versions, prompt_of, top_fields
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE
from service.ingest.adapters.vllm_logprobs import Tokens, chat_tokens, completion_tokens, offline_tokens, unflatten
from service.ingest.adapters.vllm_request import asked, chosen_tops, without_prompt

__all__ = ["VLLM"]

_HOW = "ask for return_token_ids, or add the prompt's text as `prompt` or `messages`"
_READ = (
    *("text", "message", "logprobs", "token_ids", "prompt_token_ids", "finish_reason", "index"),
    *("step", "reward", "advantage", "group_id", "prompt", "messages"),  # of whoever logs it
)


def _recognises(names: frozenset[str]) -> bool:
    return (
        {"choices", "model"} <= names
        or {"choices", "object"} <= names
        or {"prompt_token_ids", "outputs"} <= names
        or {"custom_id", "response"} <= names
        or {"request", "response"} <= names
    )


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    top = Fields(line, raw)
    body = _body(top)
    request = top.inside("request")
    kind = "choices" if body.get("choices") is not None else "outputs"
    answers = body.each(kind)
    unflatten(body, "prompt_logprobs")
    if not answers and not body.errors:
        if top.get("error") is not None or body.get("error") is not None or body is not top:
            yield LeftOut("the engine answered with an error or with no choice")
            return
        body.wrong("choices", "is required and missing")
    top.check()
    name = top.name("sample_id") or top.name("custom_id") or body.name("id") or body.name("request_id") or str(line)
    for place, answer in enumerate(answers):
        sample = name if len(answers) == 1 else f"{name}/{place}"
        unflatten(answer, "logprobs")
        unflatten(answer, "prompt_logprobs")
        record = _record(sample, answer, body, (asked(request, place, len(answers)), body, top, answer))
        top.check()
        yield LeftOut(WITHOUT_TOKENS) if record.get("response_token_ids") == [] else record


def _body(top: Fields) -> Fields:
    """The response itself: the record, or what `run_batch` or a logger put around it."""
    if top.get("response") is None:
        return top
    response = top.inside("response")
    return response.inside("body") if response.get("body") is not None else response


def _record(sample: str, answer: Fields, body: Fields, places: tuple[Fields, ...]) -> dict[str, Any]:
    """One answer as a record. What is wrong stays in the errors of `answer`."""
    request = places[0]
    prompt_ids = _prompt_ids(answer, body, request)
    tokens = _tokens(answer, _prompt_length(answer, prompt_ids))
    prompt_ids = tokens.prompt_ids if prompt_ids is None else prompt_ids
    prompt, rendered = prompt_of(*places), body.text("prompt_text")
    prompt = rendered if prompt is None else prompt
    if prompt_ids is None and prompt is None:
        answer.wrong("prompt_token_ids", f"is required and missing; {_HOW}")
    if prompt_ids == []:
        answer.wrong("prompt_token_ids", "is empty")
    _check_prompt(answer if answer.get("prompt_logprobs") is not None else body, prompt_ids)
    response = _text(answer)
    if response is not None and answer.get("token_ids") is None and (tokens.prompt or request.get("echo") is True):
        response = without_prompt(response, prompt, tokens.prompt)
    record = engine_record(sample, prompt_ids, prompt, response, places)
    record["prompt_text"] = record["prompt_text"] if rendered is None else rendered
    if tokens.ids is not None:
        record["response_token_ids"] = tokens.ids
        record.update({} if chosen_tops(request) else top_fields(tokens.tops))
    elif response is None:
        answer.wrong("token_ids", "is required and missing, and there is no text either")
    else:
        record.setdefault(TOKENISE, {})["response"] = response
        if tokens.names:
            record[TOKENISE]["pieces"] = tokens.names
    record["rollout_logprobs"] = kept(tokens.logprobs) if tokens.logprobs else None
    record["finish_reason"] = answer.text("finish_reason")
    record["policy_version"] = policy_versions(answer, tokens.ids)
    return {**record, "meta": _meta(answer, body, tokens, record["policy_version"])}


def _prompt_ids(*places: Fields) -> list[int] | None:
    found = (fields.ids("prompt_token_ids") for fields in places)
    return next((ids for ids in found if ids is not None), None)


def _prompt_length(answer: Fields, prompt_ids: list[int] | None) -> int:
    """In tokens; 0 if not known."""
    return len(answer.elements("prompt_logprobs") or [] if prompt_ids is None else prompt_ids)


def _meta(answer: Fields, body: Fields, tokens: Tokens, versions: list[int] | None) -> dict[str, Any]:
    beside = answer.rest(_READ if versions is None else (*_READ, "weight_versions"))
    lost = {"unmatched_top_logprobs": True} if tokens.lost_tops else {}
    return {"model": body.text("model"), **beside, **lost}


def _text(answer: Fields) -> str | None:
    if answer.get("message") is None:
        return answer.text("text")
    message = answer.inside("message")
    return None if message.get("tool_calls") else message.text("content")


def _tokens(answer: Fields, prompt_length: int) -> Tokens:
    """Ids and log-probs of the response, each looked up by the token that was sampled."""
    ids = answer.ids("token_ids")
    if isinstance(answer.get("logprobs"), list):
        return offline_tokens(answer, ids)
    logprobs = answer.inside("logprobs")
    if logprobs.get("content") is not None:
        return chat_tokens(logprobs, ids)
    return completion_tokens(logprobs, ids, prompt_length)


def _check_prompt(fields: Fields, ids: list[int] | None) -> None:
    """`prompt_logprobs` has an entry for each prompt token, the first null: another token there means a shift."""
    if ids is None:
        return
    for index, entries in enumerate(fields.elements("prompt_logprobs", len(ids)) or []):
        if isinstance(entries, dict) and str(ids[index]) not in entries:
            fields.wrong(f"prompt_logprobs[{index}]", f"has no entry for the prompt's token {ids[index]} (shifted?)")
            return


VLLM = Adapter("vllm", _recognises, _convert)
