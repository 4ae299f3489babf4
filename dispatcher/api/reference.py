"""`/docs`: the API's document as a page. All that it loads lies in `dispatcher/api/pages`; no other host is asked.

`scripts/bundle.py` put `pages/swagger_ui` there.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

router = APIRouter(include_in_schema=False)

_PAGES: Final = Path(__file__).parent / "pages"

FILES: Final = {
    "docs.css": "text/css",
    "docs.js": "text/javascript",
    "swagger_ui/swagger-ui.css.gz": "text/css",
    "swagger_ui/swagger-ui-bundle.js.gz": "text/javascript",
}
"""What the page loads, and its media type. A name that ends in `.gz` is served without it, as it is stored."""

_GZIP: Final = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", re.IGNORECASE)
"""What a request says in `accept-encoding` that takes gzip."""

_BY_NAME: Final = {path.rpartition("/")[2].removesuffix(".gz"): path for path in FILES}

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load and where its requests may go: this server only. No script or style may stand in the
page. `data:` is for the symbols of Swagger UI's style sheet."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it lies in the package."""

    content: bytes
    etag: str
    media_type: str
    is_compressed: bool


@cache
def stored(path: str, media_type: str) -> Stored:
    """A file of the pages, read once."""
    content = (_PAGES / path).read_bytes()
    etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'  # weak: with and without compression, it is the same one
    return Stored(content, etag, f"{media_type}; charset=utf-8", path.endswith(".gz"))


@router.get("/docs")
async def page() -> Response:
    """Get the page."""
    found = stored("docs.html", "text/html")
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "no-referrer"}
    return Response(found.content, media_type=found.media_type, headers=headers | {"cache-control": "no-cache"})


def _answer(path: str, request: Request) -> Response:
    """A file that the page loads."""
    found = stored(path, FILES[path])
    headers = {"cache-control": "no-cache", "etag": found.etag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    content = found.content
    if found.is_compressed:
        if _GZIP.search(request.headers.get("accept-encoding", "")):
            headers["content-encoding"] = "gzip"
        else:
            content = gzip.decompress(content)
    return Response(content, media_type=found.media_type, headers=headers)


def _route(name: str, path: str) -> None:
    """Serve one file. A route for each: a path without a file is then a 404 by every method."""

    @router.get(f"/docs/{name}")
    async def file(request: Request) -> Response:
        """Get a file that the page loads."""
        return _answer(path, request)


for _name, _path in _BY_NAME.items():
    _route(_name, _path)
