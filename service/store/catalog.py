"""`catalog.duckdb`: what exists. One process owns it, one thread writes it, any thread reads it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from service.errors import Locked

__all__ = ["Catalog", "Row", "atomically", "named_query", "script"]

SCHEMA_VERSION = 3
MIGRATIONS = {2: "catalog_2", 3: "catalog_3"}  # version → script in sql/ that leads to it

Row = dict[str, Any]
T = TypeVar("T")


def script(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return (files("service.store") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def _queries(place: str) -> dict[str, str]:
    folder = files("service.store") / "sql" / place
    scripts = sorted(f"{place}/{file.name[:-4]}" for file in folder.iterdir()) if folder.is_dir() else [place]
    found: dict[str, str] = {}
    for name in scripts:
        parts = re.split(r"^-- name: (\w+).*$", script(name), flags=re.MULTILINE)
        for query, text in zip(parts[1::2], parts[2::2], strict=True):
            assert query not in found, f"two queries are named {query}"
            found[query] = text.strip()
    return found


def named_query(place: str, name: str) -> str:
    """The query that follows `-- name: <name>` in `sql/<place>.sql`, or in a file of the folder `sql/<place>`."""
    return _queries(place)[name]


def fetch(cursor: duckdb.DuckDBPyConnection) -> list[Row]:
    """All rows of the last statement as dictionaries."""
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


class Catalog:
    """The catalog database of one data directory. Queries are named ones of `sql/catalog_queries.sql`.

    Raises `Locked` when another process holds the file or a newer version of this product wrote it.
    """

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        try:
            self._connection = duckdb.connect(path)
        except duckdb.IOException as error:
            raise Locked(f"cannot open {path}: {error}") from error
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog-writer")
        if fresh:
            self.write(partial(_execute, statements=script("catalog")))
        self._migrate(path)

    def _migrate(self, path: Path) -> None:
        version = int(self.one("schema_version")["value"])
        if version > SCHEMA_VERSION:
            self.close()
            raise Locked(
                f"{path} was written by a newer version of DPPO Lens (schema {version}, this one knows "
                f"{SCHEMA_VERSION}): upgrade with `pip install -U dppo-lens`"
            )
        for target in range(version + 1, SCHEMA_VERSION + 1):
            self.write(partial(_execute, statements=script(MIGRATIONS[target])))

    def rows(self, query: str, **parameters: Any) -> list[Row]:
        """The rows of a named query; `parameters` are its $names."""
        with self._connection.cursor() as cursor:
            cursor.execute(named_query("catalog_queries", query), parameters or None)
            return fetch(cursor)

    def one(self, query: str, **parameters: Any) -> Row:
        """The only row of a named query."""
        (row,) = self.rows(query, **parameters)
        return row

    def write(self, change: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run `change(cursor)` in one transaction on the writer thread and wait for it."""

        def transaction() -> T:
            with self._connection.cursor() as cursor, atomically(cursor):
                return change(cursor)

        return self._writer.submit(transaction).result()

    def execute(self, query: str, **parameters: Any) -> None:
        """Run one named statement that changes something."""
        self.write(lambda cursor: run(cursor, query, **parameters))

    def exclusive(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run `work(cursor)` on the writer thread, so between two writes, without a transaction around it."""

        def alone() -> T:
            with self._connection.cursor() as cursor:
                return work(cursor)

        return self._writer.submit(alone).result()

    def close(self) -> None:
        """Finish what is being written and close the file."""
        self._writer.shutdown(wait=True)
        self._connection.close()


@contextlib.contextmanager
def atomically(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """One transaction: all of it, or nothing."""
    cursor.begin()
    try:
        yield
    except BaseException:
        cursor.rollback()
        raise
    cursor.commit()


def _execute(cursor: duckdb.DuckDBPyConnection, statements: str) -> None:
    cursor.execute(statements)


def run(cursor: duckdb.DuckDBPyConnection, query: str, **parameters: Any) -> list[Row]:
    """A named query of `sql/catalog_queries.sql` on a cursor inside a transaction."""
    cursor.execute(named_query("catalog_queries", query), parameters or None)
    return fetch(cursor)


def insert(cursor: duckdb.DuckDBPyConnection, table: str, rows: list[Row]) -> None:
    """Insert rows given as dictionaries; `table` and the keys are our own names, never input."""
    for row in rows:
        columns, marks = ", ".join(row), ", ".join("?" for _ in row)
        cursor.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values()))  # noqa: S608


def as_json(value: Any) -> str:
    """Compact JSON text for a VARCHAR column."""
    return json.dumps(value, separators=(",", ":"))
