"""Deleted files stay where they are for an hour, so that a reader with an older `lens.duckdb` finishes its query.

They are invisible at once, since the views join what the catalog lists; moving them would pull them from under a
query that has already listed its files.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.store.catalog import Catalog, insert, run
from service.store.runs import now

__all__ = ["Trash"]


class Trash:
    """What is to be unlinked later."""

    def __init__(self, catalog: Catalog, keep_seconds: float) -> None:
        self._catalog, self._keep = catalog, timedelta(seconds=keep_seconds)

    def put(self, cursor: Any, paths: list[Path]) -> None:
        """Mark files as deleted, in the transaction that makes them invisible."""
        insert(cursor, "trash", [{"path": str(path), "since": now()} for path in paths])

    def rescue(self, path: Path) -> None:
        """A file with the same content is about to be used again."""
        self._catalog.execute("forget_trash", path=str(path))

    def sweep(self) -> None:
        """Unlink what was deleted long enough ago. On the writer thread, so that nothing is rescued meanwhile."""

        def unlink(cursor: Any) -> None:
            for row in run(cursor, "trash", before=now() - self._keep):
                path = Path(row["path"])
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    path.parent.rmdir()  # only when empty
                run(cursor, "forget_trash", path=row["path"])

        self._catalog.exclusive(unlink)
