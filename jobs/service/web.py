"""The browser's pages: one HTML shell at the path of each page, and the modules, styles and plotly.js that it loads. Names from data never enter HTML here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from jobs.service.errors import not_here
from jobs.service.ranges import any_matches
from schemas.regular_file import read_regular

router = APIRouter()

PLOTLY = "plotly.min.js"
MAX_BYTES = 1 << 25  # of one file
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
ASKED_EACH_TIME = "private, no-cache"
KEPT_A_YEAR = "private, max-age=31536000, immutable"  # the version is in the address


class StaticFile(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@cache
def static_files() -> Mapping[str, StaticFile]:
    """The files of the package, and plotly.js as its wheel carries it, by name: nothing else can be asked for."""
    own = {
        path.name: read_regular(path, max_bytes=MAX_BYTES)
        for path in (Path(__file__).parent / "static").iterdir()
        if path.suffix in MEDIA_TYPES
    }
    own["shell.html"] = own["shell.html"].replace(b"PLOTLY_VERSION", version("plotly").encode())
    plotly = Path(str(files("plotly").joinpath("package_data", PLOTLY)))
    own[PLOTLY] = read_regular(plotly, max_bytes=MAX_BYTES)
    return {
        name: StaticFile(
            content=content,
            media_type=MEDIA_TYPES[Path(name).suffix],
            etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        )
        for name, content in own.items()
    }


@router.get("/")
@router.get("/episodes")
@router.get("/episodes/{uid}")
@router.get("/jobs")
@router.get("/manifests")
@router.get("/map")
@router.get("/thresholds")
def shell(request: Request) -> Response:
    """The page; its module reads from the address which one it is."""
    return _answer(request, "shell.html", ASKED_EACH_TIME)


def no_page(request: Request) -> Response:
    """The shell for an address that is no page: its module says so, beside the links to those there are."""
    return _answer(request, "shell.html", ASKED_EACH_TIME, status=404)


@router.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    if name not in static_files():
        raise not_here(f"no file {name[:200]!r}")
    is_versioned = name == PLOTLY and request.query_params.get("v") == version("plotly")
    return _answer(request, name, KEPT_A_YEAR if is_versioned else ASKED_EACH_TIME)


def _answer(request: Request, name: str, caching: str, status: int = 200) -> Response:
    file = static_files()[name]
    headers = {"ETag": file.etag, "Cache-Control": caching}
    known = request.headers.get("if-none-match")
    if status == 200 and known is not None and any_matches(known, file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, status, media_type=file.media_type, headers=headers)
