"""Every table and figure of an analysis by name: what REST serves, what pages show, what a download holds."""

from __future__ import annotations

from service.api.views import (
    approximation,
    compare,
    disagreement,
    measured,
    methods,
    mismatch,
    overview,
    response,
    tokens,
    trainer,
)
from service.api.views.registry import Figure, Table

__all__ = ["FIGURES", "RUN_FIGURES", "RUN_TABLES", "TABLES"]

TABLES: dict[str, Table] = {}
FIGURES: dict[str, Figure] = {}
for module in (disagreement, overview, compare, response, tokens, approximation, mismatch, methods, trainer, measured):
    assert not TABLES.keys() & module.TABLES.keys()
    TABLES |= module.TABLES
    FIGURES |= getattr(module, "FIGURES", {})
RUN_FIGURES, RUN_TABLES = overview.FIGURES, overview.TABLES
