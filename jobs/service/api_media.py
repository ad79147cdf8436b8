"""REST: series, videos, frames and contact sheets of an episode, read from its files now."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from jobs.service import media, models, ranges
from jobs.service.api import Number, keeper_of, newest_of, served_by
from jobs.service.api_data import ARROW
from jobs.service.byte_cache import ByteCache
from jobs.service.details import row_of, stored_episode
from jobs.service.errors import ApiError, busy, not_here
from jobs.service.limits import place
from jobs.service.metrics import ServiceMetrics
from jobs.service.series import MAX_POINTS, MIN_POINTS, Channel, arrow_of, channels, invalid_spans
from schemas.errors import ConfigError

router = APIRouter()

MAX_PICTURES = 64 << 20  # bytes of JPEG that are kept
FEATURES = ("observation.state", "action")
MAX_DECODES, MAX_WAITING = 4, 12  # pictures made at a time; requests that decode or wait for it
WAIT_S = 5.0  # for a place among MAX_DECODES
_BUSY = "too many pictures are being made"

_decoding = threading.BoundedSemaphore(MAX_DECODES)
_asking = threading.BoundedSemaphore(MAX_WAITING)
_pictures = ByteCache(
    MAX_PICTURES
)  # by the file they are from: another file at the same path has others


@router.get(
    "/episodes/{uid}/series",
    response_model=models.SeriesAnswer,
    responses={200: {"content": {ARROW: {}}}},
)
def series(
    request: Request,
    uid: str,
    features: Annotated[list[str] | None, Query(alias="feature", max_length=20)] = None,
    points: Annotated[int, Query(ge=MIN_POINTS, le=MAX_POINTS)] = MAX_POINTS,
    start: Annotated[int, Query(ge=0)] = 0,
    end: Annotated[int | None, Query(ge=1)] = None,
    form: Annotated[Literal["json", "arrow"], Query(alias="format")] = "json",
    number: Number = None,
) -> Response:
    """State and action, thinned to `points` a channel by the least and greatest value of each bucket."""
    served = served_by(request, number)
    stored = stored_episode(keeper_of(request), served.cache, uid)
    stop = stored.length if end is None else min(end, stored.length)
    if start >= stop:
        raise ConfigError(f"expected start below end, in [0, {stored.length}]", where="start")
    chosen = features or [name for name in FEATURES if name in stored.features]
    points_by_channel = channels(stored, chosen, points, start, stop)
    if form == "arrow":
        return Response(arrow_of(points_by_channel), media_type=ARROW)
    answer = models.SeriesAnswer(
        **newest_of(request, served),
        uid=uid,
        rate_hz=stored.rate_hz,
        length=stored.length,
        channels=[_channel(each) for each in points_by_channel],
        invalid=[
            models.InvalidAnswer(feature=e.feature, part=e.part, start=e.start, end=e.end)
            for e in invalid_spans(stored, chosen, start, stop)
        ],
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _channel(channel: Channel) -> models.ChannelAnswer:
    known = np.isfinite(channel.values)
    values = [float(v) if k else None for v, k in zip(channel.values, known, strict=True)]
    return models.ChannelAnswer(
        feature=channel.feature,
        name=channel.name,
        timesteps=channel.timesteps.tolist(),
        values=values,
    )


@router.head("/episodes/{uid}/videos/{camera:path}", include_in_schema=False)
@router.get(
    "/episodes/{uid}/videos/{camera:path}",
    response_class=Response,
    responses={200: {"content": {"video/mp4": {}}}},
)
def video(request: Request, uid: str, camera: str, number: Number = None) -> Response:
    """The video of a camera, whole or in part (Range), with validators (ETag, Last-Modified). Its media type names the codec."""
    path, _ = _video(request, uid, camera, number)
    file, stamp = media.open_video_file(path)
    conditions = request.headers
    headers = {
        "ETag": stamp.etag,
        "Last-Modified": stamp.last_modified,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
    }
    is_same = ranges.is_not_modified(
        stamp, conditions.get("if-none-match"), conditions.get("if-modified-since")
    )
    part = None
    if request.method == "GET" and ranges.is_range_current(stamp, conditions.get("if-range")):
        part = ranges.requested_part(conditions.get("range"), stamp.size)
    if is_same or part is ranges.UNSATISFIABLE or request.method == "HEAD":
        file.close()
    if is_same:
        return Response(status_code=304, headers=headers)
    if part is ranges.UNSATISFIABLE:
        raise ApiError(
            416,
            "range",
            f"the file has {stamp.size} bytes",
            headers={**headers, "Content-Range": f"bytes */{stamp.size}"},
        )
    status = 200 if part is None else 206
    part = part or ranges.ByteRange(start=0, end=stamp.size)
    headers["Content-Length"] = str(part.end - part.start)
    if status == 206:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{stamp.size}"
    media_type = media.media_type(path, stamp.etag)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    content = media.blocks(file, part.start, part.end)
    return StreamingResponse(content, status_code=status, headers=headers, media_type=media_type)


@router.get(
    "/episodes/{uid}/frames/{timestep}/{camera:path}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
def frame(
    request: Request,
    uid: str,
    timestep: int,
    camera: str,
    width: Annotated[int | None, Query(ge=16, le=media.MAX_WIDTH)] = None,
    number: Number = None,
) -> Response:
    """The picture of a camera at a timestep, as JPEG."""
    path, row = _video(request, uid, camera, number)
    rate_hz = media.rate_of(row)  # refuses a row without a length
    if not 0 <= timestep < row["length"]:
        raise not_here(f"no timestep {timestep}; the episode has {row['length']}")
    key = ("frame", str(path), timestep, width)

    def make(_: ranges.FileStamp) -> bytes:
        return _in_turn(request, lambda: media.frame_jpeg(path, timestep, rate_hz, width))

    return _picture(request, path, key, make)


@router.get(
    "/episodes/{uid}/sheets/{camera:path}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
def sheet(request: Request, uid: str, camera: str, number: Number = None) -> Response:
    """Eight pictures of the whole episode on one, as JPEG."""
    path, row = _video(request, uid, camera, number)
    rate_hz = media.rate_of(row)
    key = ("sheet", str(path))
    sheets = keeper_of(request).sheets

    def make(stamp: ranges.FileStamp) -> bytes:
        own = (
            f"{stamp.etag} {media.THUMBNAIL} {path}"  # another version may draw them in another way
        )
        draw = partial(media.sheet_jpeg, path, row["length"], rate_hz)
        return sheets.get(own, uid, lambda: _in_turn(request, draw))

    return _picture(request, path, key, make)


def _video(
    request: Request, uid: str, camera: str, number: int | None
) -> tuple[Path, dict[str, Any]]:
    served = served_by(request, number)
    keeper, row_number = keeper_of(request), row_of(served.cache, uid)
    row = served.cache.episode(row_number)
    path = media.video_path(keeper.corpus, row, camera)
    if keeper.files is not None:
        name = path.relative_to(keeper.corpus).as_posix()
        rows = served.cache.rows_of("artifacts", row_number)
        keeper.fetch(each for each in rows if each["path"] == name)
    return path, row


def _picture(
    request: Request,
    path: Path,
    key: tuple[Any, ...],
    make: Callable[[ranges.FileStamp], bytes],
) -> Response:
    """A JPEG with an ETag of the video it is from."""
    file, stamp = media.open_video_file(path)
    file.close()
    own = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    tag = ranges.FileStamp(size=0, etag=f'"{stamp.etag[1:-1]}-{own}"', modified_s=stamp.modified_s)
    headers = {"ETag": tag.etag, "Cache-Control": "private, no-cache"}
    known = request.headers.get("if-none-match")
    if known is not None and ranges.is_not_modified(tag, known):
        return Response(status_code=304, headers=headers)
    picture = _pictures.get((stamp.etag, *key), lambda: make(stamp))
    return Response(picture, media_type="image/jpeg", headers=headers)


def _in_turn(request: Request, make: Callable[[], bytes]) -> bytes:
    """A picture, when one of MAX_DECODES places is free.

    Raises:
        ApiError: 503, none became free in time, or too many wait already: threads that wait are missing elsewhere.
    """
    metrics: ServiceMetrics = request.app.state.metrics
    with place(_asking, _BUSY):
        with metrics.decode_wait.time():
            is_free = _decoding.acquire(timeout=WAIT_S)
        if not is_free:
            raise busy(_BUSY)
        try:
            return make()
        finally:
            _decoding.release()
