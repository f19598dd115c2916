"""Uploads: what arrived, for which steps, and which pieces of it are visible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from service.errors import NotFound
from service.ids import content_id
from service.layout import Layout, fsync_path
from service.schemas.findings import Finding
from service.store.catalog import Catalog, Row, as_json, insert, run
from service.store.runs import now
from service.store.trash import Trash

__all__ = ["Uploads"]


class Uploads:
    """The rows of an upload are visible exactly while the catalog lists its steps."""

    def __init__(self, catalog: Catalog, layout: Layout, trash: Trash) -> None:
        self._catalog, self._layout, self._trash = catalog, layout, trash

    def of_run(self, run_id: str) -> list[Row]:
        """A run's uploads, oldest first."""
        return self._catalog.rows("uploads", run_id=run_id, upload=None)

    def get(self, upload: str) -> Row:
        """One upload by id."""
        rows = self._catalog.rows("uploads", run_id=None, upload=upload)
        if not rows:
            raise NotFound(f"there is no upload {upload!r}")
        return rows[0]

    def complete(self, upload: str) -> Row | None:
        """The upload if all that it brought is still visible (none of its steps was replaced), else None."""
        rows = self._catalog.rows("uploads", run_id=None, upload=upload)
        if not rows:
            return None
        visible = sum(step["rollouts"] for step in self._catalog.rows("upload_steps", run_id=None, upload=upload))
        return rows[0] if visible == rows[0]["rollouts"] else None

    def steps(self, run_id: str) -> dict[int, Row]:
        """Each step of a run: its content id, counts and the Parquet pieces that hold it."""
        steps: dict[int, Row] = {}
        for row in self._catalog.rows("upload_steps", run_id=run_id, upload=None):
            step = steps.setdefault(
                row["step"],
                {"step": row["step"], "contents": [], "rollouts": 0, "tokens": 0, "counted_tokens": 0, "pieces": []},
            )
            step["contents"].append(row["content"])
            for count in ("rollouts", "tokens", "counted_tokens"):
                step[count] += row[count]
            folder = self._layout.step(run_id, row["step"])
            step["pieces"] += [str(folder / piece) for piece in row["pieces"]]
        for step in steps.values():
            step["content"] = content_id("s", sorted(step.pop("contents")))
        return steps

    def pieces(self, upload: str) -> list[str]:
        """The visible pieces that came with an upload."""
        return [
            str(self._layout.step(row["run_id"], row["step"]) / piece)
            for row in self._catalog.rows("upload_steps", run_id=None, upload=upload)
            for piece in row["pieces"]
        ]

    def pieces_by_step(self, run_id: str, besides: str) -> dict[int, list[str]]:
        """The visible pieces of each step that did not come with the upload `besides`."""
        pieces: dict[int, list[str]] = {}
        for row in self._catalog.rows("upload_steps", run_id=run_id, upload=None):
            if row["upload"] != besides:
                folder = self._layout.step(run_id, row["step"])
                pieces.setdefault(row["step"], []).extend(str(folder / piece) for piece in row["pieces"])
        return pieces

    def add(self, run_id: str, upload: Row, manifest: dict[str, Any], staging: Path, *, replace: bool) -> None:
        """Move checked pieces into place and make them visible in one transaction."""
        for step in manifest["steps"]:
            folder = self._layout.step(run_id, step["step"])
            folder.mkdir(parents=True, exist_ok=True)
            for piece in step["pieces"]:
                self._trash.rescue(folder / piece["file"])
                (staging / piece["file"]).replace(folder / piece["file"])
            fsync_path(folder)
        row = {
            **upload,
            "run_id": run_id,
            "created_at": now(),
            "format": manifest["format"],
            "rollouts": manifest["rollouts"] - manifest["skipped"],
            "tokens": manifest["tokens"],
            "skipped": manifest["skipped"],
            "warnings": as_json(manifest["warnings"] + manifest["notes"]),
        }
        steps = [
            {
                "upload": upload["upload"],
                "run_id": run_id,
                "step": step["step"],
                "content": step["content"],
                "rollouts": step["rollouts"],
                "tokens": step["tokens"],
                "counted_tokens": step["counted_tokens"],
                "pieces": [piece["file"] for piece in step["pieces"]],
            }
            for step in manifest["steps"]
        ]

        pieces = [str(self._layout.step(run_id, step["step"]) / piece) for step in steps for piece in step["pieces"]]

        def change(cursor: Any) -> None:
            run(cursor, "delete_upload", upload=upload["upload"])
            if replace:
                for step in steps:
                    self._drop_step(cursor, run_id, step["step"], keep={piece for s in steps for piece in s["pieces"]})
            run(cursor, "delete_upload_steps", upload=upload["upload"])
            insert(cursor, "uploads", [row])
            insert(cursor, "upload_steps", steps)
            if steps:
                run(cursor, "measure_rewards", upload=upload["upload"], pieces=pieces)
            for step in steps:
                run(cursor, "mark_stale", run_id=run_id, step=step["step"])

        self._catalog.write(change)
        shutil.rmtree(staging, ignore_errors=True)

    def replace_findings(self, uploads: list[str], findings: list[Finding]) -> None:
        """Keep what a check found in these uploads, instead of what the same check (`source`) found in that `step`."""
        checks = {(finding["source"], finding.get("step")) for finding in findings}

        def change(cursor: Any) -> None:
            for upload in uploads:
                for row in run(cursor, "uploads", run_id=None, upload=upload):
                    others = [
                        finding
                        for finding in json.loads(row["warnings"])
                        if (finding.get("source"), finding.get("step")) not in checks
                    ]
                    run(cursor, "set_upload_warnings", upload=upload, warnings=as_json(others + findings))

        self._catalog.write(change)

    def _drop_step(self, cursor: Any, run_id: str, step: int, keep: set[str]) -> None:
        for row in run(cursor, "upload_steps", run_id=run_id, upload=None):
            if row["step"] == step:
                folder = self._layout.step(run_id, step)
                self._trash.put(cursor, [folder / piece for piece in row["pieces"] if piece not in keep])
        run(cursor, "delete_upload_step", run_id=run_id, step=step)

    def delete(self, upload: str) -> None:
        """Take an upload's rows away; analyses of its steps become stale."""
        row = self.get(upload)

        def change(cursor: Any) -> None:
            for step in run(cursor, "upload_steps", run_id=None, upload=upload):
                folder = self._layout.step(row["run_id"], step["step"])
                self._trash.put(cursor, [folder / piece for piece in step["pieces"]])
                run(cursor, "mark_stale", run_id=row["run_id"], step=step["step"])
            run(cursor, "delete_upload_steps", upload=upload)
            run(cursor, "delete_upload", upload=upload)

        self._catalog.write(change)

    def sweep(self) -> None:
        """Unlink pieces that no upload lists: a crash between the move and the transaction left them."""
        known = {
            str(self._layout.step(row["run_id"], row["step"]) / piece)
            for row in self._catalog.rows("upload_steps", run_id=None, upload=None)
            for piece in row["pieces"]
        } | {row["path"] for row in self._catalog.rows("trash_all")}
        for path in self._layout.rollouts.glob("r*/*/*.parquet"):
            if str(path) not in known:
                path.unlink()
