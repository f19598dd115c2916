"""The one place that turns exceptions into problem documents (RFC 9457), and numbers into JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import FieldError, Invalid, LensError

__all__ = ["CleanJSON", "install", "problem_response"]

ISSUES = "what happened is in the server's log; please report it with the request that caused it"


def clean(value: Any) -> Any:
    """NaN and infinity become null; JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): clean(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [clean(entry) for entry in value]
    return value


class CleanJSON(Response):
    """A JSON response of plain data and datetimes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The UTF-8 text."""
        return json.dumps(
            clean(content),
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
            default=lambda value: value.isoformat() if hasattr(value, "isoformat") else str(value),
        ).encode("utf-8", errors="replace")


def problem_response(error: LensError) -> Response:
    """An error as application/problem+json."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return CleanJSON(error.problem(), error.status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Every error of the API becomes a problem document; pages render the same document as HTML."""

    def answer(request: Request, error: LensError) -> Response:
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return problem_response(error)
        from service.api.pages import error_page

        return error_page(request, error)

    @app.exception_handler(LensError)
    def lens_error(request: Request, error: LensError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    def validation_error(request: Request, error: RequestValidationError) -> Response:
        errors = [
            FieldError(
                entry["msg"].removeprefix("Value error, "),
                field=".".join(str(part) for part in entry["loc"] if part not in ("body", "query", "path")),
            )
            for entry in error.errors()
        ]
        detail = "; ".join(f"{entry.field}: {entry.message}" if entry.field else entry.message for entry in errors[:3])
        return answer(request, Invalid(detail, errors[:20]))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        wrapped = LensError(f"{request.method} {request.url.path}: {error.detail}")
        wrapped.status, wrapped.title = error.status_code, str(error.detail)  # type: ignore[misc]
        response = answer(request, wrapped)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001 uvicorn logs the trace
        return answer(request, LensError(ISSUES))
