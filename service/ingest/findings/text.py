"""The logged text beside what the run's tokenizer makes of the token ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from service.ingest.columns import Columns
from service.ingest.findings.finding import Finding, Level, Sightings, many
from service.ingest.tokenizer import Unusable, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["LoggedText"]

_RESPONSES = 64  # that are decoded, the first of a file …
_TOKENS = 1 << 15  # … and of so many tokens in all
_PIECE = 8  # characters from which a part of a text is no chance


class LoggedText:
    """Responses whose `response_text` is not what their ids decode to, and those whose text encodes to other ids."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._decoder: _Decoder | None = None
        self._unusable = ""
        self._looked = self._tokens = 0
        self._other = Sightings()
        self._retokenised = Sightings()

    def observe(self, columns: Columns) -> None:
        texts = columns.texts.get("response_text")
        if texts is None or self._directory is None or self._unusable or self._looked >= _RESPONSES:
            return
        rows = [row for row, text in enumerate(texts) if text is not None and not columns.logprobs_approximate[row]]
        try:
            if rows and self._decoder is None:
                self._decoder = _Decoder(load_tokenizer(Path(self._directory)))
        except Unusable as why:
            self._unusable = str(why)
            return
        other, retokenised = [], []
        response = columns.lists["response_token_ids"]
        for row in rows:
            length = int(response.lengths[row])
            if self._looked >= _RESPONSES or self._tokens + length > _TOKENS:
                continue
            assert self._decoder is not None
            self._looked += 1
            self._tokens += length
            ids = response.values[response.offsets[row] : response.offsets[row + 1]].tolist()
            if not self._decoder.gives(ids, str(texts[row])):
                other.append(row)
            elif not self._decoder.returns(ids):
                retokenised.append(row)
        self._other.in_rows(columns, np.array(other, np.int64), "response_text")
        self._retokenised.in_rows(columns, np.array(retokenised, np.int64), "response_token_ids")

    def findings(self) -> list[Finding]:
        found = []
        looked = f"of the first {many(self._looked, 'response')}" if self._looked > 1 else "of 1 response"
        if self._unusable:
            message = f"response_text was not compared with the token ids: {self._unusable}."
            found.append(Finding("text_not_compared", "note", message, 1, []))
        if self._other.count:
            level: Level = "warning" if 2 * self._other.count > self._looked else "note"
            message = (
                f"The run's tokenizer decodes response_token_ids to another text than response_text in "
                f"{self._other.count:,} {looked} (special tokens and white space aside): another tokenizer than the "
                "log's, or texts of other responses."
            )
            found.append(Finding.of("text_differs", level, message, self._other))
        if self._retokenised.count:
            message = (
                f"In {self._retokenised.count:,} {looked}, encoding the decoded text gives other ids than were "
                "sampled. The ids stand; a log of text alone would have been approximate."
            )
            found.append(Finding.of("retokenised", "note", message, self._retokenised))
        return found


class _Decoder:
    """Text of token ids, to be compared."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        special = sorted((token.content for token in added if token.special), key=len, reverse=True)
        self._left_out = re.compile("|".join([r"\s", "�", *map(re.escape, special)]))

    def gives(self, ids: list[int], text: str) -> bool:
        """Whether the text is that of the ids, or one is a part of the other: stop strings and thoughts are cut off.

        Special tokens, white space and characters that were cut in half do not matter.
        """
        decoded, logged = self._left_out.sub("", self._text(ids)), self._left_out.sub("", text)
        part, whole = sorted((decoded, logged), key=len)
        return part == whole or (len(part) >= _PIECE and part in whole)

    def returns(self, ids: list[int]) -> bool:
        """Whether the text of the ids encodes to them."""
        return bool(self._tokenizer.encode(self._text(ids), add_special_tokens=False).ids == ids)

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
