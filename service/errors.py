"""Every error this product raises on purpose, in one tree.

    LensError                 500
    ├── Invalid               422  something in a request or a file is wrong; `errors` says where
    │   └── BadRecord         422  an uploaded file is refused; up to 20 errors with line and field
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    ├── Conflict              409  already there, with other content
    ├── TooLarge              413
    ├── UnsupportedMedia      415
    ├── WrongHost             421
    ├── TooMany               429  the queue is full
    ├── StatementRefused      400  the SQL gate says no
    ├── LimitReached          422  a statement ran into its time, memory, row or byte limit
    ├── DiskFull              507
    ├── WorkerFailed          500  a child process died or could not do what it was asked
    └── Locked                500  the data directory is not ours to open (start-up only)

`service.api` turns each into an RFC 9457 problem document; jobs store the same document in `error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

__all__ = [
    "BadRecord",
    "Conflict",
    "DiskFull",
    "FieldError",
    "Forbidden",
    "Invalid",
    "LensError",
    "LimitReached",
    "Locked",
    "NotFound",
    "StatementRefused",
    "TooLarge",
    "TooMany",
    "Unauthorized",
    "UnsupportedMedia",
    "WorkerFailed",
    "WrongHost",
    "from_problem",
]


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong: `line` is 1-based (a row number for Parquet), `field` a JSON path without `$`."""

    message: str
    line: int | None = None
    field: str | None = None


class LensError(Exception):
    """An error with an HTTP status, a short title and a sentence that says what to do."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)

    def problem(self) -> dict[str, Any]:
        """The RFC 9457 problem document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [asdict(error) for error in self.errors]
        return document


class Invalid(LensError):
    status, title = 422, "Invalid request"


class BadRecord(Invalid):
    title = "The file was refused; nothing of it was imported"


class Unauthorized(LensError):
    status, title = 401, "Not authorised"


class Forbidden(LensError):
    status, title = 403, "Forbidden"


class NotFound(LensError):
    status, title = 404, "Not found"


class Conflict(LensError):
    status, title = 409, "Conflict"


class TooLarge(LensError):
    status, title = 413, "Too large"


class UnsupportedMedia(LensError):
    status, title = 415, "Unsupported content type"


class WrongHost(LensError):
    status, title = 421, "Wrong host"


class TooMany(LensError):
    status, title = 429, "Too many jobs"


class StatementRefused(LensError):
    status, title = 400, "Statement refused"


class LimitReached(LensError):
    status, title = 422, "The statement reached a limit"


class DiskFull(LensError):
    status, title = 507, "Not enough disk space"


class WorkerFailed(LensError):
    title = "Worker failed"


class Locked(LensError):
    title = "Data directory in use"


def from_problem(problem: dict[str, Any]) -> LensError:
    """The exception that a problem document describes, as a child process sends it."""
    kinds: list[type[LensError]] = [Invalid, BadRecord]
    kinds += [kind for kind in LensError.__subclasses__() if kind is not Invalid]
    errors = [FieldError(**error) for error in problem.get("errors", [])]
    for kind in reversed(kinds):
        if (kind.status, kind.title) == (problem["status"], problem["title"]):
            return kind(problem["detail"], errors)
    return WorkerFailed(problem["detail"], errors)
