"""Responses that several versions of the policy sampled."""

from __future__ import annotations

import numpy as np

from service.ingest.columns import Columns
from service.ingest.findings.finding import Finding, Sightings, many

__all__ = ["SeveralVersions"]


class SeveralVersions:
    """Responses whose `policy_version` differs between tokens."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._span = 0

    def observe(self, columns: Columns) -> None:
        column = columns.lists.get("policy_version")
        if column is None or column.values.size == 0 or column.values.min() == column.values.max():
            return
        rows = np.flatnonzero(column.present)
        starts = column.offsets[rows]
        span = np.maximum.reduceat(column.values, starts) - np.minimum.reduceat(column.values, starts)
        self._seen.in_rows(columns, rows[span > 0], "policy_version")
        self._span = max(self._span, int(span.max()))

    def findings(self) -> list[Finding]:
        if not self._seen.count:
            return []
        message = (
            f"{many(self._seen.count, 'response', 'were')} sampled by several policy versions (policy_version spans up "
            f"to {self._span}): the weights changed while they were written, so no one checkpoint is their μ."
        )
        return [Finding.of("several_policy_versions", "note", message, self._seen)]
