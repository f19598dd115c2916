"""The order of the steps in a file: a trainer reaches them one after the other."""

from __future__ import annotations

from collections import Counter
from statistics import median_high, median_low

import numpy as np

from service.ingest.columns import Columns
from service.ingest.findings.finding import Finding, Sightings, listed, many

__all__ = ["StepOrder"]

_MOST = 1 << 17  # steps that are remembered
_SEVERAL = 2  # steps that come once, to compare with
_FULL = 0.75  # of what other steps hold: a whole step, in each of its places


class StepOrder:
    """Steps that go back, and steps that come again after others."""

    def __init__(self) -> None:
        self._last = -1
        self._back = Sightings()
        self._again = Sightings()
        self._responses: Counter[int] = Counter()  # by step
        self._places: Counter[int] = Counter()  # by step: how often it begins

    def observe(self, columns: Columns) -> None:
        steps = np.asarray(columns.step, np.int64)
        starts = np.flatnonzero(np.diff(steps, prepend=-1)).tolist()
        back, again = [], []
        for start, stop in zip(starts, [*starts[1:], columns.rows], strict=True):
            step = int(steps[start])
            if step < self._last:
                back.append(start)
            if step in self._responses or len(self._responses) < _MOST:
                self._places[step] += step != self._last
                self._responses[step] += stop - start
                if self._places[step] == 2 and step != self._last:
                    again.append(start)
            self._last = step
        self._back.in_rows(columns, np.array(back, np.int64), "step")
        self._again.in_rows(columns, np.array(again, np.int64), "step")

    def findings(self) -> list[Finding]:
        if not self._back.count:
            return []
        times = f"Steps go back {many(self._back.count, 'time')}"
        if len(self._responses) >= _MOST:
            times += f" (those beyond {many(_MOST, 'step')} are not counted)"
        repeated = sorted(step for step, places in self._places.items() if places > 1)
        if not repeated:
            message = f"{times}, but none comes twice: files put together in another order? The import does not mind."
            return [Finding.of("steps_out_of_order", "note", message, self._back)]
        again = f"{times}, and {self._again.count:,} of {many(len(self._responses), 'step')} come again"
        again += f" ({listed(repeated)})"
        each = median_low(self._responses[step] // self._places[step] for step in repeated)
        once = [count for step, count in self._responses.items() if self._places[step] == 1]
        if len(once) >= _SEVERAL and each >= _FULL * median_high(once):
            message = (
                f"{again}, each time with as many responses as the others hold ({each:,} and {median_high(once):,}): a "
                "resumed trainer, whose rollouts were appended to those they replace? Upload a step from one pass only."
            )
            return [Finding.of("steps_repeated", "warning", message, self._again)]
        message = f"{again}: shards put together, or an asynchronous trainer? Each step is taken as a whole."
        return [Finding.of("steps_interleave", "note", message, self._again)]
