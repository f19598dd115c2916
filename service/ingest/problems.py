"""What is wrong with a file: collected in full per record, reported up to a limit, raised once."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import BadRecord, Conflict, FieldError, LensError

__all__ = ["MAX_ERRORS", "Problems"]

MAX_ERRORS = 20


class Problems:
    """The errors of one file. Reading may stop once `full`."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []
        self._conflicts: list[FieldError] = []
        self._conflict_count = 0
        self.stopped_at: int | None = None

    def __bool__(self) -> bool:
        return bool(self._errors) or self._conflict_count > 0

    @property
    def full(self) -> bool:
        return len(self._errors) >= MAX_ERRORS

    def add(self, errors: Sequence[FieldError]) -> None:
        """Errors of the file itself."""
        self._errors.extend(errors)

    def conflict(self, error: FieldError) -> None:
        """A record that is already there with other content: all are counted, the first are kept."""
        self._conflict_count += 1
        if len(self._conflicts) < MAX_ERRORS:
            self._conflicts.append(error)

    def error(self) -> LensError:
        """The exception that says it all: `BadRecord`, or `Conflict` where the file in itself is fine."""
        if self._errors:
            errors = sorted(self._errors, key=lambda error: error.line or 0)
            return BadRecord(self._summary(errors), errors[:MAX_ERRORS])
        count = self._conflict_count
        what = "1 record is" if count == 1 else f"{count} records are"
        return Conflict(
            f"{what} already there with other content{_shown(count)}. Upload with replace=step to replace the whole "
            "of each step that the file names, or give the records other sample_ids.",
            self._conflicts,
        )

    def _summary(self, errors: list[FieldError]) -> str:
        if self.stopped_at is not None:
            return f"The first {MAX_ERRORS} errors; reading stopped at line {self.stopped_at}, there may be more."
        if len(errors) == 1:
            where = "" if errors[0].line is None else f"line {errors[0].line}: "
            return f"1 error: {where}{errors[0].message}"
        return f"{len(errors)} errors{_shown(len(errors))}."


def _shown(count: int) -> str:
    return f"; the first {MAX_ERRORS} are shown, {count - MAX_ERRORS} are not" if count > MAX_ERRORS else ""
