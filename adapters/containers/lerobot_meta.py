"""The metadata of a LeRobot data set as a whole: info.json and modality.json of v2.0, v2.1 and v3.0.

Layout (formats page `oxe_lerobot.md` §1; code: huggingface/lerobot `src/lerobot/datasets/utils.py`):
    v2.x  meta/info.json, meta/tasks.jsonl, meta/episodes.jsonl           one data file per episode
    v3.0  meta/info.json, meta/tasks.parquet, meta/episodes/*/*.parquet   many episodes in one data file
Real sets break most of it: `splits` and `total_*` are wrong, `names` is a list, a dict or called `name`, tasks are
integers, lines are blank or torn. So only what places the episodes is read, and counts are never believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from adapters.containers.safe_path import exists_inside, inside
from schemas import json_text
from schemas.document import DocumentError
from schemas.errors import Code, SourceError, system_error_text
from schemas.invalid import invalid
from schemas.rate import rate_from
from schemas.regular_file import check_regular, open_regular, read_regular

MAX_JSON_BYTES = (
    json_text.DOCUMENT.max_bytes
)  # the largest real info.json seen is 60 kB, the largest jsonl line 7 kB
MAX_THRIFT_BYTES = 64 << 20  # bound on what a hostile Parquet footer may make the reader allocate

INFO = "meta/info.json"
_TEMPLATES = {  # huggingface/lerobot utils.py, v0.3.3 and v0.4: used only where info.json says nothing
    2: (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    3: (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}


def _flat_names(names: Any) -> tuple[str, ...]:
    """Element names out of a list, {"motors": [...]}, or {"x": 0, "y": 1}; () when there are none."""
    if isinstance(names, dict):
        if names and all(type(v) is int for v in names.values()):
            return tuple(sorted(map(str, names), key=lambda n: names[n]))
        return tuple(name for part in names.values() for name in _flat_names(part))
    if isinstance(names, list):  # official v2.1 writers nest it once more: [["kLeftElbow", ...]]
        parts = [_flat_names(n) if isinstance(n, (list, dict)) else (str(n),) for n in names]
        return tuple(name for part in parts for name in part)
    return ()


class SourceFeature(BaseModel):
    """One column or camera as info.json declares it; `info` is what the writer noted about a video."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    dtype: str
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    info: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _spellings(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        shape = raw.get("shape") or ()
        if isinstance(shape, list):  # BEHAVIOR-1K writes null, Humanoid Everyday -1: any length
            shape = [-1 if n is None else n for n in shape]
        return {
            "dtype": raw.get("dtype"),
            "shape": (shape,) if isinstance(shape, int) else shape,
            "names": _flat_names(raw.get("names") or raw.get("name")),
            "info": raw.get("info") or raw.get("video_info") or {},
        }

    @property
    def is_picture(self) -> bool:
        return self.dtype in ("video", "image")

    @property
    def is_numeric(self) -> bool:
        return self.dtype.startswith(("float", "int", "uint", "bool"))


class SetInfo(BaseModel):
    """meta/info.json, the parts that are used."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    codebase_version: str
    robot_type: str | None = None
    fps: int | float
    chunks_size: int = Field(default=1000, ge=1)
    total_episodes: int = 0
    data_path: str | None = None
    video_path: str | None = None
    annotation_path: str | None = None  # BEHAVIOR-1K only: skills of an episode
    splits: dict[str, Any] = Field(default_factory=dict)  # lerobot_paths.py reads the ranges
    features: dict[str, SourceFeature]

    @field_validator("splits", mode="before")
    @classmethod
    def _named(cls, splits: Any) -> Any:
        return splits if isinstance(splits, dict) else {}

    @field_validator("fps")
    @classmethod
    def _rate(cls, fps: float) -> float:
        if not 0 < rate_from(fps) <= 10_000:
            raise ValueError(f"fps {fps} is not a rate between 0 and 10000 Hz")
        return fps

    @model_validator(mode="before")
    @classmethod
    def _default_templates(cls, raw: Any) -> Any:
        major = _major(str(raw.get("codebase_version"))) if isinstance(raw, dict) else None
        if major is None:
            return raw
        data, video = _TEMPLATES[major]
        return {"video_path": video, **raw, "data_path": raw.get("data_path") or data}

    @property
    def rate_hz(self) -> Fraction:
        return rate_from(self.fps)

    @property
    def major(self) -> int | None:
        """2 (one file per episode), 3 (shared files), or None for an unknown version."""
        return _major(self.codebase_version)


def _major(version: str) -> int | None:
    # Humanoid Everyday writes "2.0.1" without the v (physical-superintelligence-lab/Humanoid-Everyday).
    parts = version.strip().removeprefix("v").split(".")
    return {"2.0": 2, "2.1": 2, "3.0": 3}.get(".".join(parts[:2]))


class ColumnSpan(BaseModel):
    """An entry of modality.json: [start, end) of a column, how its rotation is written, absolute or not.

    Source: `getting_started/LeRobot_compatible_data_schema.md` of NVIDIA/Isaac-GR00T.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    start: int = Field(ge=0)
    end: int
    original_key: str | None = None
    rotation_type: str | None = None
    absolute: bool | None = None

    @model_validator(mode="after")
    def _forward(self) -> ColumnSpan:
        if self.end <= self.start:
            raise ValueError(f"slice [{self.start}, {self.end}) is empty")
        return self


class Pointer(BaseModel):
    """A camera or annotation of modality.json: only which column it is."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    original_key: str | None = None


class Modality(BaseModel):
    """meta/modality.json; empty where the set has none."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    state: dict[str, ColumnSpan] = {}
    action: dict[str, ColumnSpan] = {}
    video: dict[str, Pointer] = {}
    annotation: dict[str, Pointer] = {}


def read_json(path: Path, where: str) -> Any:
    """Parsed JSON of a file of bounded size.

    Raises:
        SourceError: MISSING_META, TOO_LARGE, or UNREADABLE.
    """
    text = _text(path, where)
    if not text.strip():
        raise SourceError(Code.UNREADABLE, "the file is empty; download it again", where=where)
    return parse_json(text, where)


def read_info(root: Path) -> SetInfo:
    """meta/info.json.

    Raises:
        SourceError: MISSING_META or UNREADABLE.
    """
    raw = read_json(inside(root, INFO), INFO)
    try:
        return SetInfo.model_validate(raw)
    except ValidationError as error:
        raise SourceError(Code.UNREADABLE, invalid(error), where=INFO) from error


def read_modality(root: Path) -> Modality:
    """meta/modality.json, or an empty one.

    Raises:
        SourceError: UNREADABLE when it is there and makes no sense.
    """
    where = "meta/modality.json"
    path = inside(root, where)
    if not exists_inside(root, where):
        return Modality()
    try:
        return Modality.model_validate(read_json(path, where))
    except ValidationError as error:
        raise SourceError(Code.UNREADABLE, invalid(error), where=where) from error


def read_parquet(path: Path, where: str, columns: list[str] | None = None) -> pa.Table:
    """A small metadata table.

    Raises:
        SourceError: TRUNCATED (no footer), UNREADABLE, or TOO_LARGE.
    """
    with open_parquet(path, where) as file:
        names = file.schema_arrow.names
        try:
            return file.read(
                columns=None if columns is None else [c for c in columns if c in names]
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SourceError(Code.UNREADABLE, first_line(error), where=where) from error


def open_parquet(path: Path, where: str) -> pq.ParquetFile:
    """An opened Parquet file whose footer was parsed under a size bound.

    Raises:
        SourceError: MISSING_FILE, TRUNCATED (no footer: the writer died), or UNREADABLE.
    """
    check_regular(path, where=where)
    try:
        return pq.ParquetFile(
            path,
            thrift_string_size_limit=MAX_THRIFT_BYTES,
            thrift_container_size_limit=MAX_THRIFT_BYTES // 64,
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        text = first_line(error)
        torn = "footer" in text or "0 bytes" in text or "magic bytes" in text
        code = Code.TRUNCATED if torn else Code.UNREADABLE
        raise SourceError(code, f"not a complete Parquet file: {text}", where=where) from error


def _text(path: Path, where: str) -> str:
    try:
        data = read_regular(path, max_bytes=MAX_JSON_BYTES, where=where, missing=Code.MISSING_META)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(Code.UNREADABLE, str(error), where=where) from error


def parse_json(text: str, where: str) -> Any:
    try:
        return json_text.parse_json(text, allow_nan=True)  # as writers in Python make it
    except DocumentError as error:
        raise SourceError(Code.UNREADABLE, str(error), where=where) from error


def lines_of(path: Path, where: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank (a blank one breaks GR00T's reader, Isaac-GR00T #288), with their numbers."""
    try:
        with TextIOWrapper(open_regular(path, where=where), encoding="utf-8") as file:
            number = 0
            while line := file.readline(MAX_JSON_BYTES):
                number += 1
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(Code.UNREADABLE, system_error_text(error, where), where=where) from error


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
