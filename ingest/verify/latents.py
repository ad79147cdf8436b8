"""Are the files of latents those that the catalog names: their bytes, what they say of themselves, their shapes, their grid?

A row of a pack names bytes that are a member of it, under the name of its episode: `eicorpus forget` finds them by that name.
Only the newest row of each episode, camera and encoder counts, as for a manifest. `deep` also reads the numbers: none may be NaN or infinite.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from ingest.corpus.snapshot import Snapshot
from ingest.storage.local import within
from ingest.verify.bucket import FetchedObjects
from ingest.verify.files import difference, difference_within, in_batches, problem_opening
from ingest.verify.finding import CheckCode, Finding, finding
from schemas.errors import ConfigError
from schemas.latent_header import (
    Header,
    Held,
    Span,
    expected_tensors,
    picture_crc,
    read_header,
    span_of,
)
from schemas.latent_pack import BLOCK, Member, is_pack_of, member_before, member_name
from schemas.latents import FRAME_INDEX, LATENTS, PICTURE_CRC, SCALE, TEXT_CAMERA, latent_file
from schemas.text_features import is_of_text, text_feature_file

Row = dict[str, Any]
_KEY = ["uid", "camera", "encoder_id"]
_BLOCK_BYTES = 1 << 24


def latents_findings(
    corpus: Path,
    current: Snapshot,
    pool: Executor,
    *,
    deep: bool,
    objects: FetchedObjects | None = None,
) -> Iterator[Finding]:
    """Everything about all files of latents that a snapshot names.

    Args:
        objects: of the bucket that `corpus` is a working copy of. A pack is fetched once.
    """
    if objects is None:
        work: Any = partial(_file_findings, corpus, deep=deep)
        items: Iterator[Any] = _rows(corpus, current, _KEY)
    else:
        work = partial(_object_findings, objects, deep=deep)
        rows = _rows(corpus, current, ["path", *_KEY])
        items = (list(of_one) for _, of_one in groupby(rows, key=lambda row: row["path"]))
    for findings in in_batches(pool, work, items):
        yield from findings


def _object_findings(objects: FetchedObjects, rows: list[Row], *, deep: bool) -> list[Finding]:
    """Of the rows that name one object."""
    path, num_bytes = rows[0]["path"], rows[0]["num_bytes"]
    is_pack = any(row["pack_offset"] is not None for row in rows)
    with objects.files([(path, None if is_pack else num_bytes)] if path else []) as folder:
        return [each for row in rows for each in _file_findings(folder, row, deep=deep)]


def _rows(corpus: Path, current: Snapshot, order: list[str]) -> Iterator[Row]:
    """The newest row of each file, with what the catalog says of its episode and its video."""
    rows = pl.DataFrame(current.read(corpus, "latents"))
    newest = rows.sort("run_id", maintain_order=True).unique(_KEY, keep="last", maintain_order=True)
    columns = ["uid", "dataset_path", "episode_index", "length"]
    episodes = pl.DataFrame(current.read(corpus, "episodes", columns))
    videos = pl.DataFrame(
        current.read(corpus, "artifacts", ["uid", "camera", "kind", "sha256"])
    ).filter(pl.col("kind") == "video")
    videos = videos.unique(["uid", "camera"], keep="last").select(
        "uid", "camera", pl.col("sha256").alias("video_now")
    )
    joined = newest.join(episodes, on="uid", how="left").join(
        videos, on=["uid", "camera"], how="left"
    )
    yield from joined.sort(order).iter_rows(named=True)


def _file_findings(corpus: Path, row: Row, *, deep: bool) -> list[Finding]:
    path = row["path"]
    if row["dataset_path"] is None:
        return [_differs(path, f"latents of {row['uid']}", "an episode of the catalog")]
    place = _place(row)
    if not _is_in_place(row, place):
        return [_differs(path, "latents there", f"them at {place}, or in a pack of that folder")]
    span = span_of(row["pack_offset"], row["num_bytes"])
    if problem := problem_opening(corpus, path):
        if problem.check is not CheckCode.FILE_MISSING:
            return [problem]
        return [
            finding(
                CheckCode.LATENTS_MISSING, path, "nothing there", "the file that the catalog lists"
            )
        ]
    if changed := _changed(within(corpus, path), row, span):
        where = "" if span is None else f" at byte {span.start} for {row['uid']}"
        expected = f"{row['num_bytes']} bytes, sha256 {row['sha256']} as committed{where}"
        return [finding(CheckCode.LATENTS_CHANGED, path, changed, expected)]
    if span is not None and (wrong := _odd_member(within(corpus, path), row, span)):
        return [wrong]
    if is_of_text(row["encoder_id"]):
        return []
    try:
        header = read_header(within(corpus, path), span)
    except ConfigError as error:
        return [_differs(path, error.message, "a file of latents")]
    return [*_header_findings(row, header), *(_deep_findings(corpus, path, header) if deep else ())]


def _is_in_place(row: Row, place: str) -> bool:
    if row["pack_offset"] is None:
        return bool(row["path"] == place)
    return is_pack_of(row["path"], row["dataset_path"], row["encoder_id"])


def _changed(path: Path, row: Row, span: Span | None) -> str:
    if span is None:
        return difference(path, row["num_bytes"], row["sha256"])
    return difference_within(path, span, row["sha256"])


def _odd_member(path: Path, row: Row, span: Span) -> Finding | None:
    """What is wrong with the head of the member that a row names."""
    with path.open("rb") as file:
        file.seek(max(0, span.start - BLOCK))
        member = member_before(file.read(BLOCK), span.start)
    name = member_name(row["episode_index"], row["camera"] or TEXT_CAMERA)
    if member == Member(name=name, start=span.start, num_bytes=span.num_bytes):
        return None
    actual = (
        "no member" if member is None else f"the member {member.name} of {member.num_bytes} bytes"
    )
    where = f"at byte {span.start}"
    return _differs(row["path"], f"{actual} {where}", f"{name} of {span.num_bytes} bytes")


def _place(row: Row) -> str:
    """Where the file of a row must lie, relative to the corpus."""
    encoder_id, index = row["encoder_id"], row["episode_index"]
    is_text = is_of_text(encoder_id)
    name = (
        text_feature_file(encoder_id, index)
        if is_text
        else latent_file(encoder_id, row["camera"], index)
    )
    return f"{row['dataset_path']}/{name}"


def _header_findings(row: Row, header: Header) -> Iterator[Finding]:
    """The page against the catalog, the tensors against the page."""
    facts = header.facts
    stated = {
        "encoder_id": facts.encoder_id,
        "uid": facts.uid,
        "camera": facts.camera,
        "length": facts.length,
        "dtype": facts.dtype,
        "num_frames": facts.num_frames,
        "video_sha256": facts.video_sha256,
    }
    for key, value in stated.items():
        if value != row[key]:
            yield _differs(row["path"], f"{key} {value}", f"{row[key]}, as in the catalog")
    if row["video_now"] != row["video_sha256"]:
        value = f"latents of a video with sha256 {row['video_sha256']}"
        yield _differs(row["path"], value, f"latents of the stored video, {row['video_now']}")
    held = {name: (each.dtype, each.shape) for name, each in header.tensors.items()}
    if held != (expected := expected_tensors(facts)):
        yield _differs(row["path"], f"tensors {held}", expected)


def _deep_findings(corpus: Path, path: str, header: Header) -> Iterator[Finding]:
    """The grid exactly, and numbers that are numbers."""
    with within(corpus, path).open("rb") as file:
        if (held := header.tensors.get(FRAME_INDEX)) is not None:
            file.seek(held.start)
            index = np.frombuffer(file.read(held.end - held.start), "<i8")
            expected = np.arange(len(index)) * header.facts.grid_stride
            if not np.array_equal(index, expected):
                actual = f"timesteps {index[:5].tolist()} …"
                yield _differs(path, actual, f"{expected[:5].tolist()} …")
        for name in (LATENTS, SCALE):
            held = header.tensors.get(name)
            if held is None:
                continue
            file.seek(held.start)
            left, num_bad = held.end - held.start, 0
            while left:
                block = file.read(min(left, _BLOCK_BYTES))
                left -= len(block)
                num_bad += _num_not_finite(block, held.dtype)
            if num_bad:
                actual = f"{num_bad} numbers of {name} that are NaN or infinite"
                yield finding(CheckCode.LATENTS_NOT_FINITE, path, actual, "none")
        if num_bad := _num_other_checksums(file, header):
            actual = f"{num_bad} pictures that do not have their checksum"
            yield _differs(path, actual, "none")


def _num_other_checksums(file: BinaryIO, header: Header) -> int:
    """Pictures whose bytes are not those of their checksum."""
    tensors, count = header.tensors, header.facts.num_frames
    if not {PICTURE_CRC, LATENTS} <= tensors.keys() or not count:
        return 0
    parts = [tensors[name] for name in (LATENTS, SCALE) if name in tensors]
    stated = np.frombuffer(_bytes_of(file, tensors[PICTURE_CRC], 0, 1), "<u4")
    num_bad = 0
    for number in range(min(count, len(stated))):
        crc = picture_crc(
            *(np.frombuffer(_bytes_of(file, p, number, count), np.uint8) for p in parts)
        )
        num_bad += crc != int(stated[number])
    return num_bad


def _bytes_of(file: BinaryIO, held: Held, number: int, count: int) -> bytes:
    """The part of this number of a tensor that is cut into `count` equal ones."""
    size = (held.end - held.start) // count
    file.seek(held.start + number * size)
    return file.read(size)


def _num_not_finite(block: bytes, dtype: str) -> int:
    """bfloat16: an exponent of ones. e4m3fn has no infinity, its NaN are all ones but the sign (OCP 8-bit floating point, §5.3)."""
    if dtype == "BF16":
        return int(np.count_nonzero((np.frombuffer(block, "<u2") & 0x7F80) == 0x7F80))
    if dtype == "F8_E4M3":
        return int(np.count_nonzero((np.frombuffer(block, np.uint8) & 0x7F) == 0x7F))
    if dtype == "F32":
        return int(np.count_nonzero(~np.isfinite(np.frombuffer(block, "<f4"))))
    return 0


def _differs(path: str, actual: object, expected: object) -> Finding:
    return finding(CheckCode.LATENTS_DIFFER, path, actual, expected)
