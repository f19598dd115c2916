"""TRL's completions, as trl 1.16.0 wrote them, and what its table can hold besides.

tests/data/formats/trl-1.16-{text,chat}.parquet are the completions_00001.parquet of `GRPOTrainer` (log_completions,
4 generations, reward functions `digits` and `short`, `log_extra` of "length" and "kind") on a random Llama of two
layers with the tokenizer of `words.py`, sampled on the CPU: prompts as text, and as chat messages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.adapters.words import CHAT, words
from tests.ingest.files import Importing, parquet

SAID = {"role": "assistant", "content": "4"}
FORMATS = Path(__file__).parents[2] / "data" / "formats"


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return words(tmp_path / "words", chat_template=CHAT)


def table(importing: Importing, **columns: list[Any]) -> Path:
    """A file of rows as the trainer's DataFrame writes them."""
    rows = {"step": [3], "prompt": ["2+2?"], "completion": ["4"], "digits": [1.0], "advantage": [0.5], **columns}
    return parquet(importing.folder / "completions.parquet", {name: column for name, column in rows.items() if column})


def test_text_as_trl_writes_it(importing: Importing, tokenizer: str) -> None:
    manifest = importing(FORMATS / "trl-1.16-text.parquet", tokenizer=tokenizer)
    assert (manifest["format"], manifest["rollouts"]) == ("trl", 7)
    rows = importing.rows()
    assert [row["sample_id"] for row in rows] == ["1", "2", "4", "5", "6", "7", "8"]  # 3 has no text
    assert {row["step"] for row in rows} == {1}
    first, last = rows[0], rows[-1]
    assert first["prompt_token_ids"] == [4, 6, 10, 8, 7, 9]  # "user\n4+2?"
    assert first["response_token_ids"] == [13, 10, 14, 5, 6, 13]  # " it4éassistant\n it"
    assert first["reward"] == 0.5  # digits 1.0, short −0.5
    assert first["advantage"] == [-0.21002435684204102] * 6
    assert last["response_token_ids"] == [15, 13, 13, 15, 5]  # "0 it it0assistant"
    assert last["advantage"] == [-0.1320536732673645] * 5
    assert [row["reward"] for row in rows] == [0.5, 0.0, 2.5, 1.0, 3.0, 1.0, 1.5]  # `short` is NaN in 6 and 7
    groups = [row["group_id"] for row in rows]
    assert groups == [groups[0]] * 3 + [groups[-1]] * 4
    assert groups[0] != groups[-1]


def test_meta(importing: Importing, tokenizer: str) -> None:
    importing(FORMATS / "trl-1.16-text.parquet", tokenizer=tokenizer)
    assert json.loads(importing.rows()[0]["meta"]) == {
        "rewards": {"digits": 1.0, "short": -0.5},
        "summed_rewards": ["digits", "short"],
        "kind": "sum",
        "length": 18,
        "approximate_token_ids": ["prompt", "response"],
    }


def test_a_float_column_that_is_no_reward(importing: Importing, tokenizer: str) -> None:
    """`log_extra` of floats looks like a reward function's column: 1.0 + 0.25. The import says what was summed."""
    manifest = importing(table(importing, speed=[0.25]), tokenizer=tokenizer)
    (row,) = importing.rows()
    assert row["reward"] == 1.25
    assert json.loads(row["meta"])["rewards"] == {"digits": 1, "speed": 0.25}
    (found,) = [one for one in manifest["notes"] if one["code"] == "summed_rewards"]
    assert found["message"].startswith("The reward of 1 response is the plain sum of the columns digits, speed: ")
    assert (found["count"], found["examples"]) == (1, [{"line": 1, "field": "reward", "step": 3, "sample_id": "1"}])
    single = importing(table(importing), tokenizer=tokenizer)
    assert "summed_rewards" not in {one["code"] for one in single["notes"]}


