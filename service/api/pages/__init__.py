"""Pages: what people read. Each is its template in `web/templates` and a model made of named queries' rows.

A model is plain data whose every string is ready to print. A page that changes while it is open serves the same model
again as JSON at `<page>/live`; the browser puts those strings where the first ones stood.
"""

from __future__ import annotations

from fastapi import APIRouter

from service.api.pages import (
    analysis,
    approximation,
    assets,
    compare,
    home,
    login,
    methods,
    mismatch,
    rollout,
    run,
    theory,
    tokens,
)
from service.api.pages.html import error_page

__all__ = ["error_page", "router"]

router = APIRouter(include_in_schema=False)
for module in (assets, login, home, run, rollout, analysis, tokens, approximation, mismatch, methods, theory, compare):
    router.include_router(module.router)
