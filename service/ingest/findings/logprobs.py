"""Log-probs that cannot be what they are called: sentinels, and one policy's stored as another's."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from service.ingest.columns import LOGPROBS, Columns, row_sums
from service.ingest.findings.finding import Finding, Level, Sightings, many, on_tokens
from service.ingest.task import Sampling

__all__ = ["CopiedLogprobs", "ImpossibleLogprobs", "ZeroLogprobs"]

_ZERO_SHARE = 0.2  # of the known, counted log-probs of a file
_IMPOSSIBLE = -1000.0  # nats; float32 and float64 draw nothing below −104 and −745
_GRID = 1e-4  # what verifiers rounds its records to
_FINE = -1e-2  # nats; a file that has log-probs above it, all of them on the grid, is rounded
_SAME = 1e-7  # nats, and of the log-prob: what float32 rounds
_CERTAIN = -1e-3  # nats; above it a token is so sure that any two policies agree
_SAME_SHARE = 0.99
_ENOUGH = 16  # tokens


class ZeroLogprobs:
    """Log-probs that are exactly 0: probability 1, or a missing one."""

    def __init__(self, sampling: Sampling) -> None:
        # where it was cut off, the one token that is left has probability 1
        self._alone = " and ".join(sampling.cut) if sampling.logprobs_mode != "raw" else ""
        self._zeros: Counter[str] = Counter()
        self._known: Counter[str] = Counter()
        self._coarse = dict.fromkeys(LOGPROBS, True)  # every value is on the grid, so far
        self._fine: set[str] = set()
        self._whole: defaultdict[str, Sightings] = defaultdict(Sightings)  # records of nothing but zeros

    def observe(self, columns: Columns) -> None:
        for name in LOGPROBS:
            column = columns.lists.get(name)
            if column is None:
                continue
            zeros = column.values == 0
            if column.known is not None:
                zeros &= column.known
            count = int(np.count_nonzero(zeros))
            self._known[name] += zeros.size if column.known is None else int(np.count_nonzero(column.known))
            self._zeros[name] += count
            if self._coarse[name]:  # one look tells files that are not
                self._coarse[name] = _on_grid(column.values if column.known is None else column.values[column.known])
                if ((column.values < 0) & (column.values > _FINE)).any():
                    self._fine.add(name)
            if count:
                known = np.ones(zeros.size, bool) if column.known is None else column.known
                by_row = row_sums(zeros, column.offsets)
                whole = (by_row > 0) & (by_row == row_sums(known, column.offsets))
                self._whole[name].in_rows(columns, whole, name)

    def findings(self) -> list[Finding]:
        return [self._finding(name) for name in LOGPROBS if self._is_odd(name)]

    def _is_odd(self, name: str) -> bool:
        return self._whole[name].count > 0 or self._zeros[name] > _ZERO_SHARE * self._known[name]

    def _finding(self, name: str) -> Finding:
        whole = self._whole[name]
        message = f"{self._zeros[name]} of {self._known[name]} {name} on counted tokens are exactly 0" + (
            f", in {many(whole.count, 'record')} all of them" if whole.count else ""
        )
        if name == "rollout_logprobs" and self._alone:
            message += f", as they are where {self._alone} leaves one token."
            return Finding("zero_logprobs", "note", message, self._zeros[name], whole.examples)
        if self._coarse[name] and name in self._fine:
            message += ", as they are where log-probs are rounded to 4 decimals: those of a probability above .99995."
            return Finding("zero_logprobs", "note", message, self._zeros[name], whole.examples)
        message += ": a missing log-prob stored as probability 1? Write null where it is not known."
        return Finding("zero_logprobs", "warning", message, self._zeros[name], whole.examples)


def _on_grid(values: np.ndarray) -> bool:
    steps = values / _GRID
    return bool((np.abs(steps - np.rint(steps)) < 1e-6).all())


class ImpossibleLogprobs:
    """Log-probs of tokens that no sampler draws: stand-ins for −∞."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, Sightings] = defaultdict(Sightings)
        self._least: Counter[str] = Counter()

    def observe(self, columns: Columns) -> None:
        for name in LOGPROBS:
            column = columns.lists.get(name)
            if column is None or column.values.size == 0 or column.values.min() >= _IMPOSSIBLE:
                continue
            found = on_tokens(columns, name)
            assert found is not None
            self._seen[name].at_tokens(columns, found[0] < _IMPOSSIBLE, name)
            self._least[name] = min(self._least[name], found[0].min())

    def findings(self) -> list[Finding]:
        return [
            Finding.of(
                "impossible_logprobs",
                "warning",
                f"{many(seen.count, 'counted token', 'have')} {name} below {_IMPOSSIBLE:g} nats (down to "
                f"{self._least[name]:g}): no token of that probability is ever drawn. −9999 is vLLM's word for −∞. "
                "Write null where it is not known.",
                seen,
            )
            for name, seen in sorted(self._seen.items())
        ]


class CopiedLogprobs:
    """Two policies' log-probs that are the same, number for number."""

    def __init__(self) -> None:
        self._compared: Counter[tuple[str, str]] = Counter()
        self._seen: defaultdict[tuple[str, str], Sightings] = defaultdict(Sightings)

    def observe(self, columns: Columns) -> None:
        found = {name: on_tokens(columns, name) for name in LOGPROBS}
        for pair in _PAIRS:
            one, other = found[pair[0]], found[pair[1]]
            if one is None or other is None:
                continue
            compared = one[0] < _CERTAIN
            compared &= one[1]
            compared &= other[1]
            self._compared[pair] += int(np.count_nonzero(compared))
            distance = np.abs(one[0] - other[0])
            same = distance <= _SAME * np.maximum(1, -one[0])
            same &= compared
            self._seen[pair].at_tokens(columns, same, pair[1])

    def findings(self) -> list[Finding]:
        found = []
        for pair, (code, level, meaning) in _PAIRS.items():
            seen, compared = self._seen[pair], self._compared[pair]
            if compared >= _ENOUGH and seen.count >= _SAME_SHARE * compared:
                message = (
                    f"{pair[1]} equal {pair[0]} within {_SAME:g} on {seen.count:,} of {many(compared, 'counted token')}"
                    f" (those with a probability below .999): {meaning}"
                )
                found.append(Finding.of(code, level, message, seen))
        return found


_NOT_MEASURED = (
    "the trainer logged one for the other, and the mismatch between engine and trainer is not measured. It is right "
    "only where both compute bit for bit alike."
)
_PAIRS: dict[tuple[str, str], tuple[str, Level, str]] = {
    ("rollout_logprobs", "old_logprobs"): ("old_is_rollout", "warning", _NOT_MEASURED),
    ("rollout_logprobs", "new_logprobs"): ("new_is_rollout", "warning", _NOT_MEASURED),
    ("old_logprobs", "new_logprobs"): (
        "new_is_old",
        "note",
        "every ratio of the trainer's is 1, as in the first update of a step.",
    ),
}
