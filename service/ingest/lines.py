"""NDJSON: the non-blank lines of a text with their numbers, in chunks, no line ever longer than allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from service.errors import BadRecord, FieldError, TooLarge
from service.ingest.containers import Bomb, Broken, Container, Inflow, refuse_text

__all__ = ["Lines", "Text", "line_chunks"]

Text = bytes | memoryview
"""A line. A view of the block that it was read in costs no copy."""
_CHUNK = 8 << 20  # text of one chunk; what is checked at once
_BOM = b"\xef\xbb\xbf"
_BRACE = ord("{")  # what no blank line begins with


@dataclass
class Lines:
    """Some lines of a file: 1-based numbers and their bytes, without the line feed."""

    numbers: list[int] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    size: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def append(self, number: int, text: Text) -> None:
        self.extend([number], [text])

    def extend(self, numbers: list[int], texts: list[Text]) -> None:
        self.numbers += numbers
        self.texts += texts
        self.size += sum(map(len, texts))


def line_chunks(inflow: Inflow, container: Container, limit: int) -> Iterator[Lines]:
    """Chunks of non-blank lines of at most `limit` bytes each.

    Raises `BadRecord` (a broken stream), `TooLarge` (a bomb, a line over the limit) with the line reached.
    """
    splitter = _Splitter(limit)
    started = False
    try:
        for block in inflow.blocks():
            text = block
            if not started:
                text = block.removeprefix(_BOM)
                refuse_text(text, container)
                started = True
            splitter.feed(text)
            if splitter.ready.size >= _CHUNK:
                yield splitter.take()
        splitter.finish()
    except Broken as error:
        line = splitter.number + 1
        message = f"{error}, at line {line}; the file did not arrive whole, or was never whole"
        raise BadRecord(message[0].upper() + message[1:] + ".", [FieldError(message, line)]) from error
    except Bomb as error:
        line = splitter.number + 1
        raise TooLarge(f"At line {line} {error}.", [FieldError(str(error), line)]) from error
    if len(splitter.ready):
        yield splitter.take()


def _split(text: bytes) -> tuple[list[Text], memoryview]:
    """The lines that end in a text, and what is left of it."""
    view, find, start = memoryview(text), text.find, 0
    parts: list[Text] = []
    while (end := find(b"\n", start)) >= 0:
        parts.append(view[start:end])
        start = end + 1
    return parts, view[start:]


class _Splitter:
    """Cuts text into lines; `number` counts the finished ones, `ready` holds those not yet taken."""

    def __init__(self, limit: int) -> None:
        self.number = 0
        self.ready = Lines()
        self._limit = limit
        self._open = bytearray()  # the line that has not ended yet

    def feed(self, text: bytes) -> None:
        parts, last = _split(text)
        if parts and self._open:
            self._open += parts[0]
            parts[0] = bytes(self._open)
            self._open.clear()
        if parts and max(map(len, parts)) > self._limit:
            for part in parts:
                self._check(len(part))
                self.number += 1
        self._end(parts)
        self._check(len(self._open) + len(last))
        self._open += last

    def finish(self) -> None:
        if self._open:
            self._end([bytes(self._open)])
            self._open.clear()

    def take(self) -> Lines:
        lines, self.ready = self.ready, Lines()
        return lines

    def _end(self, texts: list[Text]) -> None:
        numbers = list(range(self.number + 1, self.number + 1 + len(texts)))
        self.number += len(texts)
        if not all(text and text[0] == _BRACE for text in texts):
            kept = [(number, text) for number, text in zip(numbers, texts, strict=True) if bytes(text).strip()]
            numbers, texts = [number for number, _ in kept], [text for _, text in kept]
        self.ready.extend(numbers, texts)

    def _check(self, length: int) -> None:
        if length > self._limit:
            line = self.number + 1
            message = f"the line is longer than {self._limit} bytes, the most a record may have"
            raise TooLarge(f"Line {line}: {message}.", [FieldError(message, line)])
