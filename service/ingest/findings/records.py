"""What records say of themselves: fields of their own, ids made from text; and responses that were left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from service.ingest.columns import Columns
from service.ingest.findings.finding import Finding, Sightings, many
from service.ingest.findings.told import told
from service.ingest.values import clip

__all__ = ["Approximate", "LeftOut", "SummedRewards", "UnknownFields"]

_NAMES = 1000  # distinct unknown names that are counted
_SHOWN = 20


class Approximate:
    """Records marked approximate: by the import, which tokenised their text, or by whoever wrote them."""

    def __init__(self) -> None:
        self._seen = Sightings()

    def observe(self, columns: Columns) -> None:
        marked = np.array([bool(approximate) for approximate in columns.logprobs_approximate])
        self._seen.in_rows(columns, marked, "logprobs_approximate")

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        message = (
            f"{many(self._seen.count, 'record', 'are')} approximate: token ids made from text, or log-probs of other "
            "tokens than these. What is computed from them is approximate too; log token ids to be exact."
        )
        return [Finding.of("approximate", "warning", message, self._seen)]


class SummedRewards:
    """Rewards that are the sum of columns of which the file does not say that they are rewards."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._names: set[str] = set()

    def observe(self, columns: Columns) -> None:
        found = told(columns, "summed_rewards")
        self._seen.in_rows(columns, np.array([row for row, _ in found], np.int64), "reward")
        for _, names in found:
            if len(self._names) < _SHOWN:
                self._names.update(map(clip, map(str, names)))

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        message = (
            f"The reward of {many(self._seen.count, 'response')} is the plain sum of the columns "
            f"{', '.join(sorted(self._names)[:_SHOWN])}: every column of floats is taken for a reward function's. One "
            "of log_extra is none, and reward_weights are not in the file: upload without the columns that are no "
            "rewards, or log the reward itself."
        )
        return [Finding.of("summed_rewards", "note", message, self._seen)]


class LeftOut:
    """Responses that the adapter of the file's format did not take, by its reason."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, Sightings] = defaultdict(Sightings)

    def add(self, reason: str, lines: Sequence[int]) -> None:
        self._seen[reason].at_lines(lines, None)

    def findings(self) -> list[Finding]:
        return [
            Finding.of("left_out", "warning", f"{many(seen.count, 'response', 'were')} left out: {reason}.", seen)
            for reason, seen in sorted(self._seen.items())
        ]


class UnknownFields:
    """Fields of a record that the rollout record does not have."""

    def __init__(self) -> None:
        self._names: Counter[str] = Counter()
        self._more = 0  # fields with other names than those that are counted
        self._first = Sightings()

    def add(self, line: int, names: Iterable[str]) -> None:
        for name in map(clip, names):
            if name in self._names or len(self._names) < _NAMES:
                if name not in self._names:
                    self._first.at_lines([line], name)
                self._names[name] += 1
            else:
                self._more += 1

    def findings(self) -> list[Finding]:
        if not self._names:
            return []
        names = self._names.most_common(_SHOWN)
        more = len(self._names) - len(names) + (self._more > 0)
        message = "Fields that the rollout record does not have were kept in meta: "
        message += ", ".join(f"{name!r} ({count})" for name, count in names)
        message += f", and {more} more." if more else "."
        count = self._names.total() + self._more
        return [Finding("unknown_fields", "note", message, count, self._first.examples)]
