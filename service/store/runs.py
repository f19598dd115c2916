"""Runs and their checkpoints in the catalog."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service.errors import Conflict, NotFound
from service.ids import content_id, new_id
from service.store.catalog import Catalog, Row, as_json, insert
from service.store.checkpoints import Inspected

__all__ = ["Checkpoints", "Runs", "now"]


def now() -> datetime:
    """UTC without a zone, as the catalog keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Runs:
    """Runs by name; the id in paths never shows a name."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def create(
        self, run: str, framework: str | None, sampling: dict[str, Any], tokenizer: str | None, meta: dict[str, Any]
    ) -> Row:
        """A new run; `Conflict` where the name is taken."""
        if self._catalog.rows("runs", run=run):
            raise Conflict(f"run {run!r} exists; choose another name or delete it first")
        row = {
            "run_id": new_id("r"),
            "run": run,
            "created_at": now(),
            "framework": framework,
            "temperature": sampling["temperature"],
            "top_p": sampling["top_p"],
            "top_k": sampling["top_k"],
            "logprobs_mode": sampling["logprobs_mode"],
            "sampling": as_json(sampling),
            "tokenizer": tokenizer,
            "meta": as_json(meta),
        }
        self._catalog.write(lambda cursor: insert(cursor, "runs", [row]))
        return self.get(run)

    def all(self) -> list[Row]:
        """Every run, newest first."""
        return self._catalog.rows("runs", run=None)

    def get(self, run: str) -> Row:
        """One run by name."""
        rows = self._catalog.rows("runs", run=run)
        if not rows:
            raise NotFound(f"there is no run {run!r}")
        return rows[0]


class Checkpoints:
    """Registered checkpoints: where a policy's weights lie, and what they were when they were registered."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add(self, run_id: str, step: int, label: str | None, found: Inspected) -> Row:
        """Register what was inspected as the policy before `step`. The same again is the same checkpoint."""
        checkpoint = content_id("c", [run_id, step, found.path, found.adapter, found.fingerprint])
        row = {
            "checkpoint": checkpoint,
            "run_id": run_id,
            "created_at": now(),
            "step": step,
            "label": label,
            "path": found.path,
            "adapter": found.adapter,
            "fingerprint": found.fingerprint,
            "base_fingerprint": found.base_fingerprint,
            "adapter_fingerprint": found.adapter_fingerprint,
            "vocab_size": found.vocab_size,
            "max_positions": found.max_positions,
            "warnings": as_json(found.warnings),
        }
        known = self._catalog.rows("checkpoints", run_id=run_id, checkpoint=checkpoint)
        if not known:
            self._catalog.write(lambda cursor: insert(cursor, "checkpoints", [row]))
        return self.get(checkpoint)

    def of_run(self, run_id: str) -> list[Row]:
        """A run's checkpoints by step."""
        return self._catalog.rows("checkpoints", run_id=run_id, checkpoint=None)

    def get(self, checkpoint: str) -> Row:
        """One checkpoint by id."""
        rows = self._catalog.rows("checkpoints", run_id=None, checkpoint=checkpoint)
        if not rows:
            raise NotFound(f"there is no checkpoint {checkpoint!r}")
        return rows[0]

    def delete(self, checkpoint: str) -> None:
        """Forget a registration; the files stay, and so do the analyses that used it."""
        self.get(checkpoint)
        self._catalog.execute("delete_checkpoint", checkpoint=checkpoint)
