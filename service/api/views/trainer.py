"""The trainer's own mask, where the log has it, against every method's."""

from __future__ import annotations

from service.api.views.registry import Table
from service.schemas.view import TrainerView

__all__ = ["TABLES"]

TABLES = {
    "trainer_agreement": Table(
        "What the trainer and each method drop, by sign of A, and how it differs", "trainer_agreement", TrainerView
    ),
    "trainer_differences": Table(
        "The tokens that the trainer and DPPO decide differently, and why", "trainer_differences", TrainerView
    ),
}
