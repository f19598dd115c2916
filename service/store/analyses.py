"""Scorings (facts, one step under one pair) and analyses (scorings + anchor + evaluation point + thresholds)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb

from service.errors import NotFound
from service.ids import new_id
from service.layout import Layout, fsync_path
from service.schemas.decisions import DECISION_SCHEMA
from service.schemas.findings import Finding
from service.schemas.measures import MEASURES
from service.store.catalog import Catalog, Row, as_json, insert, run
from service.store.lens import quoted
from service.store.quiet import condense
from service.store.runs import now
from service.store.trash import Trash

__all__ = ["Analyses"]

MERGE_MEMORY = "2GB"


class Analyses:
    """An analysis costs rows; only scorings cost minutes, and they are shared."""

    def __init__(self, catalog: Catalog, layout: Layout, trash: Trash) -> None:
        self._catalog, self._layout, self._trash = catalog, layout, trash

    def of_run(self, run_id: str) -> list[Row]:
        """A run's analyses, newest first."""
        return self._catalog.rows("analyses", run_id=run_id, analysis=None)

    def all(self) -> list[Row]:
        """Every run's analyses, newest first."""
        return self._catalog.rows("analyses", run_id=None, analysis=None)

    def find(self, analysis: str) -> Row | None:
        """One analysis by id, or None."""
        rows = self._catalog.rows("analyses", run_id=None, analysis=analysis)
        return rows[0] if rows else None

    def get(self, analysis: str) -> Row:
        """One analysis by id."""
        row = self.find(analysis)
        if row is None:
            raise NotFound(f"there is no analysis {analysis!r}")
        return row

    def steps(self, analysis: str) -> list[Row]:
        """The steps of an analysis with their scorings; `finished` tells which are visible."""
        return self._catalog.rows("analysis_steps", analysis=analysis)

    def add(self, analysis: Row, steps: list[Row]) -> None:
        """Record an analysis; `steps` name their scoring, its inputs, the checkpoints and the span. Idempotent."""

        def change(cursor: Any) -> None:
            for step in steps:
                if not run(cursor, "scorings", run_id=None, scoring=step["scoring"]):
                    insert(
                        cursor,
                        "scorings",
                        [
                            {
                                "scoring": step["scoring"],
                                "run_id": analysis["run_id"],
                                "step": step["step"],
                                "created_at": now(),
                                "inputs": as_json(step["inputs"]),
                            }
                        ],
                    )
            if run(cursor, "analyses", run_id=None, analysis=analysis["analysis"]):
                return
            insert(cursor, "analyses", [analysis])
            names = ("step", "scoring", "old_checkpoint", "new_checkpoint", "span")
            insert(
                cursor,
                "analysis_scorings",
                [
                    {"analysis": analysis["analysis"], "summarised": False, **{name: step[name] for name in names}}
                    for step in steps
                ],
            )

        self._catalog.write(change)

    def finished(self, scoring: str) -> bool:
        """Whether a scoring's segment is complete."""
        rows = self._catalog.rows("scorings", run_id=None, scoring=scoring)
        return bool(rows) and rows[0]["finished_at"] is not None

    def finish(self, scoring: str, shards: list[Path], counts: dict[str, int], device: str) -> None:
        """Merge a scoring's shards into its segment, sorted, fsynced, and visible by one rename."""
        segment = self._layout.segment(scoring)
        for path in self._files(scoring):
            self._trash.rescue(path)
        if not segment.exists():
            partial = self._layout.shards(scoring) / "merged"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            merge(shards, partial / segment.name)
            condense(partial / segment.name)
            for path in (*partial.iterdir(), partial):
                fsync_path(path)
            partial.rename(segment.parent)
            fsync_path(self._layout.tokens)

        def change(cursor: Any) -> None:
            run(cursor, "measure_noise", scoring=scoring, segment=str(segment))
            run(cursor, "measure_availability", scoring=scoring, segment=str(segment))
            run(
                cursor,
                "finish_scoring",
                scoring=scoring,
                tokens=counts["counted"],
                counts=as_json(counts),
                device=device,
                finished_at=now(),
            )

        self._catalog.write(change)
        shutil.rmtree(self._layout.shards(scoring), ignore_errors=True)

    def condense(self) -> None:
        """Write what goes with a segment for the scorings of an earlier version, which have none of it."""
        for row in self._catalog.rows("not_condensed"):
            segment = self._layout.segment(row["scoring"])
            condense(segment)
            for path in (*segment.parent.iterdir(), segment.parent):
                fsync_path(path)
            self._catalog.execute("measure_availability", scoring=row["scoring"], segment=str(segment))

    def _files(self, scoring: str) -> list[Path]:
        """Everything that is kept of a finished scoring."""
        return [self._layout.segment(scoring), self._layout.moved(scoring), self._layout.quiet(scoring)]

    def measured(self, analysis: str) -> bool:
        """Whether the tables `MEASURES` of an analysis and the decisions of every method of today are kept."""
        rows = self._catalog.rows("measurements", analysis=analysis)
        return [row["columns"] for row in rows] == [DECISION_SCHEMA.names]

    def keep_measures(self, analysis: str) -> None:
        """Keep what the worker measured over an analysis (`measures` of the layout) and remove the files."""
        folder, measurement = self._layout.measures(analysis), new_id("m")
        for path in (*(folder / "decisions").iterdir(), folder / "decisions"):
            fsync_path(path)
        (folder / "decisions").rename(self._layout.measurement(measurement))
        fsync_path(self._layout.decisions)

        def change(cursor: Any) -> None:
            self._drop_measurements(cursor, analysis)
            row = {"analysis": analysis, "measurement": measurement, "columns": DECISION_SCHEMA.names}
            insert(cursor, "measurements", [row])
            for name in MEASURES:
                run(cursor, f"delete_{name}", analysis=analysis)
                run(cursor, f"keep_{name}", analysis=analysis, path=str(folder / f"{name}.parquet"))

        self._catalog.write(change)
        shutil.rmtree(folder, ignore_errors=True)

    def set_findings(self, analysis: str, findings: list[Finding]) -> None:
        """Record what the user should know about an analysis that has just been (re)computed."""
        self._catalog.execute("set_analysis_warnings", analysis=analysis, warnings=as_json(findings))

    def delete(self, analysis: str) -> None:
        """Remove an analysis, and the scorings that no other analysis uses."""
        row = self.get(analysis)

        def change(cursor: Any) -> None:
            self.remove(cursor, analysis)
            self.drop_orphans(cursor, row["run_id"])

        self._catalog.write(change)

    def remove(self, cursor: Any, analysis: str) -> None:
        """The analysis's own rows, inside a transaction."""
        self._drop_measurements(cursor, analysis)
        for table in (*MEASURES, "step_summary", "step_metrics", "analysis_scorings", "analysis"):
            run(cursor, f"delete_{table}", analysis=analysis)

    def _drop_measurements(self, cursor: Any, analysis: str) -> None:
        """Forget what the methods decided of an analysis's tokens: the files are unlinked later."""
        for row in run(cursor, "measurements", analysis=analysis):
            self._trash.put(cursor, sorted(self._layout.measurement(row["measurement"]).iterdir()))
        run(cursor, "delete_measurements", analysis=analysis)

    def drop_orphans(self, cursor: Any, run_id: str) -> None:
        """Scorings of a run that no analysis uses: forget the rows, unlink the segments later."""
        for row in run(cursor, "orphan_scorings", run_id=run_id):
            self._trash.put(cursor, [path for path in self._files(row["scoring"]) if path.exists()])
            shutil.rmtree(self._layout.shards(row["scoring"]), ignore_errors=True)
            run(cursor, "delete_noise_floor", scoring=row["scoring"])
            run(cursor, "delete_availability", scoring=row["scoring"])
            run(cursor, "delete_scoring", scoring=row["scoring"])


def merge(shards: list[Path], out: Path) -> None:
    """One Parquet file out of shards, sorted by (sample, position), by DuckDB in bounded memory."""
    spill = out.parent / "spill"
    with duckdb.connect(config={"memory_limit": MERGE_MEMORY, "temp_directory": str(spill)}) as connection:
        listed = ", ".join(f"'{quoted(shard)}'" for shard in shards)
        connection.execute(
            f"COPY (FROM read_parquet([{listed}]) ORDER BY sample_id, position) "
            f"TO '{quoted(out)}' (FORMAT parquet, COMPRESSION lz4_raw)"
        )
    shutil.rmtree(spill, ignore_errors=True)
