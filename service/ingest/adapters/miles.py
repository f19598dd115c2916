"""miles `--dump-details`: what was sampled, and the policy's log-probs at the loss.

    rollout_data/{rollout_id}.pt                 {rollout_id, samples: [Sample], metadata}; the same Sample as slime's
    dashboard_columns/rollout_{id}.parquet       sample_index, response_length, total_length, tokens, loss_mask,
                                                 rollout_log_probs: a mirror of the above; the step is in its name only
    policy_loss_debug/rank_{r}_call_{n}.pt       {rank, call, samples: [{index, train_log_probs, old_log_probs, …}]}

`index` of the loss dump is the row within its micro-batch and `call` counts from the start of the process: neither
names a sample. What does is μ, which both sides carry as float32: a loss sample belongs to the response with the same
`rollout_log_probs` and lengths. Where two responses have the same, neither gets it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.ingest.adapters.common import shift
from service.ingest.adapters.sample import Notes, bad, known, sample_ids, sample_record

__all__ = ["COLUMNS", "LOSS_FIELDS", "Loss", "Losses", "is_loss_dump", "miles_records"]

COLUMNS = ("sample_index", "response_length", "total_length", "tokens", "loss_mask", "rollout_log_probs")
_LISTS = ("train_log_probs", "old_log_probs", "advantages", "local_loss_mask")
LOSS_FIELDS = ("index", "total_length", "response_length", "rollout_log_probs", *_LISTS)

NO_LOSS = "responses have no sample in the loss dumps: they have no old and no new log-probs"
SAME = "responses share their log-probs with another: which of them a loss sample belongs to is not known"
NO_MU = "loss samples have no rollout_log_probs, by which they would be told apart"
SLICED = "loss samples are slices of context parallelism, not whole responses, and were left out"
TWICE = "responses were in several calls of one rank: their loss samples were left out, none is known to be theirs"
OLD_IS_MU = "responses have old log-probs that equal μ: --use-rollout-logprobs, nothing was recomputed"
OLD_IS_NEW = "responses have old log-probs that equal the policy's at the loss: the forward before it was skipped"

_Key = tuple[int, int, bytes]


@dataclass(frozen=True)
class Loss:
    """One response at the loss; float32, as it was dumped."""

    call: int
    rank: int
    columns: Mapping[str, array[float]]  # by the names of _LISTS


def is_loss_dump(content: Mapping[str, Any]) -> bool:
    """Whether plain data is a `policy_loss_debug` file."""
    samples = content.get("samples")
    return {"rank", "call"} <= content.keys() and isinstance(samples, list) and all(map(_is_dict, samples))


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _float32(values: Sequence[float | None]) -> array[float]:
    return array("f", (math.nan if value is None else value for value in values))


def _key(total: int, logprobs: Sequence[float | None]) -> _Key:
    return total, len(logprobs), _float32(logprobs).tobytes()


class Losses:
    """All loss samples of all calls and ranks, found by what the engine logged."""

    def __init__(self) -> None:
        self._found: dict[_Key, list[Loss]] = {}
        self._used: set[_Key] = set()

    def __len__(self) -> int:
        return len(self._found)

    @property
    def unused(self) -> int:
        """Responses at the loss that no sample claimed."""
        return len(self._found.keys() - self._used)

    def add(self, content: Mapping[str, Any], notes: Notes) -> None:
        """The samples of one file. Raises `BadRecord`."""
        rank, call = int(content["rank"]), int(content["call"])
        for row, sample in enumerate(content["samples"]):
            length, total, rollout = (sample.get(n) for n in ("response_length", "total_length", "rollout_log_probs"))
            if rollout is None:
                notes[NO_MU] += 1
                continue
            columns = {name: _float32(sample.get(name) or []) for name in _LISTS}
            for name, values in columns.items():
                if len(values) != len(rollout):
                    hint = shift(len(values), len(rollout))
                    raise bad(row, name, f"has {len(values)} entries, but rollout_log_probs has {len(rollout)}{hint}")
            if len(rollout) != length:
                notes[SLICED] += 1
                continue
            self._found.setdefault(_key(total, rollout), []).append(Loss(call, rank, columns))

    def of(self, total: int, rollout: Sequence[float], notes: Notes) -> Loss | None:
        """The loss sample of a response. Ranks of a tensor-parallel group have copies: the lowest rank's counts."""
        key = _key(total, rollout)
        found = self._found.get(key, [])
        if not found or key in self._used:
            notes[SAME if found else NO_LOSS] += 1
            return None
        self._used.add(key)
        if len({loss.rank for loss in found}) < len(found):  # another epoch, or another response with the same μ
            notes[TWICE] += 1
            return None
        return min(found, key=lambda loss: loss.rank)


