"""From a model to a page: rendering, links, dates, and errors as pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from starlette.responses import HTMLResponse

from service.api.problems import CleanJSON
from service.errors import LensError
from web.render import render
from web.text import legible

__all__ = ["error_page", "formats", "live", "moment", "page", "short", "url"]


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Render a template of `web/templates`."""
    text = render(template, path=request.url.path, version=version("dppo-lens"), **_legible(context))
    return HTMLResponse(text, status, headers={"Cache-Control": "no-cache", "Vary": "Cookie"})


def live(model: Any) -> Response:
    """A page's model as JSON, for the page to print again."""
    return CleanJSON(_legible(model))


def _legible(value: Any) -> Any:
    """Plain data whose texts hold no control characters."""
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, dict):
        return {key: _legible(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_legible(entry) for entry in value]
    return value


def error_page(request: Request, error: LensError) -> Response:
    """A problem document as a page."""
    return page(request, "error.html", error.status, problem={"errors": [], **error.problem()})


def url(*parts: str, query: Mapping[str, Any] | None = None) -> str:
    """A path of this server. Parts and values are encoded whole: a sample id may hold slashes, quotes or markup."""
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return path + ("?" + urlencode(given, quote_via=quote, safe="") if given else "")


def formats(name: str, *place: str, query: Mapping[str, Any]) -> dict[str, str]:
    """Where the rows of a figure or a table called `name` can be taken home: `csv.<name>`, `parquet.…`, `sql.…`."""
    return {f"{kind}.{name}": url(*place, query={**query, "format": kind}) for kind in ("csv", "parquet", "sql")}


def short(identity: str) -> str:
    """Enough of an id to tell it from its neighbours."""
    return identity[:8]


def moment(at: datetime) -> dict[str, str]:
    """A time for `<time>`: machine-readable, and as people write it."""
    utc = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return {"iso": utc.isoformat(timespec="seconds"), "text": f"{utc.day} {utc:%b %Y, %H:%M} UTC"}
