"""The task table and the episode table of a LeRobot data set, v2.0 to v3.0.

    v2.x  meta/tasks.jsonl {"task_index", "task"}; meta/episodes.jsonl {"episode_index", "tasks", "length"}
    v3.0  meta/tasks.parquet (the text is the pandas index); meta/episodes/chunk-XXX/file-XXX.parquet
A torn, repeated or senseless entry is handed on as such, so that it is counted and not lost.
Source: huggingface/lerobot `src/lerobot/datasets/utils.py` (v0.3.3), `io_utils.py` (v3.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adapters.containers.lerobot_meta import (
    SetInfo,
    lines_of,
    open_parquet,
    parse_json,
    read_parquet,
)
from adapters.containers.safe_path import exists_inside, inside
from schemas.errors import Code, SourceError
from schemas.invalid import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlace:
    """Where a v3.0 episode lies in a shared video file; `from_s` is what the writer claims, seconds."""

    chunk: int
    file: int
    from_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMeta:
    """One line of the episode table. `length` is declared rows, 0 when not stated; the rows themselves win."""

    index: int
    length: int
    tasks: tuple[str | int, ...]
    chunk: int
    file: int = 0  # v3.0 only
    videos: dict[str, VideoPlace] = field(default_factory=dict)  # v3.0 only
    robot_type: str | None = None  # Humanoid Everyday mixes robots in one set and says so here


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEntry:
    """A piece of the episode table that cannot be used; counted as one unusable episode."""

    where: str
    code: Code
    message: str


def read_tasks(root: Path, major: int, text: str = "task") -> dict[int, str]:
    """Task index -> text, as written; {} when the set has no task table.

    `text` is the key of the words to follow where that is not `task`. v3.0 keeps them as a pandas index, which arrives
    as column `task` or `__index_level_0__`.

    Raises:
        SourceError: UNREADABLE or TRUNCATED.
    """
    name = "meta/tasks.parquet" if major == 3 else "meta/tasks.jsonl"
    path = inside(root, name)
    if not exists_inside(root, name):
        return {}
    if major == 3:
        rows = read_parquet(path, name).to_pylist()
    else:
        rows = [parse_json(line, f"{name}:{i}") for i, line in lines_of(path, name)]
    try:
        return {
            int(r["task_index"]): str(
                r[next(k for k in (text, "task", "__index_level_0__") if k in r)]
            )
            for r in rows
        }
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        problem = f"{error!r}; expected task_index and task (or __index_level_0__) in each row"
        raise SourceError(Code.UNREADABLE, problem, where=name) from error


def read_episodes(root: Path, info: SetInfo) -> Iterator[EpisodeMeta | BadEntry]:
    """The episode table in the order it is stored, torn and repeated entries included as `BadEntry`."""
    seen: set[int] = set()
    for where, entry in _v3_entries(root) if info.major == 3 else _v2_entries(root, info):
        if isinstance(entry, EpisodeMeta) and entry.index in seen:
            message = f"episode {entry.index} is listed a second time; the first entry is used"
            yield BadEntry(where=where, code=Code.BAD_ANNOTATION, message=message)
            continue
        if isinstance(entry, EpisodeMeta):
            seen.add(entry.index)
        yield entry


class _EpisodeLine(BaseModel):
    """A row of episodes.jsonl. `tasks` may be texts, integers (Humanoid Everyday) or one bare text."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    episode_index: int = Field(ge=0)
    length: int = Field(default=0, ge=0)
    tasks: tuple[str | int, ...] = ()
    robot_type: str | None = None

    @field_validator("tasks", mode="before")
    @classmethod
    def _list(cls, tasks: Any) -> Any:
        return (tasks,) if isinstance(tasks, (str, int)) else tasks or ()

    @field_validator("robot_type", mode="before")
    @classmethod
    def _name(cls, robot_type: Any) -> str | None:
        return robot_type if isinstance(robot_type, str) else None


_Entries = Iterator[tuple[str, EpisodeMeta | BadEntry]]


def _v2_entries(root: Path, info: SetInfo) -> _Entries:
    name = "meta/episodes.jsonl"
    path = inside(root, name)
    if not exists_inside(root, name):
        # The data files still carry length and task of every row, so the table is a convenience here.
        for index in range(min(info.total_episodes, 10_000_000)):
            yield (
                name,
                EpisodeMeta(index=index, length=0, tasks=(), chunk=index // info.chunks_size),
            )
        return
    for number, text in lines_of(path, name):
        where = f"{name}:{number}"
        try:
            line = _EpisodeLine.model_validate(parse_json(text, where))
        except SourceError as error:
            yield where, BadEntry(where=where, code=Code.CORRUPT_RECORD, message=error.message)
        except ValidationError as error:
            yield where, BadEntry(where=where, code=Code.CORRUPT_RECORD, message=invalid(error))
        else:
            yield (
                where,
                EpisodeMeta(
                    index=line.episode_index,
                    length=line.length,
                    tasks=line.tasks,
                    chunk=line.episode_index // info.chunks_size,
                    robot_type=line.robot_type,
                ),
            )


def _v3_entries(root: Path) -> _Entries:
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        where = path.relative_to(root).as_posix()
        try:
            inside(root, where)
            with open_parquet(path, where) as file:
                names = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
            rows = read_parquet(path, where, names).to_pylist()
        except SourceError as error:
            yield where, BadEntry(where=where, code=error.code, message=error.message)
            continue
        for number, row in enumerate(rows):
            at = f"{where}#{number}"
            try:
                yield at, _v3_meta(row)
            except (KeyError, TypeError, ValueError) as error:
                message = f"row cannot be read: {error!r}"
                yield at, BadEntry(where=at, code=Code.CORRUPT_RECORD, message=message)


def _v3_meta(row: dict[str, Any]) -> EpisodeMeta:
    keys = {c.split("/")[1] for c in row if c.startswith("videos/") and c.count("/") == 2}
    places = {
        key: VideoPlace(
            chunk=int(row[f"videos/{key}/chunk_index"]),
            file=int(row[f"videos/{key}/file_index"]),
            from_s=float(row[f"videos/{key}/from_timestamp"]),
        )
        for key in sorted(keys)
        if row[f"videos/{key}/chunk_index"] is not None  # null: this episode lacks the camera
    }
    length = row.get("length")
    if length is None:
        length = row["dataset_to_index"] - row["dataset_from_index"]
    line = _EpisodeLine(
        episode_index=row["episode_index"], length=length, tasks=row.get("tasks") or ()
    )
    return EpisodeMeta(
        index=line.episode_index,
        length=line.length,
        tasks=line.tasks,
        chunk=int(row["data/chunk_index"]),
        file=int(row["data/file_index"]),
        videos=places,
    )
