"""What pages load besides `web/static`: the themes as CSS, plotly.js as the Python package ships it, the icon."""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse

from web.figures.theme import css

__all__ = ["router"]

router = APIRouter()

PLOTLY = Path(str(files("plotly") / "package_data" / "plotly.min.js"))
ICON = Path(str(files("web") / "static" / "icon.svg"))
KEEP = "public, max-age=86400"


@router.get("/static/themes.css")
def themes() -> Response:
    """The colours of `web.figures.theme` as custom properties."""
    return Response(css(), media_type="text/css", headers={"Cache-Control": "no-cache"})


@cache
def _plotly_gzip() -> tuple[bytes, str]:
    text = PLOTLY.read_bytes()
    return gzip.compress(text, 6, mtime=0), f'"{sha256(text).hexdigest()[:32]}"'


@router.get("/static/vendor/plotly.min.js")
def plotly(request: Request) -> Response:
    """plotly.js, compressed once: 4.8 MB are 1.4 MB on the way to a browser."""
    body, tag = _plotly_gzip()
    headers = {"Cache-Control": KEEP, "ETag": tag, "Vary": "Accept-Encoding"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(body, media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})
    return FileResponse(PLOTLY, media_type="text/javascript", headers=headers)


@router.get("/favicon.ico")
def favicon() -> Response:
    """The icon, where browsers look for one unasked."""
    return FileResponse(ICON, media_type="image/svg+xml", headers={"Cache-Control": KEEP})
