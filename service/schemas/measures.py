"""What is measured over a whole analysis: rows that the worker writes and the store keeps under the analysis."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["MEASURES"]

_counts = ("n", "n_both_keep", "n_only_method_drops", "n_only_other_drops", "n_both_drop")
_shares = ("agreement", "kappa", "drop_rate_negative", "drop_rate_positive")

MEASURES: dict[str, pa.Schema] = {
    "method_agreement": pa.schema(
        [
            pa.field("method", pa.string(), nullable=False),
            pa.field("other", pa.string(), nullable=False),
            *(pa.field(name, pa.uint64(), nullable=False) for name in _counts),
            *(pa.field(name, pa.float64()) for name in _shares),
            pa.field("reason", pa.string()),  # why the method could not be evaluated; null: it was
        ]
    ),
    "method_rates": pa.schema(
        [
            pa.field("step", pa.uint32(), nullable=False),
            pa.field("method", pa.string(), nullable=False),
            pa.field("sign", pa.int8(), nullable=False),  # of the advantage, -1 or 1
            pa.field("n", pa.uint64(), nullable=False),
            pa.field("n_drop", pa.uint64(), nullable=False),
        ]
    ),
    "pipo": pa.schema(
        [
            pa.field("step", pa.uint32(), nullable=False),
            *(pa.field(name, pa.float64()) for name in ("mean_reward", "improvement", "weight")),
            pa.field("reason", pa.string()),  # why the improvement is not known; null: it is
        ]
    ),
    "bounds": pa.schema(
        [
            pa.field("step", pa.uint32(), nullable=False),
            *(pa.field(name, pa.uint64(), nullable=False) for name in ("responses", "left_out", "horizon")),
            *(
                pa.field(name, pa.float64())
                for name in ("mean_reward", "reward_min", "xi", "first_order", "correction")
            ),
            pa.field("tv_source", pa.string(), nullable=False),
            *(pa.field(name, pa.float64()) for name in ("tv_sum", "tv_max", "eq7", "eq8", "eq8_ceiling")),
            pa.field("eq8_vacuous", pa.bool_()),
            pa.field("mean_abs_log_mismatch", pa.float64()),
        ]
    ),
}
"""Table name → columns, without `analysis`."""
