"""Every table and figure of an analysis by name: what REST serves, what pages show, what a download holds."""

from __future__ import annotations

from service.api.views import disagreement, measured, methods, overview, response, tokens, trainer
from service.api.views.registry import Figure, Table

__all__ = ["FIGURES", "RUN_FIGURES", "TABLES"]

TABLES: dict[str, Table] = {}
FIGURES: dict[str, Figure] = {}
for module in (disagreement, overview, response, tokens, methods, measured, trainer):
    assert not TABLES.keys() & module.TABLES.keys()
    TABLES |= module.TABLES
for module in (disagreement, overview, response, tokens, methods):
    FIGURES |= module.FIGURES
RUN_FIGURES = overview.FIGURES
