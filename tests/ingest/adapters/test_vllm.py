"""vLLM's responses, as vllm/entrypoints/openai/{completion,chat_completion}/serving.py build them.

`top_logprobs` of a completion holds the sampled token first, then the top N; of a chat response the first N of those.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import CHAT, words
from tests.ingest.files import Importing, ndjson


def completion(choice: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Two tokens, asked for with return_token_ids, return_tokens_as_token_ids and logprobs=2."""
    written = {
        "index": 0,
        "text": "4",
        "logprobs": {
            "text_offset": [0, 11],
            "token_logprobs": [-1.5, -0.2],
            "tokens": ["token_id:11", "token_id:2"],
            # 11 was sampled and is not among the top 2: three entries, the sampled one first
            "top_logprobs": [
                {"token_id:11": -1.5, "token_id:10": -0.4, "token_id:7": -1.2},
                {"token_id:2": -0.2, "token_id:6": -1.9},
            ],
        },
        "finish_reason": "stop",
        "stop_reason": None,
        "token_ids": [11, 2],
        "routed_experts": [[[0, 1]], [[2, 3]]],
        "prompt_logprobs": [None, {"8": {"logprob": -3.0, "rank": 9, "decoded_token": "+"}}],
        "prompt_token_ids": [7, 8],
        **(choice or {}),
    }
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [written], "step": 3}
    return {name: value for name, value in {**body, **fields}.items() if value is not ...}


