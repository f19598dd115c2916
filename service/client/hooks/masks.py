"""What the trainers' padded rows have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["known"]


def known(values: Sequence[float], mask: Sequence[int]) -> list[float | None]:
    """Log-probs where the trainer has them: what a masked position holds, usually 0.0, is none."""
    return [value if kept and not math.isnan(value) else None for value, kept in zip(values, mask, strict=True)]
