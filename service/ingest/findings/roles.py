"""Responses that hold what others said: messages of another role, the prompt."""

from __future__ import annotations

import re

import numpy as np

from service.ingest.columns import Columns, Ragged
from service.ingest.findings.finding import Finding, Level, Sightings, many
from service.ingest.findings.masks import ADVICE, all_count

__all__ = ["PromptInResponse", "RoleHeaders"]

_USUAL = 0.05  # of responses: a policy makes up the other side now and then, an environment answers all the time
_LEAST_PROMPT = 4  # tokens; a response may begin with one or two of its prompt by chance

# How chat templates open a message that is not the policy's, with some of its text: after it, its own turn has ended.
_HEADER = re.compile(
    r"(?:<\|im_start\|>(?:user|tool|system|observation)"  # ChatML: Qwen, SmolLM, …
    r"|<\|start_header_id\|>(?:user|tool|ipython|system)<\|end_header_id\|>"  # Llama 3
    r"|<\|start\|>(?:(?:user|developer|system)<\|message\|>|functions\.)"  # gpt-oss
    r"|<\|im_(?:user|system)\|>"  # Kimi
    r"|<\|(?:user|observation)\|>"  # GLM, Phi, Tülu
    r"|<start_of_turn>user"  # Gemma
    r"|<｜User｜>|<｜tool▁outputs?▁begin｜>"  # DeepSeek
    r"|\[TOOL_RESULTS\]|\[INST\])(?=\s*(?!<\|)\S)"  # Mistral
)
_OPENINGS = {"<": ("<|", "<｜", "<start_of_turn>"), "[": ("[TOOL_RESULTS]", "[INST]")}  # one begins every header


class RoleHeaders:
    """Responses in which every token counts, and whose text opens a message of another role."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._texts = 0
        self._example = ""

    def observe(self, columns: Columns) -> None:
        texts = columns.texts.get("response_text")
        if texts is None:
            return
        rows = [row for row in np.flatnonzero(all_count(columns)).tolist() if texts[row] is not None]
        self._texts += len(rows)
        found = [row for row in rows if self._has_header(str(texts[row]))]
        self._seen.in_rows(columns, np.array(found, np.int64), "response_text")

    def _has_header(self, text: str) -> bool:
        found = (opening in text for letter, openings in _OPENINGS.items() if letter in text for opening in openings)
        if not any(found):  # faster than the expression by far
            return False
        header = _HEADER.search(text)
        if header:
            self._example = self._example or header[0]
        return header is not None

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        level: Level = "warning" if self._seen.count > _USUAL * self._texts else "note"
        message = (
            f"In {self._seen.count:,} of {many(self._texts, 'response')} every token counts, and the text opens a "
            f"message of another role ({self._example}): written by the environment, unless the policy made it up. "
            + ADVICE
        )
        return [Finding.of("role_headers", level, message, self._seen)]


class PromptInResponse:
    """Responses that begin with their whole prompt."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._compared = 0

    def observe(self, columns: Columns) -> None:
        prompt, response = columns.lists["prompt_token_ids"], columns.lists["response_token_ids"]
        long_enough = (prompt.lengths >= _LEAST_PROMPT) & (response.lengths >= prompt.lengths)
        self._compared += int(np.count_nonzero(prompt.lengths >= _LEAST_PROMPT))
        same_start = prompt.values[prompt.offsets[:-1]] == response.values[response.offsets[:-1]]
        rows = np.flatnonzero(long_enough & same_start).tolist()
        echoes = [row for row in rows if _begins_with_prompt(prompt, response, row)]
        self._seen.in_rows(columns, np.array(echoes, np.int64), "response_token_ids")

    def findings(self) -> list[Finding]:
        if 2 * self._seen.count <= self._compared:
            return []
        message = (
            f"{self._seen.count:,} of {many(self._compared, 'response')} begin with their whole prompt: "
            "response_token_ids holds prompt and response? Leave the prompt out, and its entries of every list."
        )
        return [Finding.of("prompt_in_response", "warning", message, self._seen)]


def _begins_with_prompt(prompt: Ragged, response: Ragged, row: int) -> bool:
    ids = prompt.values[prompt.offsets[row] : prompt.offsets[row + 1]]
    start = response.offsets[row]
    return np.array_equal(ids, response.values[start : start + len(ids)])
