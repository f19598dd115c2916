"""What every registered method decides of an analysis's tokens: a row a counted token of a step, a column a method."""

from __future__ import annotations

import pyarrow as pa

from service.schemas.methods import METHODS

__all__ = ["DECISION_SCHEMA"]

DECISION_SCHEMA = pa.schema(
    [
        pa.field("step", pa.uint32(), nullable=False),
        pa.field("segment_row", pa.uint32(), nullable=False),  # of the step's segment, from 0
        *(pa.field(name, pa.bool_()) for name in METHODS),  # true: the method keeps the gradient; null: not known
    ]
)
