"""Chunks of NDJSON lines, read as native records."""

from __future__ import annotations

from msgspec import Raw

from service.errors import FieldError
from service.ingest.build import Builder
from service.ingest.examine import Examined, examine, parse_line
from service.ingest.flat import NotFlat
from service.ingest.lines import Lines, Text
from service.ingest.meta import Unkeepable, meta_text
from service.ingest.reading import Reading
from service.ingest.record import ABSENT, DECODE_ERRORS, Decoder, Undecodable

__all__ = ["JsonLines", "RecordReader"]

_NONE: dict[str, Raw] = {}


class JsonLines:
    """Native records as lines of JSON."""

    def __init__(self, lines: Lines, reader: RecordReader) -> None:
        self.lines = lines.numbers
        self._texts = lines.texts
        self._reader = reader

    def read(self) -> Reading:
        return self._reader.read(self.lines, self._texts)

    def examine(self, place: int, step: int | None) -> Examined:
        line = self.lines[place]
        raw = parse_line(line, bytes(self._texts[place]))
        if isinstance(raw, FieldError):
            examined = Examined(line)
            examined.errors.append(raw)
            return examined
        return examine(line, raw, step)


class RecordReader:
    """Reads the lines of one file, chunk after chunk, and keeps what that needs: the decoder, the buffers."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._builder = Builder()

    def read(self, lines: list[int], texts: list[Text]) -> Reading:
        """A chunk as columns; lines that do not decode, or whose meta cannot be kept, are left unread."""
        reading = Reading(None)
        decoder, builder = self._decoder, self._builder
        good: list[int] = []
        meta: list[str | None] = []
        for place, text in enumerate(texts):
            try:
                try:
                    record = decoder.quick(text)
                except DECODE_ERRORS:
                    record = decoder.decode(text)
                extras = decoder.extras(record) if decoder.has_extras else _NONE
                kept = meta_text(record.meta, extras) if extras or record.meta is not ABSENT else None
            except (Undecodable, Unkeepable, TypeError, *DECODE_ERRORS):
                reading.unread.append(place)
                continue
            if extras:
                reading.unknown.append((lines[place], list(extras)))
            try:
                builder.add(record)
            except (NotFlat, OverflowError):  # an integer of more than 64 bits
                return self._give_up(texts)
            good.append(lines[place])
            meta.append(kept)
        try:
            reading.columns = builder.take(good, meta) if good else None
        except NotFlat:
            return self._give_up(texts)
        return reading

    def _give_up(self, texts: list[Text]) -> Reading:
        """Every record in doubt, and buffers that hold no half of one."""
        self._builder = Builder()
        return Reading(None, list(range(len(texts))))
