"""`LocalClient`: a data directory read without a service, or beside one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.client import Client
from service.layout import Layout

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["LocalClient"]

OWNER = re.compile(r"PID (\d+) at (\S+)")


class LocalClient:
    """Reads `lens.duckdb` of a data directory, read-only; needs duckdb, not the service.

    It sees what was published when it was opened; `refresh()` sees what was published since. `connection` is DuckDB's
    own, for `.sql(…).df()`, `.pl()` and the macros `keep_ppo` and `keep_dppo`. The directory may have been moved.
    """

    def __init__(self, data_dir: Path) -> None:
        self.layout = Layout(data_dir.resolve())
        self.connection = self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        if not self.layout.lens.is_file():
            raise FileNotFoundError(f"{self.layout.root} holds no lens.duckdb; is it the --data-dir of `dppo serve`?")
        connection = duckdb.connect(self.layout.lens, read_only=True)
        connection.execute(f"SET VARIABLE dppo_data = '{str(self.layout.root).replace(chr(39), 2 * chr(39))}'")
        return connection

    def refresh(self) -> None:
        """See what was published since; results that were fetched stay."""
        self.connection.close()  # DuckDB would hand out the file it has open
        self.connection = self._open()

    def sql(self, statement: str, parameters: list[Any] | dict[str, Any] | None = None) -> pa.Table:
        """The result of a SELECT over the contract's tables, as Arrow."""
        return self.connection.sql(statement, params=parameters).to_arrow_table()

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first."""
        return list(self.sql("FROM runs ORDER BY created_at DESC").to_pylist())

    def analyses(self, run: str) -> list[dict[str, Any]]:
        """A run's analyses, newest first."""
        statement = "FROM analyses WHERE run = $run ORDER BY created_at DESC"
        return list(self.sql(statement, {"run": run}).to_pylist())

    def table(self, analysis: str, name: str) -> pa.Table:
        """What one of the contract's tables (tokens, step_summary, bounds, …) holds of an analysis, as Arrow."""
        known = self.sql("SELECT table_name FROM duckdb_columns() WHERE column_name = 'analysis' AND NOT internal")
        names = sorted({str(each) for each in known["table_name"].to_pylist() if not str(each).startswith("_")})
        if name not in names:
            raise ValueError(f"there is no table {name!r} of analyses; there are {', '.join(names)}")
        return self.sql(f'FROM "{name}" WHERE analysis = $analysis', {"analysis": analysis})

    def rollouts(self, run: str) -> pa.Table:
        """A run's responses, as Arrow."""
        return self.sql("FROM rollouts WHERE run = $run", {"run": run})

    def service(self, token: str | None = None) -> Client | None:
        """A client of the service that runs on this directory, None if none does. It has figures and takes uploads."""
        try:
            owner = OWNER.match(self.layout.lock.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if owner is None or not _runs(int(owner[1])):
            return None
        host, _, port = owner[2].rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 compared, not bound
        return Client(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", token)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