def test_chat_as_trl_writes_it(importing: Importing, tokenizer: str) -> None:
    """The prompt goes through the tokenizer's chat template, and ends where the assistant begins."""
    manifest = importing(FORMATS / "trl-1.16-chat.parquet", tokenizer=tokenizer)
    assert (manifest["format"], manifest["rollouts"]) == ("trl", 7)
    first = importing.rows()[0]
    assert first["prompt_token_ids"] == [4, 6, 10, 8, 7, 9, 6, 5, 6]  # "user\n4+2?\nassistant\n"
    assert first["response_token_ids"] == [13, 10, 14, 5, 6, 13]
    assert first["response_text"] == " it4éassistant\n it"
    assert first["prompt_text"] == "user\n4+2?\nassistant\n"
    assert json.loads(first["meta"])["prompt"] == [{"role": "user", "content": "4+2?"}]
    assert len({row["group_id"] for row in importing.rows()}) == 2


def test_chat_without_a_template(importing: Importing, tmp_path: Path) -> None:
    error = importing.refused(FORMATS / "trl-1.16-chat.parquet", tokenizer=words(tmp_path / "plain"))
    assert error.detail.endswith("has no chat template.")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "cannot be read"),
        ("{{ raise_exception('no system prompt') }}", "does not fit the tokenizer's chat template: no system prompt"),
        ("{{ messages.append(1) }}", "does not fit the tokenizer's chat template"),
        ("{{ ''.__class__.__mro__ }}", "does not fit the tokenizer's chat template"),
    ],
)
def test_templates_are_run_in_a_sandbox(importing: Importing, tmp_path: Path, template: str, message: str) -> None:
    tokenizer = words(tmp_path / "words", chat_template=template)
    error = importing.refused(FORMATS / "trl-1.16-chat.parquet", tokenizer=tokenizer)
    assert message in " ".join([error.detail, *(found.message for found in error.errors)])


def test_a_template_beside_the_config(importing: Importing, tmp_path: Path) -> None:
    """transformers 5 saves chat_template.jinja."""
    tokenizer = words(tmp_path / "words")
    (Path(tokenizer) / "chat_template.jinja").write_text("{{ eos_token }}{{ messages[0]['content'] }}")
    importing(FORMATS / "trl-1.16-chat.parquet", tokenizer=tokenizer)
    assert importing.rows()[0]["prompt_token_ids"] == [2, 10, 8, 7, 9]


def test_no_reward_function_applied(importing: Importing, tokenizer: str) -> None:
    importing(table(importing, digits=[float("nan")]), tokenizer=tokenizer)
    (row,) = importing.rows()
    assert row["reward"] is None
    assert json.loads(row["meta"])["rewards"] == {}


def test_extra_columns_are_no_rewards(importing: Importing, tokenizer: str) -> None:
    extra = {"answer": ["4"], "turns": [2], "right": [True]}
    importing(table(importing, **extra), tokenizer=tokenizer)
    (row,) = importing.rows()
    assert row["reward"] == 1
    meta = json.loads(row["meta"])
    assert (meta["answer"], meta["turns"], meta["right"]) == ("4", 2, True)


@pytest.mark.parametrize(
    ("columns", "field", "message"),
    [
        ({"completion": [[SAID, {"role": "tool", "content": "2"}]]}, "completion", "holds several messages"),
        ({"completion": [[{"role": "assistant", "x": 1}]]}, "completion[0].content", "expected the text"),
        ({"prompt": [[1, 2]]}, "prompt", "expected text or a list of chat messages, found a list"),
        ({"step": [-3]}, "step", "-3 is not a step"),
        ({"prompt": [None]}, "prompt", "is required and missing"),
    ],
)
def test_bad_rows(
    importing: Importing, tokenizer: str, columns: dict[str, list[Any]], field: str, message: str
) -> None:
    ((line, name, words_),) = importing.errors(table(importing, **columns), tokenizer=tokenizer)
    assert (line, name) == (1, field)
    assert words_.startswith(message)
