"""The store: one data directory, owned by one process."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from service.errors import Locked
from service.layout import Layout
from service.settings import Settings
from service.store.analyses import Analyses
from service.store.catalog import Catalog, run
from service.store.lens import Lens
from service.store.runs import Checkpoints, Runs
from service.store.trash import Trash
from service.store.uploads import Uploads

__all__ = ["Store"]


class Store:
    """Everything that is kept. Opening it takes the data directory's lock; `close` gives it back.

    Raises `Locked`, naming the owner's PID and address, when another process has the directory.
    """

    def __init__(self, settings: Settings) -> None:
        self.layout = Layout(settings.data_dir.resolve())
        self.layout.create()
        self._lock = _take_lock(self.layout.lock, f"{settings.host}:{settings.port}")
        try:
            self.catalog = Catalog(self.layout.catalog)
        except Exception:
            os.close(self._lock)
            raise
        self.trash = Trash(self.catalog, settings.trash_seconds)
        self.runs = Runs(self.catalog)
        self.checkpoints = Checkpoints(self.catalog)
        self.uploads = Uploads(self.catalog, self.layout, self.trash)
        self.analyses = Analyses(self.catalog, self.layout, self.trash)
        self.uploads.sweep()
        self.trash.sweep()
        self.analyses.condense()
        self.lens = Lens(self.catalog, self.layout)

    def delete_run(self, name: str) -> None:
        """Remove a run with everything below it."""
        row = self.runs.get(name)
        run_id = row["run_id"]

        def change(cursor: Any) -> None:
            for analysis in run(cursor, "analyses", run_id=run_id, analysis=None):
                self.analyses.remove(cursor, analysis["analysis"])
            self.analyses.drop_orphans(cursor, run_id)
            for step in run(cursor, "upload_steps", run_id=run_id, upload=None):
                folder = self.layout.step(run_id, step["step"])
                self.trash.put(cursor, [folder / piece for piece in step["pieces"]])
            for statement in (
                "delete_upload_steps_of_run",
                "delete_uploads_of_run",
                "delete_checkpoints_of_run",
                "delete_jobs_of_run",
                "delete_run",
            ):
                run(cursor, statement, run_id=run_id)

        self.catalog.write(change)
        self.lens.publish()

    def free_bytes(self) -> int:
        """Disk space left where the data directory lies."""
        return shutil.disk_usage(self.layout.root).free

    def close(self) -> None:
        """Close the databases and give the lock back."""
        self.lens.close()
        self.catalog.close()
        os.close(self._lock)


def _take_lock(path: Path, address: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise Locked(
            f"{path.parent} is in use by another `dppo serve` ({owner or 'unknown PID'}); "
            "stop it or choose another --data-dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"PID {os.getpid()} at {address}\n".encode(), 0)
    return descriptor
