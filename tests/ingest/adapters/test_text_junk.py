"""As `test_junk`, for the formats that need a tokenizer and for the engines' responses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from service.errors import BadRecord
from service.ingest.adapters import ADAPTERS, LeftOut
from service.ingest.examine import examine
from service.ingest.tokens import tokenising
from tests.ingest.adapters import test_areal, test_roll, test_sglang, test_verl, test_vllm
from tests.ingest.adapters.test_junk import junked
from tests.ingest.adapters.words import CHAT, words


def chat_row() -> dict[str, Any]:
    prompt, answer = [{"role": "user", "content": "2"}], [{"role": "assistant", "content": "4"}]
    return {"step": 1, "prompt": prompt, "completion": answer, "right": 1.0, "advantage": 0.5}


def asked() -> dict[str, Any]:
    """A chat response without ids, beside its request."""
    response = test_vllm.chat(choice={"token_ids": None}, prompt_token_ids=None)
    for entry in response["choices"][0]["logprobs"]["content"]:
        entry["token"] = "four"
    return {"request": {"messages": [{"role": "user", "content": "2"}]}, "response": response, "step": 1}


BESIDE = ("step", "reward", "advantage")  # fields of the record itself, which stand in the file by these names
RECORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "verl": ("verl", test_verl.line(uid="a_0_0")),
    "trl": ("trl", chat_row()),
    "areal": ("areal", test_areal.line()),
    "roll": ("roll", test_roll.columns(messages=[test_roll.MESSAGES] * 2)),
    "roll-board": ("roll-board", test_roll.board()),
    "sglang": ("sglang", test_sglang.line(advantage=0.5, group_id="g")),
    "vllm completion": ("vllm", test_vllm.completion(reward=1.0)),
    "vllm chat": ("vllm", test_vllm.chat()),
    "vllm offline": ("vllm", test_vllm.offline()),
    "vllm text": ("vllm", asked()),
}


@pytest.mark.parametrize("name", RECORDS)
def test_junk(name: str, tmp_path: Path) -> None:
    format_, pristine = RECORDS[name]
    adapters = tokenising(ADAPTERS, words(tmp_path / "words", chat_template=CHAT))
    (convert,) = [adapter.convert for adapter in adapters if adapter.name == format_]
    assert convert is not None
    outcomes = set()
    for change in junked(pristine):
        raw = copy.deepcopy(pristine)
        change(raw)
        refusal, records = None, []
        try:
            records = [record for record in convert(7, raw) if not isinstance(record, LeftOut)]
        except BadRecord as error:
            refusal = error
        if refusal is not None:
            outcomes.add("refused")
            assert refusal.errors
            assert all(error.line == 7 for error in refusal.errors)
            continue
        outcomes.add("taken")
        for record in records:
            errors = [
                error for error in examine(7, record, None).errors if (error.field or "").split("[")[0] not in BESIDE
            ]
            assert errors == [], (raw, errors)
    assert outcomes == {"refused", "taken"}
