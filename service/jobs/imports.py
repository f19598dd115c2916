"""Import jobs: check an uploaded file in a child process and make its rollouts visible, all or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from service.jobs.jobs import Job
from service.jobs.masks import trainer_mask
from service.process import Child, Message
from service.schemas.findings import by_level
from service.settings import Settings
from service.store.store import Store

__all__ = ["Importer"]

INGEST_MEMORY = 2 << 30


class Importer:
    """Does the work of jobs of kind `import`."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings

    def run(self, job: Job) -> dict[str, Any]:
        """The job's request: upload, path, filename, bytes, sha256, format, step, replace."""
        request, run_id = job.request, str(job.run_id)
        incoming = Path(request["path"])
        known = self._store.uploads.complete(request["upload"])
        if known is None:
            staging = incoming.with_suffix(".pieces")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            try:
                manifest = self._check(job, incoming, staging)
                job.checkpoint()
                upload = {name: request[name] for name in ("upload", "filename", "bytes", "sha256")}
                self._store.uploads.add(run_id, upload, manifest, staging, replace=request["replace"])
                self._store.lens.publish()
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        incoming.unlink(missing_ok=True)
        self._compare_masks(request["upload"], str(job.run))
        row = self._store.uploads.get(request["upload"])
        return {
            "upload": row["upload"],
            "rollouts": row["rollouts"],
            "skipped": row["skipped"],
            **by_level(row["warnings"]),
        }

    def discard(self, job: Job) -> None:
        """Nothing is kept of a file that was refused."""
        Path(job.request["path"]).unlink(missing_ok=True)

    def sweep(self, active: list[Job]) -> None:
        """Remove bodies that no job waits for: a crash while they arrived left them."""
        wanted = {job.request.get("path") for job in active}
        for path in self._store.layout.incoming.glob("*.body"):
            if str(path) not in wanted:
                path.unlink()

    def _compare_masks(self, upload: str, run: str) -> None:
        """Keep with the upload how the trainer's own mask, if it has one, compares with ours."""
        store = self._store
        frameworks = store.uploads.get(upload)["format"], store.runs.get(run)["framework"]
        found = trainer_mask(store.lens, store.uploads.pieces(upload), *frameworks)
        if found:
            store.uploads.replace_findings([upload], found)

    def _check(self, job: Job, incoming: Path, staging: Path) -> Message:
        settings, request = self._settings, job.request
        existing = self._store.uploads.pieces_by_step(str(job.run_id), besides=request["upload"])
        run = self._store.runs.get(str(job.run))
        child = Child("service.ingest")
        job.on_stop = child.kill

        def on_event(event: Message) -> None:
            job.progress(event["bytes_done"], event["bytes_total"])

        try:
            return child.call(
                {
                    "path": str(incoming),
                    "out_dir": str(staging),
                    "upload": request["upload"],
                    "format": request["format"],
                    "step": request["step"],
                    "replace": request["replace"],
                    "tokenizer": run["tokenizer"],
                    "sampling": {name: run[name] for name in ("top_p", "top_k", "logprobs_mode")},
                    "existing": {str(step): pieces for step, pieces in existing.items()},
                    "limits": {
                        "line_bytes": settings.max_line_bytes,
                        "expanded_bytes": settings.max_expanded_bytes,
                        "expansion": settings.max_expansion,
                        "memory_bytes": INGEST_MEMORY,
                    },
                },
                on_event,
            )
        finally:
            job.on_stop = None
            child.kill()
