"""The logged text beside the run's tokenizer: a hand-made one of a few words, whose ids can be read off `WORDS`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.ingest.findings import text as module
from tests.ingest.adapters.words import words
from tests.ingest.files import Importing, record
from tests.ingest.findings.cases import findings, note, warning

FOUR = [10, 12, 13, 2]  # "4", " is", " it", <eos>


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return words(tmp_path / "tokenizer")


def logged(*texts: str | None, ids: list[int] = FOUR, **fields: Any) -> list[dict[str, Any]]:
    return [
        record(str(place), response_token_ids=ids, response_mask=[1] * len(ids), response_text=text, **fields)
        for place, text in enumerate(texts)
    ]


@pytest.mark.parametrize("text", ["4 is it", "4 is it<eos>", " 4 is\nit ", "4isit", None])
def test_the_text_of_the_ids(importing: Importing, tokenizer: str, text: str | None) -> None:
    """With special tokens or without, however white space was cleaned up."""
    assert findings(importing, logged(text, text), tokenizer=tokenizer) == {}


def test_another_text(importing: Importing, tokenizer: str) -> None:
    found = warning(importing, logged("four", "4 is it", "user"), "text_differs", tokenizer=tokenizer)
    assert found["count"] == 2
    assert "to another text than response_text in 2 of the first 3 responses (special" in found["message"]
    assert found["examples"] == [
        {"line": line, "field": "response_text", "step": 0, "sample_id": str(line - 1)} for line in (1, 3)
    ]


def test_texts_that_differ_now_and_then_are_not_of_another_tokenizer(importing: Importing, tokenizer: str) -> None:
    assert note(importing, logged("four", "4 is it"), "text_differs", tokenizer=tokenizer)["count"] == 1


def test_parts_that_were_cut_off(importing: Importing, tokenizer: str) -> None:
    """A stop string stays out of the text, thoughts are logged apart; eight characters are no chance."""
    ids = [5, 4, 5, 10]  # assistant user assistant 4
    assert findings(importing, logged("assistantuser", "assistant4", ids=ids), tokenizer=tokenizer) == {}
    assert warning(importing, logged("user", ids=ids), "text_differs", tokenizer=tokenizer)
    assert findings(importing, logged("user", ids=ids)) == {}, "without a tokenizer nothing can be said"


def test_ids_that_encoding_does_not_give_back(importing: Importing, tokenizer: str) -> None:
    """An id beyond the vocabulary decodes to nothing, and is lost."""
    found = note(importing, logged("4 is it", ids=[*FOUR[:3], 400, 2]), "retokenised", tokenizer=tokenizer)
    assert found["count"] == 1
    assert found["message"].startswith(
        "In 1 of 1 response, encoding the decoded text gives other ids than were sampled."
    )
    assert found["examples"] == [{"line": 1, "field": "response_token_ids", "step": 0, "sample_id": "0"}]


def test_text_that_the_import_tokenised_itself(importing: Importing, tokenizer: str) -> None:
    assert set(findings(importing, logged("user", logprobs_approximate=True), tokenizer=tokenizer)) == {"approximate"}


def test_a_tokenizer_that_cannot_be_had_stops_nothing(importing: Importing, tmp_path: Path) -> None:
    found = note(importing, logged("4 is it"), "text_not_compared", tokenizer=str(tmp_path / "none"))
    assert "tokenizer.json is missing" in found["message"]
    assert findings(importing, logged(None), tokenizer=str(tmp_path / "none")) == {}


def test_only_the_first_responses_are_decoded(
    importing: Importing, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RESPONSES", 2)
    assert findings(importing, logged("4 is it", "4 is it", "four"), tokenizer=tokenizer) == {}
    monkeypatch.setattr(module, "_TOKENS", 6)
    long = logged("4 is it", ids=[*FOUR, 2, 2, 2])
    long[0]["sample_id"] = "long"
    found = warning(importing, [*long, *logged("four", "user")], "text_differs", tokenizer=tokenizer)
    assert found["count"] == 1  # one response of four tokens fits