def chat(entries: list[Any] | None = None, choice: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A chat response to the same; `prompt_token_ids` stands at the top there."""
    content = [
        {"token": "token_id:11", "logprob": -1.5, "bytes": [], "top_logprobs": top((11, -1.5), (10, -0.4))},
        {"token": "token_id:2", "logprob": -0.2, "bytes": [], "top_logprobs": top((2, -0.2), (6, -1.9))},
    ]
    written = {
        "index": 0,
        "message": {"role": "assistant", "content": "four"},
        "logprobs": {"content": content if entries is None else entries},
        "finish_reason": "stop",
        "token_ids": [11, 2],
        **(choice or {}),
    }
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [written], "step": 3}
    return {**body, "prompt_token_ids": [7, 8], "prompt_logprobs": None, **fields}


def top(*pairs: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"token": f"token_id:{token}", "logprob": value, "bytes": []} for token, value in pairs]


def logprobs(**fields: Any) -> dict[str, Any]:
    """A choice whose `logprobs` differ from those of `completion`."""
    return {"logprobs": {**completion()["choices"][0]["logprobs"], **fields}}


def test_completion(importing: Importing) -> None:
    manifest = importing([completion(reward=1, advantage=0.5)])
    assert manifest["format"] == "vllm"
    (row,) = importing.rows()
    assert (row["step"], row["sample_id"], row["reward"], row["advantage"]) == (3, "cmpl-1", 1, [0.5, 0.5])
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([7, 8], [11, 2])
    assert row["rollout_logprobs"] == [-1.5, -0.2]
    assert row["rollout_top_token_ids"] == [[10, 7], [2, 6]]  # the top 2, best first, not the sampled one
    assert row["rollout_top_logprobs"] == [[-0.4, -1.2], [-0.2, -1.9]]
    assert (row["finish_reason"], row["response_text"]) == ("stop", "4")
    assert row["logprobs_approximate"] is None
    assert json.loads(row["meta"]) == {"model": "m"}


def test_chat(importing: Importing) -> None:
    manifest = importing([chat()])
    assert manifest["format"] == "vllm"
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"]) == ([7, 8], [11, 2])
    assert row["rollout_logprobs"] == [-1.5, -0.2]
    # 11 was pushed in before the top 2, so the second best is not in the list: the first alone is sure
    assert row["rollout_top_token_ids"] == [[10], [2, 6]]
    assert row["response_text"] == "four"


@pytest.mark.parametrize("response", [completion({"token_ids": None}), chat(choice={"token_ids": None})])
def test_ids_out_of_the_names(importing: Importing, response: dict[str, Any]) -> None:
    """return_tokens_as_token_ids without return_token_ids for the response."""
    importing([response])
    assert importing.rows()[0]["response_token_ids"] == [11, 2]
    assert importing.rows()[0]["logprobs_approximate"] is None


def test_floor_is_not_known(importing: Importing) -> None:
    """vLLM writes −∞ as −9999.0, and so a chat token whose log-prob it does not have."""
    entries = [{"token": "token_id:11", "logprob": -9999.0, "top_logprobs": top((10, -0.4), (7, -9999.0))}]
    importing([chat([*entries, chat()["choices"][0]["logprobs"]["content"][1]])])
    (row,) = importing.rows()
    assert row["rollout_logprobs"] == [None, -0.2]
    assert row["rollout_top_token_ids"] == [[10], [2, 6]]


def test_echo(importing: Importing) -> None:
    """With `echo` the lists begin with the prompt, whose first token has no log-prob; `token_ids` does not."""
    names = ["token_id:7", "token_id:8", "token_id:11", "token_id:2"]
    lists = logprobs(tokens=names, token_logprobs=[None, -3.0, -1.5, -0.2], top_logprobs=[None] * 4)
    importing([completion(lists)])
    (row,) = importing.rows()
    assert row["response_token_ids"] == [11, 2]
    assert row["rollout_logprobs"] == [-1.5, -0.2]
    assert row["rollout_top_token_ids"] is None


def test_lists_of_the_sampled_token_alone_are_no_top_1(importing: Importing) -> None:
    """logprobs=0 asks for the sampled token only."""
    importing([completion(logprobs(top_logprobs=[{"token_id:11": -1.5}, {"token_id:2": -0.2}]))])
    assert importing.rows()[0]["rollout_top_token_ids"] is None


def test_top_logprobs_by_text_say_not_whose_they_are(importing: Importing) -> None:
    names = {"tokens": ["four", ""], "top_logprobs": [{"four": -1.5, "4": -0.4}, {"": -0.2, "x": -1.9}]}
    importing([completion(logprobs(**names))])
    (row,) = importing.rows()
    assert row["rollout_logprobs"] == [-1.5, -0.2]
    assert row["rollout_top_token_ids"] is None
    assert json.loads(row["meta"])["unmatched_top_logprobs"] is True


def test_several_choices(importing: Importing) -> None:
    choices = [{**completion()["choices"][0], "index": index} for index in (0, 1)]
    importing([completion(choices=choices), completion(id="cmpl-2")])
    rows = importing.rows()
    assert [row["sample_id"] for row in rows] == ["cmpl-1/0", "cmpl-1/1", "cmpl-2"]
    assert len({row["group_id"] for row in rows}) == 1  # the same prompt


def offline(**fields: Any) -> dict[str, Any]:
    """RequestOutput and CompletionOutput of `LLM.generate`, as JSON: one dict of id → Logprob for each token."""
    entries = [
        {"10": {"logprob": -0.4, "rank": 1}, "11": {"logprob": -1.5, "rank": 3}, "7": {"logprob": -1.2, "rank": 2}},
        {"6": {"logprob": -1.9, "rank": 2}, "2": {"logprob": -0.2, "rank": 1}},
    ]
    output = {"index": 0, "text": "four", "token_ids": [11, 2], "logprobs": entries, "finish_reason": "stop", **fields}
    return {"request_id": "7", "prompt": "2+", "prompt_token_ids": [7, 8], "outputs": [output], "step": 3}


def test_offline_outputs_are_looked_up_by_the_sampled_id(importing: Importing) -> None:
    """NeMo-RL#3297, trl#3867: the first entry need not be the sampled token."""
    manifest = importing([offline()])
    assert manifest["format"] == "vllm"
    (row,) = importing.rows()
    assert row["rollout_logprobs"] == [-1.5, -0.2]
    assert row["rollout_top_token_ids"] == [[10, 7], [2, 6]]
    assert (row["sample_id"], row["prompt_text"]) == ("7", "2+")


def test_batch_files(importing: Importing) -> None:
    """`vllm run-batch` writes {id, custom_id, response: {status_code, body}, error}."""
    body = completion(step=...)
    good = {"id": "vllm-1", "custom_id": "q1", "response": {"status_code": 200, "body": body}, "error": None}
    bad = {"id": "vllm-2", "custom_id": "q2", "response": {"status_code": 400, "body": None}, "error": {"message": "x"}}
    manifest = importing([good, bad], step=6)
    assert (manifest["format"], manifest["rollouts"]) == ("vllm", 1)
    assert importing.rows()[0]["sample_id"] == "q1"
    assert [one["examples"][0]["line"] for one in manifest["warnings"] if one["code"] == "left_out"] == [2]


def test_without_ids_the_pieces_must_be_ours(importing: Importing, tmp_path: Path) -> None:
    """Text is tokenised again; log-probs stay where the engine's tokens are the same pieces of it."""
    request = {"messages": [{"role": "user", "content": "2+2?"}]}
    tokenizer = words(tmp_path / "words", chat_template=CHAT)

    def answer(pieces: list[str]) -> dict[str, Any]:
        content = [{"token": piece, "logprob": -1.0 - place} for place, piece in enumerate(pieces)]
        text = {"token_ids": None, "message": {"role": "assistant", "content": "".join(pieces)}}
        response = chat(content, text, id="".join(pieces) + str(len(pieces)), prompt_token_ids=None)
        return {"request": request, "response": response, "step": 3}

    importing([answer(["four", " is", " it"]), answer(["fo", "ur", " is"])], tokenizer=tokenizer)
    ours, others = sorted(importing.rows(), key=lambda row: row["response_tokens"], reverse=True)
    assert ours["prompt_token_ids"] == others["prompt_token_ids"] == [4, 6, 7, 8, 7, 9, 6, 5, 6]
    assert (ours["response_token_ids"], others["response_token_ids"]) == ([11, 12, 13], [11, 12])
    assert (ours["rollout_logprobs"], others["rollout_logprobs"]) == ([-1.0, -2.0, -3.0], None)
    assert ours["logprobs_approximate"] is others["logprobs_approximate"] is True
    assert json.loads(others["meta"])["unmatched_logprobs"] is True


SHIFTED = [None, {"7": {"logprob": -3.0}}]  # the first prompt token's entry in the second one's place


@pytest.mark.parametrize(
    ("response", "field", "message"),
    [
        (completion({"prompt_token_ids": None}), "prompt_token_ids", "is required and missing; ask for return_token_"),
        (completion(logprobs(tokens=["token_id:2", "token_id:11"])), "logprobs.tokens", "is of other tokens than"),
        (completion({"token_ids": [11]}), "logprobs.tokens", "has 2 entries, but token_ids has 1 (one more: shifted?)"),
        (completion(logprobs(token_logprobs=[-1.0])), "logprobs.token_logprobs", "has 1 entry, expected 2 (one short"),
        (completion(logprobs(token_logprobs=[-1.0, "x"])), "logprobs.token_logprobs[1]", "'x' is not a number"),
        (completion(logprobs(top_logprobs=[[], {}])), "logprobs.top_logprobs[0]", "expected an object, found a list"),
        (completion({"prompt_logprobs": SHIFTED}), "prompt_logprobs[1]", "has no entry for the prompt's"),
        (completion({"logprobs": 3}), "logprobs", "expected an object, found a number"),
        (completion({"token_ids": None, "text": None, "logprobs": None}), "token_ids", "is required and missing, and"),
        (completion(choices=[]), "choices", "is required and missing"),
    ],
)
def test_bad_completions(importing: Importing, response: dict[str, Any], field: str, message: str) -> None:
    ((number, name, words_), *_) = importing.errors(ndjson([response]))
    assert (number, name) == (1, field if field == "choices" else f"choices[0].{field}")
    assert words_.startswith(message)


def test_bad_offline_outputs(importing: Importing) -> None:
    shifted = offline()["outputs"][0]["logprobs"][::-1]
    ((_, field, message),) = importing.errors([offline(logprobs=shifted)])
    assert (field, message) == ("outputs[0].logprobs[0]", "has no entry for the sampled token 11 (shifted?)")


def test_a_positive_logprob(importing: Importing) -> None:
    ((_, field, message),) = importing.errors([completion(logprobs(token_logprobs=[0.5, -0.2]))])
    assert (field, message.split(";")[0]) == (
        "choices[0].logprobs.token_logprobs[0]",
        "0.5 is a positive log-probability",
    )
