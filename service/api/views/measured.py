"""What was measured once for an analysis and is read as it stands."""

from __future__ import annotations

from service.api.views.registry import Table

__all__ = ["TABLES"]

TABLES = {
    "step_summary": Table("One row a step and sign of A, as in SQL", "step_summary"),
    "step_metrics": Table("One row a step, all signs of A together, as in SQL", "step_metrics"),
    "noise_floor": Table("How far two scorings of OLD lie apart, by step", "noise_floor"),
    "method_agreement": Table("How often two methods decide alike", "method_agreement"),
    "method_rates": Table("How many tokens each method drops, by step and sign of A", "method_rates"),
    "pipo": Table("PIPO's improvement of the mean reward, by step", "pipo"),
    "bounds": Table("Theorem 3.1, Eq. 7 and Eq. 8, by step", "bounds"),
}
