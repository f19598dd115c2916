"""Sampling that was cut off (top-p, top-k), as the lists show it and as the run says."""

from __future__ import annotations

from collections import Counter

import numpy as np

from service.ingest.columns import Columns, row_sums
from service.ingest.findings.finding import Finding, Level, Sightings, many
from service.ingest.task import Sampling

__all__ = ["Truncation"]

_MOST = 1 << 14  # lists that are looked at
_NONE = -1000.0  # nats; below it an entry stands for a token that was cut off
_OPEN = np.log(0.99)  # the best entry of a list that says something: the others have mass
_WHOLE = 1e-4  # that the mass may be off by
_NEARLY_ALL = 0.99
_ENOUGH = 16  # lists


class Truncation:
    """Lists that hold all the mass there is: the distribution was cut off and renormalised before it was logged."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._looked = 0
        self._first = Sightings()  # records whose lists were looked at
        self._longest = 0
        self._open: Counter[int] = Counter()  # open lists, by how many entries they have
        self._whole: Counter[int] = Counter()  # those of mass 1

    def observe(self, columns: Columns) -> None:
        top = columns.nested.get("rollout_top_logprobs")
        if top is None or self._looked >= _MOST:
            return
        offsets = top.inner.offsets[: _MOST - self._looked + 1]
        self._looked += len(offsets) - 1
        self._first.in_rows(columns, top.present, "rollout_top_logprobs")
        values = top.inner.values[: offsets[-1]]
        entries = values > _NONE
        if top.inner.known is not None:
            entries &= top.inner.known[: offsets[-1]]
        lengths = row_sums(entries, offsets)
        values, lengths = values[entries], lengths[lengths > 0]
        if not len(lengths):
            return
        starts = np.cumsum(lengths) - lengths
        mass = np.add.reduceat(np.exp(values), starts)
        is_open = np.maximum.reduceat(values, starts) < _OPEN
        self._longest = max(self._longest, int(lengths.max()))
        self._open.update(lengths[is_open].tolist())
        self._whole.update(lengths[is_open & (np.abs(mass - 1) <= _WHOLE)].tolist())

    def findings(self) -> list[Finding]:
        said = " and ".join(self._sampling.cut)
        shown = self._shown()
        if shown:
            return [self._renormalised(said, *shown)]
        if said and self._sampling.logprobs_mode is None:
            message = (
                f"The run samples with {said}, and neither its logprobs_mode nor the top lists say "
                "whether rollout_logprobs are raw (of all tokens) or processed (of those that are left)."
            )
            return [Finding("truncated_sampling", "note", message, 1, [])]
        return []

    def _shown(self) -> tuple[int, int, str] | None:
        """How many lists show it, of how many that could, in words which: those that are not full, else all."""
        short = [length for length in self._open if length < self._longest]
        which = f"with fewer than {self._longest} entries" if short else f"of {self._longest} entries"
        could = sum(self._open[length] for length in short or [self._longest])
        whole = sum(self._whole[length] for length in short or [self._longest])
        return (whole, could, which) if could >= _ENOUGH and whole >= _NEARLY_ALL * could else None

    def _renormalised(self, said: str, whole: int, could: int, which: str) -> Finding:
        looked = f", among the first {_MOST:,}," if self._looked >= _MOST else ""
        message = (
            f"{whole:,} of {many(could, 'top list')} {which}{looked} hold the whole probability (1 within {_WHOLE:g}): "
            "sampling was cut off by top-p or top-k, and the log-probs are processed, of what was left"
        )
        if not said:
            end = ". The run says neither top_p nor top_k: create it with the sampling that made this log."
        elif self._sampling.logprobs_mode == "raw":
            end = f". The run says {said}, but raw log-probs: its logprobs_mode is processed."
        else:
            end = f" ({said}). The mismatch with policies that are scored over all tokens holds the cut."
        level: Level = "note" if said and self._sampling.logprobs_mode != "raw" else "warning"
        return Finding("renormalised_lists", level, message + end, whole, self._first.examples)
