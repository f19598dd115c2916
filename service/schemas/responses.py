"""What the REST API answers with."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from service.schemas.findings import by_level, messages
from service.schemas.methods import THRESHOLDS

__all__ = ["AnalysisOut", "CheckpointOut", "JobOut", "Progress", "RunOut", "StepOut", "UploadOut"]

Row = dict[str, Any]


class RunOut(BaseModel):
    """A run."""

    run: str
    created_at: datetime
    framework: str | None
    sampling: dict[str, Any]
    tokenizer: str | None
    meta: dict[str, Any]
    n_steps: int
    n_rollouts: int
    n_tokens: int
    n_checkpoints: int
    n_analyses: int

    @classmethod
    def of(cls, row: Row) -> RunOut:
        """From a catalog row."""
        return cls(**{**row, "sampling": json.loads(row["sampling"]), "meta": json.loads(row["meta"])})


class CheckpointOut(BaseModel):
    """A registered checkpoint: the policy before `step`."""

    checkpoint: str
    run: str
    step: int
    label: str | None
    path: str
    adapter: str | None
    fingerprint: str
    created_at: datetime
    warnings: list[str]

    @classmethod
    def of(cls, row: Row) -> CheckpointOut:
        """From a catalog row."""
        return cls(**{**row, "warnings": json.loads(row["warnings"])})


class UploadOut(BaseModel):
    """What one upload brought. `warnings` likely change results, `notes` are worth knowing; both hold findings:
    {code, level, message, count, examples}."""

    upload: str
    run: str
    created_at: datetime
    filename: str | None
    bytes: int
    sha256: str
    format: str
    rollouts: int
    tokens: int
    skipped: int
    steps: list[int]
    visible: bool
    warnings: list[dict[str, Any]]
    notes: list[dict[str, Any]]

    @classmethod
    def of(cls, row: Row) -> UploadOut:
        """From a catalog row."""
        return cls(**{**row, **by_level(row["warnings"])})


class StepOut(BaseModel):
    """One step of an analysis."""

    step: int
    scoring: str
    old_checkpoint: str | None
    new_checkpoint: str | None
    span: int | None
    finished: bool
    tokens: int | None
    device: str | None


class AnalysisOut(BaseModel):
    """An analysis: which steps, under which pair, at which thresholds."""

    analysis: str
    run: str
    created_at: datetime
    source: Literal["scored", "logged"]
    anchor: Literal["rollout", "old"]
    evaluated_at: Literal["start", "end", "logged"]
    thresholds: dict[str, float | None]
    top_k: int
    topk_mode: str
    dtype: str
    stale: bool
    warnings: list[str]
    notes: list[str]
    skipped_steps: list[dict[str, Any]]
    n_steps: int
    n_finished: int
    steps: list[StepOut] = []

    @classmethod
    def of(cls, row: Row, steps: list[Row] | None = None) -> AnalysisOut:
        """From a catalog row and the rows of its steps."""
        return cls(
            **{
                **row,
                "thresholds": {name: row[name] for name in THRESHOLDS},
                "warnings": messages("warning", row["warnings"]),
                "notes": messages("note", row["warnings"]),
                "skipped_steps": json.loads(row["skipped_steps"]),
                "steps": [StepOut(**step) for step in steps or []],
            }
        )


class Progress(BaseModel):
    """How far a job is; `heartbeat` is the time of its last sign of life. `unit`: tokens, or bytes for an import."""

    tokens_done: int
    tokens_total: int | None
    heartbeat: datetime | None
    unit: Literal["tokens", "bytes"]


class JobOut(BaseModel):
    """A job. `error` is a problem document (RFC 9457)."""

    id: str
    kind: str
    run: str | None
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created_at: datetime
    finished_at: datetime | None
    progress: Progress
    warnings: list[str]
    error: dict[str, Any] | None
    result: dict[str, Any] | None
