"""`lens.duckdb`: what readers see. Built anew beside the old one, then replaced by one rename."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq

from service.layout import SEED, Layout, fsync_path
from service.schemas.decisions import DECISION_SCHEMA
from service.schemas.rollout import ROLLOUT_SCHEMA
from service.schemas.segment import SEGMENT_SCHEMA
from service.store.catalog import Catalog, atomically, named_query, run, script
from service.store.quiet import MOVED_SCHEMA, QUIET_SCHEMA
from service.store.results import Results

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Lens", "attach_new", "seed"]

MACROS = ("bins", "rates", "pairs", "compared", "approximation", "mismatch", "trainer", "response", "run")
RESULT_BYTES = 64 << 20  # of results that are kept
STORAGE_VERSION = "v1.0.0"  # so that older DuckDB clients open what we publish
PARAMETER = re.compile(r"\$(\w+)")


def seed(layout: Layout) -> None:
    """Empty typed files, so that the views exist before there is data: a glob without files fails to bind."""
    segment, piece = layout.segment(SEED), layout.step(SEED, 0) / f"{SEED}.parquet"
    decided = layout.measurement(SEED) / f"{SEED}.parquet"
    for path, schema in (
        (segment, SEGMENT_SCHEMA),
        (layout.moved(SEED), MOVED_SCHEMA),
        (layout.quiet(SEED), QUIET_SCHEMA),
        (piece, ROLLOUT_SCHEMA),
        (decided, DECISION_SCHEMA),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        pq.write_table(schema.empty_table(), temporary)
        temporary.replace(path)


def attach_new(cursor: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    """Attach a new, empty database file in the storage version that older clients read."""
    path.unlink(missing_ok=True)
    cursor.execute(f"ATTACH '{quoted(path)}' AS {name} (STORAGE_VERSION '{STORAGE_VERSION}')")


def quoted(text: str | Path) -> str:
    """Text for the inside of a SQL string literal."""
    return str(text).replace("'", "''")


def _literal(value: str | float | None) -> str:
    """A value as SQL. A number is a DOUBLE as it is when bound: DuckDB reads 0.15 as a DECIMAL."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f"'{quoted(value)}'"
    return f"{value!r}::DOUBLE" if isinstance(value, float) else str(value)


