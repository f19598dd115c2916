"""Quiet tokens: what no method could drop is counted once for all, when a scoring is finished.

Most tokens hardly move. Under thresholds beyond what a quiet token stays within, PPO and DPPO (by a binary divergence)
keep every one of them, whatever the thresholds are: their sums then stand for them, and views read the few tokens that
moved. The numbers are the same ones, to the rounding of a sum.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from service.schemas.segment import SEGMENT_SCHEMA
from service.store.catalog import script

__all__ = ["LOG_RATIO", "MOVED_SCHEMA", "QUIET_SCHEMA", "beyond", "condense"]

LOG_RATIO, TV, KL = 0.08, 0.02, 0.004
"""What a quiet token stays within: |ln r|, binary TV, binary KL (nats), in every pair that is known of it."""
BOUNDS = ("p_low", "p_high", "brush_low", "brush_high")

MOVED_SCHEMA = pa.schema([*SEGMENT_SCHEMA, pa.field("file_row_number", pa.int64())])
QUIET_SCHEMA = pa.schema(
    [
        pa.field("pair", pa.string()),
        pa.field("dimension", pa.string()),
        pa.field("key", pa.int64()),
        pa.field("group_id", pa.string()),
        pa.field("sample_id", pa.string()),
        pa.field("token", pa.string()),
        pa.field("sign", pa.int8()),
        pa.field("known", pa.bool_()),
        pa.field("n", pa.uint32()),
        *(pa.field(name, pa.float64()) for name in ("mass", "weight", "weight_norm", "p", "entropy")),
        pa.field("n_entropy", pa.uint32()),
        *(pa.field(name, pa.float64()) for name in ("reward", "least_advantage", "most_advantage")),
    ]
)
MEMORY = "2GB"


def condense(segment: Path) -> None:
    """Write `moved.parquet` and `quiet.parquet` beside a segment."""
    spill, statements = segment.parent / "spill", script("macros/bins") + script("quiet")
    paths = {name: str(path).replace("'", "''") for name, path in (("segment", segment), ("folder", segment.parent))}
    for name, value in {**paths, "log_ratio": LOG_RATIO, "tv": TV, "kl": KL}.items():
        statements = statements.replace(f"${name}", str(value))
    with duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(spill)}) as connection:
        connection.execute(statements)
    shutil.rmtree(spill, ignore_errors=True)


def beyond(at: Mapping[str, Any], noise: Mapping[str, float | None]) -> bool:
    """Whether quiet tokens are kept by both methods of a view, and near neither threshold.

    at: the view's SQL parameters. noise: the analysis's noise floor, 99 % quantiles of |ln r| and of TV (None: not
    measured), the worst step's.
    """
    if at["divergence"] not in ("binary_tv", "binary_kl") or (at["anchor"], at["evaluated_at"]) == ("old", "start"):
        return False
    if "second" in at and {at["first"], at["second"]} != {"ppo", "dppo"}:
        return False
    if any(at.get(name) is not None for name in BOUNDS):
        return False
    near_ratio, near = max(1e-3, noise["log_ratio"] or 0), max(1e-4, noise["tv"] or 0)
    most = math.exp(LOG_RATIO)
    caps = [at[name] for name in ("dual_clip", "weight_cap") if at[name] is not None]
    return (
        1 + at["eps_high"] - near_ratio > most
        and 1 - at["eps_low"] + near_ratio < 1 / most
        and min(at["delta_low"], at["delta_high"]) - near > (TV if at["divergence"] == "binary_tv" else KL)
        and all(cap > most for cap in caps)
    )
