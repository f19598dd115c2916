"""Text to token ids, with the run's tokenizer: for logs that hold no ids. What comes out is approximate.

The ids of a text are not always those that were sampled: encode(decode(ids)) ≠ ids. Every record that goes through
here says so, in `logprobs_approximate` and in its meta.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import BadRecord, FieldError, Invalid
from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.text import TOKENISE
from service.ingest.tokenizer import Unusable, load_tokenizer
from service.ingest.values import show

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["tokenising"]

_HOW = (
    "the tokenizer is given when the run is created: `dppo upload RUN FILE --tokenizer DIR` for a new run, or "
    '"tokenizer" in POST /api/v1/runs, a directory with tokenizer.json inside the checkpoint roots'
)


_EMPTY = LeftOut("no text is left of them without their special tokens, so there is nothing to score")


def tokenising(adapters: Sequence[Adapter], directory: str | None) -> list[Adapter]:
    """The adapters, with token ids in the records that they leave to tokenise.

    Their `convert` raises `Invalid` where a record needs a tokenizer and there is none to be had.
    """
    tokens = _Tokens(directory)

    def wrapped(adapter: Adapter) -> Adapter:
        convert = adapter.convert
        if convert is None:
            return adapter

        def settled(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
            for record in convert(line, raw):
                yield record if isinstance(record, LeftOut) else tokens.settle(line, record)

        return replace(adapter, convert=settled)

    return [wrapped(adapter) for adapter in adapters]


class _Tokens:
    """Gives records token ids. Loads the tokenizer when the first one needs it."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._own: _Own | None = None

    def settle(self, line: int, record: dict[str, Any]) -> dict[str, Any] | LeftOut:
        """The record with token ids, itself if it has them."""
        wanted = record.pop(TOKENISE, None)
        if wanted is None:
            return record
        own = self._own = self._own or _Own(_directory(self._directory))
        made: list[str] = []
        meta = {**record.get("meta", {}), "approximate_token_ids": made}
        try:
            if "prompt" in wanted:
                record["prompt_text"], record["prompt_token_ids"] = own.prompt(wanted["prompt"])
                made.append("prompt")
            if "vocabulary" in wanted:
                record["response_token_ids"] = own.entries(wanted["vocabulary"])
            elif "response" in wanted:
                encoding = own.encode(wanted["response"])
                record["response_token_ids"] = encoding.ids
                made.append("response")
                if "pieces" in wanted:
                    count = len(encoding.ids)  # what the engine has after them (an end token, say) is not in the text
                    if _pieces(wanted["response"], encoding) == wanted["pieces"][:count]:
                        record["rollout_logprobs"] = (record.get("rollout_logprobs") or [])[:count] or None
                    else:
                        record.pop("rollout_logprobs", None)
                        meta["unmatched_logprobs"] = True
        except UnicodeEncodeError:
            raise _bad(line, "has half a surrogate pair in its text, which is no character") from None
        except _Unknown as unknown:
            raise _bad(line, str(unknown)) from None
        if not record["prompt_token_ids"]:
            raise _bad(
                line, "its prompt has no token: without one before it, the first of the response has no log-prob"
            )
        if not record["response_token_ids"]:
            return _EMPTY
        return {**record, "logprobs_approximate": True, "meta": meta}


class _Unknown(Exception):
    """Something that the tokenizer does not know."""


class _Own:
    """The run's tokenizer. Only JSON and a sandboxed template are read from its directory; none of its code runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tokenizer = _load(directory)
        self._config = _config(directory / "tokenizer_config.json")
        self._template: Any = None
        pad = _token_of(self._config, "pad_token")
        self._pad = None if pad is None else self._tokenizer.token_to_id(pad)
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        dressed = self._tokenizer.encode("a").ids
        self._lead = dressed[: dressed.index(plain[0])] if plain and plain[0] in dressed else []  # BOS, or nothing

    def encode(self, text: str) -> Encoding:
        """Special tokens that are written out are read as such; none are added."""
        text.encode()  # raises UnicodeEncodeError, which the tokenizer would not
        return self._tokenizer.encode(text, add_special_tokens=False)

    def prompt(self, prompt: str | list[Any]) -> tuple[str, list[int]]:
        """The text of a prompt, and its ids: with the BOS that decoding strips, without padding that it left."""
        if not isinstance(prompt, str):
            text = self._render(prompt)
            return text, self.encode(text).ids
        ids = self.encode(prompt).ids
        start = 0
        while start < len(ids) and ids[start] == self._pad:
            start += 1
        ids = ids[start:]
        return prompt, ids if ids[: len(self._lead)] == self._lead else [*self._lead, *ids]

    def entries(self, entries: list[str]) -> list[int]:
        """The ids of entries of the vocabulary."""
        ids = [self._tokenizer.token_to_id(entry) for entry in entries]
        if None in ids:
            entry = entries[ids.index(None)]
            raise _Unknown(f"token {show(entry)} is not in the vocabulary of the run's tokenizer: another tokenizer?")
        return [token_id for token_id in ids if token_id is not None]

    def _render(self, messages: list[Any]) -> str:
        """Chat messages as the text that the policy continues."""
        from jinja2 import TemplateError

        if self._template is None:
            self._template = _compiled(self._directory, self._config)
        special = {name: _token_of(self._config, name) or "" for name in ("bos_token", "eos_token", "pad_token")}
        try:
            return str(self._template.render(messages=messages, add_generation_prompt=True, **special))
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise _Unknown(f"its prompt does not fit the tokenizer's chat template: {error}") from error


def _directory(directory: str | None) -> Path:
    if directory is None:
        raise _no_tokenizer(
            f"the file holds text, no token ids, and its run has no tokenizer to make them with; {_HOW}"
        )
    return Path(directory)


def _load(directory: Path) -> Tokenizer:
    try:
        return load_tokenizer(directory)
    except Unusable as why:
        raise _no_tokenizer(f"the file holds text, no token ids; {why}") from why


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise _no_tokenizer(f"{path} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _token_of(config: dict[str, Any], name: str) -> str | None:
    token = config.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _compiled(directory: Path, config: dict[str, Any]) -> Any:
    """The chat template, in a sandbox that changes nothing, with what transformers gives a template."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = directory / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else config.get("chat_template")
    if not isinstance(template, str):
        raise _no_tokenizer(f"the prompts are chat messages, and the tokenizer in {directory} has no chat template")

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = to_json
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise _no_tokenizer(f"the chat template in {directory} cannot be read: {error}") from error


def _pieces(text: str, encoding: Encoding) -> list[str]:
    """The text of each token, by where it ends."""
    stops = [stop for _, stop in encoding.offsets]
    return [text[start:stop] for start, stop in zip([0, *accumulate(stops, max)], stops, strict=False)]


def _no_tokenizer(message: str) -> Invalid:
    return Invalid(message[0].upper() + message[1:] + ".", [FieldError(message, field="tokenizer")])


def _bad(line: int, message: str) -> BadRecord:
    return BadRecord(f"Line {line}: {message}.", [FieldError(message, line)])
