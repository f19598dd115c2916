"""All checks of one file."""

from __future__ import annotations

from typing import Any

from service.ingest.columns import Columns
from service.ingest.findings.finding import Check, Witness
from service.ingest.findings.groups import GroupChecks
from service.ingest.findings.logprobs import CopiedLogprobs, ImpossibleLogprobs, ZeroLogprobs
from service.ingest.findings.masks import NoMask, UnknownRuns, UnmaskedTurns
from service.ingest.findings.order import StepOrder
from service.ingest.findings.records import Approximate, LeftOut, SummedRewards, UnknownFields
from service.ingest.findings.roles import PromptInResponse, RoleHeaders
from service.ingest.findings.text import LoggedText
from service.ingest.findings.toplists import SampledInLists, UnsortedLists
from service.ingest.findings.truncation import Truncation
from service.ingest.findings.versions import SeveralVersions
from service.ingest.task import Task

__all__ = ["Report"]


class Report:
    """Hears of a file while it is read, and says what was found."""

    def __init__(self, task: Task) -> None:
        self.left_out = LeftOut()
        self.unknown = UnknownFields()
        self._checks: list[Check] = [
            Approximate(),
            SummedRewards(),
            NoMask(),
            UnmaskedTurns(),
            UnknownRuns(),
            RoleHeaders(),
            PromptInResponse(),
            ZeroLogprobs(task.sampling),
            ImpossibleLogprobs(),
            CopiedLogprobs(),
            UnsortedLists(),
            SampledInLists(),
            Truncation(task.sampling),
            StepOrder(),
            GroupChecks(),
            SeveralVersions(),
            LoggedText(task.tokenizer),
        ]

    def observe(self, columns: Columns) -> None:
        """Some rows of the file, checked and settled."""
        for check in self._checks:
            check.observe(columns)

    def result(self) -> dict[str, list[dict[str, Any]]]:
        """`warnings` and `notes`, each by code: code, level, message, count and a few examples."""
        witnesses: list[Witness] = [self.left_out, self.unknown, *self._checks]
        found = [one for witness in witnesses for one in witness.findings()]
        found.sort(key=lambda one: one.code)
        return {f"{level}s": [one.plain() for one in found if one.level == level] for level in ("warning", "note")}
