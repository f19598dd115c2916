"""What an import adds to each step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.ingest.flat import Bools
from service.ingest.pieces import Piece
from service.ingest.rows import Totals
from service.ingest.seen import Hashes, step_content

__all__ = ["Steps"]


@dataclass
class _Sums:
    rollouts: int = 0
    tokens: int = 0
    counted_tokens: int = 0
    hashes: list[Hashes] = field(default_factory=list)


class Steps:
    """Sums by step, of the rows that are new."""

    def __init__(self) -> None:
        self._steps: defaultdict[int, _Sums] = defaultdict(_Sums)

    def add(self, steps: Sequence[int], totals: Totals, hashes: Hashes, new: Bools) -> None:
        """Rows of any steps, of which those that are `new` count."""
        for step in sorted(set(steps)):
            rows = (np.asarray(steps) == step) & new
            if rows.any():
                sums = self._steps[step]
                sums.rollouts += int(rows.sum())
                sums.tokens += int(totals.response[rows].sum())
                sums.counted_tokens += int(totals.counted[rows].sum())
                sums.hashes.append(hashes[rows])

    def totals(self) -> dict[str, int]:
        """Tokens over all steps."""
        return {
            name: sum(getattr(sums, name) for sums in self._steps.values()) for name in ("tokens", "counted_tokens")
        }

    def manifest(self, pieces: Mapping[int, Sequence[Piece]]) -> list[dict[str, Any]]:
        """Each step that gains rows; everything is about those rows."""
        return [
            {
                "step": step,
                "rollouts": sums.rollouts,
                "tokens": sums.tokens,
                "counted_tokens": sums.counted_tokens,
                "content": step_content(sums.hashes),
                "pieces": [{"file": piece.file, "rows": piece.rows} for piece in pieces[step]],
            }
            for step, sums in sorted(self._steps.items())
        ]
