"""Responses that several versions of the policy sampled."""

from __future__ import annotations

from typing import Any

import numpy as np

from service.ingest.columns import Columns
from service.ingest.findings.finding import Finding, Sightings, many
from service.ingest.findings.told import told

__all__ = ["SeveralVersions"]


class SeveralVersions:
    """Responses whose `policy_version` differs between tokens, or whose log states a span of versions for the whole."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._span = 0

    def observe(self, columns: Columns) -> None:
        self._of_tokens(columns)
        spans = [(row, span[1] - span[0]) for row, span in told(columns, "policy_versions") if _is_span(span)]
        self._seen.in_rows(columns, np.array([row for row, _ in spans], np.int64), "meta.policy_versions")
        self._span = max(self._span, *(span for _, span in spans), 0)

    def _of_tokens(self, columns: Columns) -> None:
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
            f"{many(self._seen.count, 'response', 'were')} sampled by several policy versions (up to {self._span} apart"
            "): the weights changed while they were written, so no one checkpoint is their μ. policy_version is null "
            "where the log does not say which token is whose."
        )
        return [Finding.of("several_policy_versions", "note", message, self._seen)]


def _is_span(span: list[Any]) -> bool:
    return len(span) == 2 and all(type(version) is int for version in span) and span[0] < span[1]
