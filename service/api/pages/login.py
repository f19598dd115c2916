"""Log-in for pages where a token is set: the token once, then a cookie that the token cannot be had from."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import RedirectResponse

from service.api.pages.html import page
from service.api.security import COOKIE, cookie_value, token_matches
from service.api.state import ServicesDep
from service.errors import Invalid, TooLarge

__all__ = ["local_path", "router"]

router = APIRouter()

MAX_FORM = 1 << 14


def local_path(target: str) -> str:
    """`target` if it is a path of this server, else the first page: a log-in never sends anyone elsewhere.

    Browsers read `//host`, `/\\host` and a path with control characters in it as other hosts.
    """
    plain = target.isprintable() and "\\" not in target
    return target if plain and target.startswith("/") and not target.startswith("//") else "/"


@router.get("/login")
def login_form(request: Request, services: ServicesDep, target: Annotated[str, Query(alias="next")] = "/") -> Response:
    """The form; where no token is set there is nothing to log in to."""
    if services.settings.token is None:
        return RedirectResponse(local_path(target), status_code=303)
    return page(request, "login.html", target=local_path(target), wrong=False)


@router.post("/login")
async def login(request: Request, services: ServicesDep) -> Response:
    """Compare the token in constant time and hand out the cookie."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise TooLarge(f"the form is larger than {MAX_FORM} bytes")
    try:
        form = parse_qs(body.decode("utf-8", errors="replace"), max_num_fields=10)
    except ValueError as error:
        raise Invalid(f"the form cannot be read: {error}") from error
    target = local_path(form.get("next", ["/"])[0])
    settings = services.settings
    if settings.token is None:
        return RedirectResponse(target, status_code=303)
    if not token_matches(settings, form.get("token", [""])[0].strip()):
        return page(request, "login.html", 401, target=target, wrong=True)
    response = RedirectResponse(target, status_code=303)
    response.set_cookie(
        COOKIE,
        cookie_value(settings.token.get_secret_value()),
        httponly=True,
        samesite="strict",
        path="/",
        secure=request.url.scheme == "https",
        max_age=30 * 86400,
    )
    return response
