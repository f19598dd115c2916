"""`dppo convert`: a trainer's own dumps to native records, on the machine that has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.cli.dumps import classes_of
from service.cli.exports import DATAPROTO, PLAIN, SKYRL, Export, instructions, way_out
from service.cli.output import Output, fail
from service.cli.survey import Dump, Files, by_step, survey
from service.cli.traces import is_json, trace_records
from service.cli.whole import named, record_file
from service.errors import BadRecord, Invalid, LensError, UnsupportedMedia
from service.ingest.adapters import miles, slime
from service.ingest.adapters.sample import Notes

__all__ = ["FORMATS", "convert_command"]

FORMATS = ("auto", "prime-rl", "slime", "miles", "skyrl", "verl", "roll")
_PICKLED: Mapping[str, Export] = {"skyrl": SKYRL, "verl": DATAPROTO, "roll": DATAPROTO}
UNCLAIMED = "responses at the loss belong to no sample of these files"

Done = Callable[[int], None]


@dataclass
class _Summary:
    """What was converted."""

    format: str = ""
    records: int = 0
    tokens: int = 0
    steps: Counter[int] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)  # in how many records a field is
    notes: Notes = field(default_factory=Counter)
    left_out: set[str] = field(default_factory=set)  # fields of the dump that have no place in a record

    def add(self, record: Mapping[str, Any]) -> None:
        self.records += 1
        self.tokens += len(record["response_token_ids"])
        self.steps[record["step"]] += 1
        self.known.update(record.keys())

    def document(self, out: Path) -> dict[str, Any]:
        return {
            "file": str(out),
            "bytes": out.stat().st_size,
            "format": self.format,
            "records": self.records,
            "tokens": self.tokens,
            "steps": {str(step): count for step, count in sorted(self.steps.items())},
            "fields": dict(sorted(self.known.items())),
            "notes": [{"message": text, "count": count} for text, count in self.notes.items() if count],
            "fields_left_out": sorted(self.left_out),
        }


def convert_command(output: Output, format_: str, files: list[Path], out: Path, step: int | None, force: bool) -> None:
    """Convert `files` to one NDJSON file, which appears whole or not at all."""
    if out.exists() and not force:
        fail(output, f"{out} exists; choose another name or pass --force")
    summary = _Summary()
    try:
        if format_ in _PICKLED:
            name = files[0].name
            raise UnsupportedMedia(f"{name} is not opened. {instructions(_export(format_, files[0]), name)}")
        with output.progress("converting") as update, record_file(out) as write, _folder(out) as folder:
            reading = Files(folder)
            summary.left_out = reading.left_out
            for record in _records(format_, files, reading, step, summary, lambda done: update(done, 2 * len(files))):
                write(record)
                summary.add(record)
            if not summary.records:
                raise BadRecord("The files hold no response; nothing was written.")
    except LensError as error:
        fail(output, error.detail, error.problem())
    except KeyboardInterrupt:
        fail(output, "interrupted; nothing was written")
    document = summary.document(out)
    for note in document["notes"]:
        output.note(f"note: {note['count']} {note['message']}")
    if summary.left_out:
        output.note(f"note: fields without a place in a record were left out: {', '.join(sorted(summary.left_out))}")
    steps = f"{len(summary.steps)} step{'s' if len(summary.steps) > 1 else ''}"
    output.result(document, f"{out}: {summary.records:,} responses of {steps}, {summary.tokens:,} tokens")


def _export(format_: str, dump: Path) -> Export:
    """What the dump's own classes ask for; what the format's dumps usually are, where they do not say."""
    found = way_out(classes_of(dump))
    return _PICKLED[format_] if found is PLAIN else found


def _records(
    format_: str, files: list[Path], reading: Files, step: int | None, summary: _Summary, done: Done
) -> Iterator[dict[str, Any]]:
    """The native records of all files, step by step."""
    if format_ == "prime-rl" or (format_ == "auto" and all(map(is_json, files))):
        summary.format = "prime-rl"
        yield from trace_records(files, step, summary.notes, done)
        return
    dumps = survey(files, reading, step, summary.notes, done)
    is_miles = format_ == "miles" or (format_ == "auto" and any(dump.is_miles for dump in dumps))
    summary.format = "miles" if is_miles else "slime"
    foreign = {"train"} if is_miles else {"loss", "columns"}
    for dump in dumps:
        if dump.kind in foreign:
            raise Invalid(f"{dump.path.name} is no dump of {summary.format}; convert one trainer's files at a time.")
    losses = miles.Losses()
    for count, dump in enumerate(loss := [dump for dump in dumps if dump.kind == "loss"], start=len(files)):
        with _named(dump.path):
            losses.add(reading.content(dump.path), summary.notes)
        done(count)
    steps = by_step(dumps)
    if loss and not steps:
        raise Invalid("Loss dumps hold no tokens: give rollout_data/N.pt or dashboard_columns/rollout_N.parquet too.")
    count = len(files) + len(loss)
    for of_step, parts in steps.items():
        part = partial(_part, reading, parts)
        with _named(*(dump.path for dump in parts.values())):
            if is_miles:
                yield from miles.miles_records(of_step, part("rollout"), part("columns"), losses, summary.notes)
            else:
                yield from slime.slime_records(of_step, part("rollout"), part("train"), summary.notes)
        count += len(parts)
        done(count)
    summary.notes[UNCLAIMED] += losses.unused


def _part(reading: Files, parts: Mapping[str, Dump], kind: str) -> dict[str, Any] | None:
    """The content of a step's file of one kind, if there is one."""
    return reading.content(parts[kind].path) if kind in parts else None


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder for this run, beside what it writes."""
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
        yield Path(name)


@contextmanager
def _named(*paths: Path) -> Iterator[None]:
    """Errors with the files' names in front."""
    names = " and ".join(path.name for path in paths)
    try:
        with named(*paths):
            yield
    except (TypeError, AttributeError, KeyError, IndexError) as error:  # some value is not of the type it always is
        raise BadRecord(f"{names}: not laid out as its trainer writes it ({error}).") from error
