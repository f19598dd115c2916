"""Which dump each of the given files is, by its content, and of which step."""

from __future__ import annotations

import marshal
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.cli.dumps import plain, read_parquet, read_torch
from service.errors import BadRecord, Invalid, UnsupportedMedia
from service.ingest.adapters import miles, slime
from service.ingest.adapters.common import UNUSED
from service.ingest.adapters.sample import Notes

__all__ = ["Dump", "Files", "by_step", "survey"]

_TOP = ("format_version", "rollout_id", "rank", "call", "raw_reward", "metadata")
_OF_THE_SHARDS = ("partition", "micro_batch_indices", "num_microbatches")
_EVALUATION = re.compile(r"(?:^|[^a-z])eval_\d+$")
_COLUMNS_NAME = re.compile(r"rollout_(\d+)")


@dataclass(frozen=True)
class Dump:
    """One file."""

    path: Path
    kind: str  # rollout, train, loss or columns
    step: int | None  # None: a loss dump, which is of no step
    is_miles: bool


class Files:
    """Reads files as plain data of those fields that are used.

    torch reads a file of lists in minutes where `marshal` takes a second, so that what was read once is kept in
    `folder`, which is ours alone.
    """

    def __init__(self, folder: Path) -> None:
        self.left_out: set[str] = set()  # fields of the samples that have no place in a record
        self._folder = folder
        self._kept: dict[Path, Path] = {}

    def content(self, path: Path) -> dict[str, Any]:
        """The content of a file. Raises `UnsupportedMedia`."""
        if path in self._kept:
            kept: dict[str, Any] = marshal.loads(self._kept[path].read_bytes())  # noqa: S302 we wrote it
            return kept
        content, left_out = _read(path)
        self.left_out |= left_out
        self._kept[path] = self._folder / str(len(self._kept))
        self._kept[path].write_bytes(marshal.dumps(content))
        return content


def survey(paths: list[Path], files: Files, step: int | None, notes: Notes, done: Callable[[int], None]) -> list[Dump]:
    """What each file is; evaluation dumps, which the writers name eval_N, are left out.

    Raises `UnsupportedMedia` for a file that is none of them, and `BadRecord` where its step is not known.
    """
    dumps = []
    for count, path in enumerate(paths):
        done(count)
        if _EVALUATION.search(path.stem):
            notes["evaluation dump was left out: its samples were not trained on"] += 1
            continue
        content = files.content(path)
        if "rows" in content:
            name = _COLUMNS_NAME.fullmatch(path.stem)
            of_step = step if step is not None or name is None else int(name[1])
            dumps.append(Dump(path, "columns", _step_of(of_step, None, path.name), True))
        elif miles.is_loss_dump(content) and not slime.is_train_dump(content):
            dumps.append(Dump(path, "loss", None, True))
        elif slime.is_train_dump(content) or slime.is_rollout_dump(content):
            kind = "train" if slime.is_train_dump(content) else "rollout"
            of_step = _step_of(step, content.get("rollout_id"), path.name)
            dumps.append(Dump(path, kind, of_step, "metadata" in content))
        else:
            raise _unknown(path, content)
    return dumps


def by_step(dumps: Iterable[Dump]) -> dict[int, dict[str, Dump]]:
    """The dumps of each step by their kind, in order. Raises `Invalid` for two of a kind."""
    found: dict[int, dict[str, Dump]] = {}
    for dump in dumps:
        if dump.step is not None:
            other = found.setdefault(dump.step, {}).setdefault(dump.kind, dump)
            if other is not dump:
                raise Invalid(
                    f"{other.path.name} and {dump.path.name} are both the {dump.kind} dump of step {dump.step}."
                )
    return dict(sorted(found.items()))


def _read(path: Path) -> tuple[dict[str, Any], frozenset[str]]:
    """A file as plain data without what no record keeps (`UNUSED`), of which the names are told."""
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return {"rows": plain(read_parquet(path, miles.COLUMNS))}, frozenset()
    raw = read_torch(path)
    samples = raw.get("samples")
    if not isinstance(samples, list) or not all(isinstance(one, dict) for one in samples):
        raise _unknown(path, raw)
    content = _fields(raw, _TOP) | {"samples": [_fields(one, one.keys() - UNUSED.keys()) for one in samples]}
    if isinstance(raw.get("dp_shards"), list):
        content["dp_shards"] = [_fields(one, _OF_THE_SHARDS) for one in raw["dp_shards"] if isinstance(one, dict)]
    left_out = {name for one in (raw, *samples) for name in UNUSED if one.get(name) is not None}
    return content, frozenset(left_out)


def _unknown(path: Path, content: Mapping[str, Any]) -> UnsupportedMedia:
    if "rollout_data" in content:
        return UnsupportedMedia(
            f"{path.name} is a rank's shard (miles' train_data, slime's format 1) and may hold slices of responses; it "
            "is not converted. Give rollout_data, and of miles policy_loss_debug."
        )
    names = ", ".join(sorted(map(str, content))[:8]) or "nothing"
    return UnsupportedMedia(
        f"{path.name} is no dump that is known here (it has {names}): slime's --save-debug-rollout-data and "
        "--save-debug-train-data, miles' rollout_data, dashboard_columns and policy_loss_debug are."
    )


def _fields(one: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: plain(one[name]) for name in names if name in one}


def _step_of(given: int | None, own: Any, where: str) -> int:
    """The step of a dump: its rollout_id, which a step given beside it must equal. Raises `BadRecord`."""
    if own is None and given is None:
        raise BadRecord(f"{where} does not say its rollout_id; give the step with --step N.")
    if own is not None and (not isinstance(own, int) or own < 0):
        raise BadRecord(f"{where}: rollout_id {own!r} is not a step.")
    if own is not None and given is not None and own != given:
        raise BadRecord(f"{where} is of rollout_id {own}, but --step {given} was given.")
    step = given if own is None else own
    assert step is not None
    return step
