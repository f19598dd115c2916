"""A store with one analysis of hand-made segments, and what its methods decide of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dppo_core.methods.catalog import Thresholds
from service.api.views import TABLES
from service.api.views.settled import settled
from service.schemas.decisions import DECISION_SCHEMA
from service.schemas.measures import MEASURES
from service.schemas.segment import SEGMENT_SCHEMA
from service.settings import Settings
from service.store.runs import now
from service.store.store import Store

ANALYSIS = "a1"
Row = dict[str, Any]
Columns = Mapping[str, list[Any]]


def segment(columns: Columns) -> pa.Table:
    """A segment from the columns that matter; each response's tokens stand together, and count unless it says not."""
    n = len(columns["sample_id"])
    given = {"token_id": list(range(n)), "counted": [True] * n, "group_id": columns["sample_id"], **columns}
    if "position" not in given:
        seen: dict[Any, int] = {}
        given["position"] = [seen.update({s: seen.get(s, -1) + 1}) or seen[s] for s in given["sample_id"]]
    return pa.table(
        [pa.array(given.get(field.name, [None] * n), field.type) for field in SEGMENT_SCHEMA], schema=SEGMENT_SCHEMA
    )


def asked(store: Store, run: str, analysis: str, scorings: Mapping[int, str], **facts: Any) -> Row:
    """A run with one analysis (rollout → new at the end) of these scorings by step; `facts` change its row.

    Returns the run's row.
    """
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs_mode": None}
    created = store.runs.create(run, None, sampling, None, {})
    row = {
        "analysis": analysis,
        "run_id": created["run_id"],
        "created_at": now(),
        "source": "scored",
        "anchor": "rollout",
        "evaluated_at": "end",
        **asdict(Thresholds()),
        "top_k": 20,
        "topk_mode": "paper",
        "dtype": "float32",
        "stale": False,
        "warnings": "[]",
        "skipped_steps": "[]",
        **facts,
    }
    pair = {"inputs": {}, "old_checkpoint": None, "new_checkpoint": None, "span": 1}
    store.analyses.add(row, [{"step": step, "scoring": scoring, **pair} for step, scoring in scorings.items()])
    return created


@contextmanager
def analysed(root: Path, steps: Mapping[int, Columns], **facts: Any) -> Iterator[Store]:
    """A store whose analysis `ANALYSIS` has these segments; `facts` change its row."""
    store = Store(Settings(data_dir=root / "data"))
    asked(store, "run", ANALYSIS, {step: f"x{step}" for step in steps}, **facts)
    for step, columns in steps.items():
        shard = root / f"{step}.parquet"
        pq.write_table(segment(columns), shard)
        store.analyses.finish(f"x{step}", [shard], {"counted": len(columns["sample_id"])}, "cpu")
    store.lens.publish()
    try:
        yield store
    finally:
        store.close()


def measured(store: Store, decisions: Mapping[int, Columns], reasons: Mapping[str, str | None]) -> None:
    """Keep decisions by step (`segment_row` and a column a method) as a measurement would, and `reasons` by method."""
    folder = store.layout.measures(ANALYSIS)
    (folder / "decisions").mkdir(parents=True)
    for step, columns in decisions.items():
        n = len(columns["segment_row"])
        given = {"step": [step] * n, **columns}
        table = [pa.array(given.get(field.name, [None] * n), field.type) for field in DECISION_SCHEMA]
        pq.write_table(pa.table(table, schema=DECISION_SCHEMA), folder / "decisions" / f"{step}.parquet")
    counts = dict.fromkeys(("n", "n_both_keep", "n_only_method_drops", "n_only_other_drops", "n_both_drop"), 0)
    agreement = [{"method": name, "other": name, **counts, "reason": reason} for name, reason in reasons.items()]
    for name, schema in MEASURES.items():
        rows = agreement if name == "method_agreement" else []
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{name}.parquet")
    store.analyses.keep_measures(ANALYSIS)
    store.lens.publish()


def rows(store: Store, table: str, **query: str) -> list[Row]:
    """A table of the analysis under a view, as REST gives it."""
    view = TABLES[table].view.of(query, set())
    at = settled(store.lens, view.parameters(store.analyses.get(ANALYSIS)))
    found: list[Row] = TABLES[table].rows(store.lens, at).to_pylist()
    return found