class Lens:
    """Publishes `lens.duckdb` from the catalog and reads what was published last.

    Every publication is a file of its own (`.lens/<n>.duckdb`) that `lens.duckdb` is hard-linked to: within one
    process DuckDB would hand out the old file under the same path for as long as anyone has it open.
    """

    def __init__(self, catalog: Catalog, layout: Layout) -> None:
        self._catalog, self._layout = catalog, layout
        self._numbers = itertools.count(1)
        self._lock, self._publishing = threading.Lock(), threading.Lock()
        self._published: _Publication | None = None
        self._versions = layout.root / ".lens"
        self._versions.mkdir(exist_ok=True)
        for stale in self._versions.iterdir():
            stale.unlink()
        seed(layout)
        self.publish()

    def publish(self) -> None:
        """Make everything that is in the catalog visible to readers, atomically. Returns when it is."""
        with self._publishing:  # else one removes what another is about to open, or puts an older one in its place
            path = self._catalog.exclusive(self._build)
            published = _Publication.of(duckdb.connect(path, read_only=True), self._published)
            with self._lock:
                self._published = published  # the one before is closed when the last who reads it lets go of it
            for version in self._versions.iterdir():
                if version != path:
                    version.unlink(missing_ok=True)  # open cursors keep reading the unlinked file

    def _build(self, cursor: duckdb.DuckDBPyConnection) -> Path:
        path = self._versions / f"{next(self._numbers)}.duckdb"
        attach_new(cursor, path, "lens")
        try:
            cursor.execute("USE lens")
            with atomically(cursor):  # a commit for each of 300 statements would take most of the time
                for name in ("contract", *(f"macros/{name}" for name in MACROS)):
                    cursor.execute(script(name).replace("$data", quoted(self._layout.root.resolve())))
                cursor.execute(script("comments"))
            self._summarise(cursor)
            cursor.execute("CHECKPOINT lens")
        finally:
            cursor.execute("USE catalog")
            cursor.execute("DETACH lens")
        fsync_path(path)
        link = self._versions / "next"
        link.unlink(missing_ok=True)
        os.link(path, link)
        link.replace(self._layout.lens)
        fsync_path(self._layout.root)
        return path

    def _summarise(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Fill `step_summary` and `step_metrics` for steps that are published for the first time."""
        for row in run(cursor, "unsummarised"):
            with atomically(cursor):
                cursor.execute(script("step_summary"), row)
                cursor.execute(script("step_metrics"), row)
            with atomically(cursor):  # one attached database per transaction
                for kept in ("keep_summary", "keep_metrics"):
                    cursor.execute(named_query("catalog_queries", kept), row)
                run(cursor, "mark_summarised", **row)

    def table(self, query: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        """The result of a named query of `sql/views/` over the published tables, as an Arrow table.

        `parameters` may hold more than the query uses: a view's parameters serve every query of its page. The same
        query with the same parameters is run once a publication, as long as its result is kept.
        """
        sql = named_query("views", query)
        wanted = set(PARAMETER.findall(sql))
        used = {name: value for name, value in sorted((parameters or {}).items()) if name in wanted}
        published = self._current()

        def answer() -> pa.Table:
            with published.connection.cursor() as cursor:
                return cursor.sql(sql, params=used).to_arrow_table()

        return published.results.get(_Asked(query, repr(used), published.runs_of(used)), answer)

    @property
    def states(self) -> dict[str, int]:
        """What has been published of each run, as a number that changes with it."""
        return self._current().states

    def text(self, query: str, parameters: dict[str, Any]) -> str:
        """The named query with its parameters written out: what a notebook runs on `lens.duckdb` to get that table."""
        return PARAMETER.sub(lambda found: _literal(parameters[found[1]]), named_query("views", query)) + "\n"

    def _current(self) -> _Publication:
        with self._lock:
            assert self._published is not None
            return self._published

    @contextlib.contextmanager
    def cursor(self) -> Any:
        """A cursor on the newest publication; it stays on that one."""
        with self._current().connection.cursor() as cursor:
            yield cursor

    def close(self) -> None:
        """Close the reader; `lens.duckdb` stays for others."""
        with self._lock:
            if self._published is not None:
                self._published.connection.close()
                self._published = None


@dataclass(frozen=True)
class _Asked:
    """A query with its parameters, and the runs that its answer depends on; None: on any."""

    query: str
    parameters: str
    runs: frozenset[str] | None


@dataclass(frozen=True)
class _Publication:
    """An open publication, and what it has answered. `states`: of each run; `analyses`: the run of each."""

    connection: duckdb.DuckDBPyConnection
    states: dict[str, int]
    analyses: dict[str, str]
    results: Results

    @classmethod
    def of(cls, connection: duckdb.DuckDBPyConnection, before: _Publication | None) -> _Publication:
        """A new publication, with the answers of the one before that are about runs in which nothing has changed."""
        states: dict[str, int] = dict(connection.sql(named_query("views", "run_states")).fetchall())
        analyses: dict[str, str] = dict(connection.sql("SELECT analysis, run FROM analyses").fetchall())

        def same(asked: Hashable) -> bool:
            assert isinstance(asked, _Asked)
            assert before is not None
            if asked.runs is None:
                return False
            return all(run in states and states[run] == before.states.get(run) for run in asked.runs)

        results = Results(RESULT_BYTES) if before is None else before.results.carry(same)
        return cls(connection, states, analyses, results)

    def runs_of(self, parameters: dict[str, Any]) -> frozenset[str] | None:
        """The runs that a query with these parameters reads; None where they do not say."""
        runs = {str(parameters[name]) for name in ("run", "b_run") if name in parameters}
        asked = [parameters[name] for name in ("analysis", "b") if name in parameters]
        if not runs and not asked:
            return None
        if not all(analysis in self.analyses for analysis in asked if analysis is not None):
            return None
        return frozenset(runs | {self.analyses[analysis] for analysis in asked if analysis is not None})