def miles_records(
    step: int, rollout: Mapping[str, Any] | None, columns: Mapping[str, Any] | None, losses: Losses, notes: Notes
) -> Iterator[dict[str, Any]]:
    """Native records of one step from its rollout dump, its columns (`rows`), or both, with what the loss dumps know.

    Raises `BadRecord` for a broken sample and for two files that are of different steps.
    """
    rows = [] if columns is None else columns["rows"]
    samples: Sequence[Mapping[str, Any]]
    if rollout is None:
        samples = [
            {**row, "index": row.get("sample_index"), "sample_index": None, "total_length": None} for row in rows
        ]
    else:
        samples = _with_columns(rollout["samples"], rows)
    ids = sample_ids([sample.get("index") for sample in samples], range(len(samples)))
    records = [sample_record(step, place, sample, ids[place], notes) for place, sample in enumerate(samples)]
    shared = _shared([sample for sample, record in zip(samples, records, strict=True) if record])
    for sample, record in zip(samples, records, strict=True):
        if record is None:
            continue
        total, rollout_logprobs = len(sample["tokens"]), sample.get("rollout_log_probs")
        if len(losses) and rollout_logprobs is not None:
            if _key(total, rollout_logprobs) in shared:
                notes[SAME] += 1
            else:
                loss = losses.of(total, rollout_logprobs, notes)
                if loss is not None:
                    _add_loss(record, loss, rollout_logprobs, notes)
        yield record


def _with_columns(samples: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Samples with what only the columns have. Raises `BadRecord` where they do not agree."""
    by_index = {row.get("sample_index"): row for row in rows}
    joined: list[Mapping[str, Any]] = []
    for place, sample in enumerate(samples):
        row = by_index.get(sample.get("index"), {}) if sample.get("index") is not None else {}
        if row and row.get("tokens") != sample.get("tokens"):
            message = f"sample_index {sample.get('index')} has other tokens in the columns: they are of another step"
            raise bad(place, "tokens", message)
        missing = ("loss_mask", "rollout_log_probs")
        joined.append({**sample, **{name: row.get(name) for name in missing if sample.get(name) is None}})
    return joined


def _shared(samples: Sequence[Mapping[str, Any]]) -> set[_Key]:
    """The keys that more than one response has."""
    seen: set[_Key] = set()
    twice: set[_Key] = set()
    for sample in samples:
        if sample.get("rollout_log_probs") is not None:
            key = _key(len(sample["tokens"]), sample["rollout_log_probs"])
            (twice if key in seen else seen).add(key)
    return twice


def _add_loss(record: dict[str, Any], loss: Loss, rollout: Sequence[float], notes: Notes) -> None:
    columns = loss.columns
    mask = [int(value) for value in columns["local_loss_mask"]]
    record["response_mask"] = mask
    for name, values in (
        ("rollout_logprobs", rollout),
        ("old_logprobs", columns["old_log_probs"]),
        ("new_logprobs", columns["train_log_probs"]),
    ):
        record[name] = known(values, mask, notes)
    record["advantage"] = known(columns["advantages"], mask, notes)
    record.setdefault("meta", {}).update(loss_call=loss.call, loss_rank=loss.rank)
    notes[OLD_IS_MU] += columns["old_log_probs"] == _float32(rollout)
    notes[OLD_IS_NEW] += columns["old_log_probs"] == columns["train_log_probs"]
