"""Who may ask: Host allow-list against DNS rebinding, bearer token or cookie, content types, response headers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import LensError, Locked, Unauthorized, UnsupportedMedia, WrongHost
from service.settings import Settings

__all__ = ["COOKIE", "Guard", "check_bind", "cookie_value", "token_matches"]

COOKIE = "dppo_lens"
OPEN_PATHS = {"/healthz", "/readyz", "/login"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def check_bind(settings: Settings) -> None:
    """Another address than the loopback needs a token. Raises `Locked` with what to do."""
    if not _is_loopback(settings.host) and settings.token is None and not settings.unsafe_no_auth:
        raise Locked(
            f"--host {settings.host} can be reached from other machines: set DPPO_TOKEN, or pass --unsafe-no-auth if "
            "something in front of this service checks who asks"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def cookie_value(token: str) -> str:
    """What the browser keeps after log-in; the token cannot be had from it."""
    return hmac.new(token.encode(), b"dppo-lens page cookie", hashlib.sha256).hexdigest()


def token_matches(settings: Settings, token: str) -> bool:
    """Compare in constant time."""
    return settings.token is not None and hmac.compare_digest(
        settings.token.get_secret_value().encode(), token.encode()
    )


class Guard:
    """ASGI middleware in front of everything."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._hosts = {
            "localhost",
            "127.0.0.1",
            "::1",
            settings.host.lower(),
            *(h.lower() for h in settings.allowed_hosts),
        }
        self._hosts -= {"0.0.0.0", "::"}  # noqa: S104 no one's name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    found.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        path = scope["path"]
        error: LensError | None = None
        if not self._host_allowed(headers.get("host", ""), scope):
            error = WrongHost(
                f"host {headers.get('host', '')!r} is not one of this server's names; set DPPO_ALLOWED_HOSTS to add it"
            )
        elif not self._authorised(path, headers):
            if not path.startswith("/api/") and scope["method"] == "GET" and path != "/metrics":
                target = path + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
                return RedirectResponse(f"/login?next={quote(target, safe='')}", status_code=303)
            error = Unauthorized("send the token: Authorization: Bearer …")
        elif scope["method"] == "POST" and path.startswith("/api/"):
            kind = headers.get("content-type", "").split(";")[0].strip().lower()
            if kind != "application/json":
                error = UnsupportedMedia(f"content type {kind or '(none)'!r}: send the body as application/json")
        return None if error is None else problem_response(error)

    def _host_allowed(self, header: str, scope: Scope) -> bool:
        """The port is ignored. The address that the connection came in on is always a name of ours."""
        host = header.rsplit(":", 1)[0] if not header.endswith("]") and header.count(":") != 0 else header
        host = host.strip("[]").lower()
        server = scope.get("server")
        return host in self._hosts or (server is not None and host == str(server[0]).lower())

    def _authorised(self, path: str, headers: Mapping[str, str]) -> bool:
        token = self._settings.token
        if token is None or path in OPEN_PATHS or path.startswith("/static/"):
            return True
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token_matches(self._settings, value.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(
            cookie.value.encode(), cookie_value(token.get_secret_value()).encode()
        )
