"""The label file of a LET bag: `<bag name>.json` beside it.

Source: the set's README, a draft of which is `huangrc1110/huggingface_readme:README_EN.md` (doc); no real file was at hand.
Read: taskGroupCode, taskPrompt, tertiarySceneCode, deviceSn and marks[] with markStart, duration, markEnd, skillDetail,
enSkillDetail. markStart is local time; that it is UTC+8 and that a mark lasts `duration` is what a public converter takes
(`stevenhansy2/aliyun-data-toolbox:rosbag2hdf5/kuavo/converter/data/metadata_ops.py`). In the README's example `duration`
agrees with startPosition and endPosition, markEnd does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from schemas.episode import Instruction, RawFile
from schemas.errors import Code, SourceError
from schemas.invalid import invalid
from schemas.rate import NS_PER_S

ZONE = timezone(timedelta(hours=8))


class LabelMark(BaseModel):
    """One annotated part. `markStart` looks like "2025-07-22 9:18:39.640"."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    markStart: str = Field(max_length=40)  # noqa: N815
    duration: float = Field(gt=0, lt=1e5)
    skillDetail: str = ""  # noqa: N815
    enSkillDetail: str = ""  # noqa: N815

    def span_ns(self) -> tuple[int, int]:
        """Start and end, ns since 1970; ValueError when `markStart` is no time."""
        form = "%Y-%m-%d %H:%M:%S" + (".%f" if "." in self.markStart else "")
        start = datetime.strptime(self.markStart.strip(), form).replace(tzinfo=ZONE)
        since = start - datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017
        start_ns = (since // timedelta(microseconds=1)) * 1000
        return start_ns, start_ns + round(self.duration * NS_PER_S)


class LetKuavoLabels(BaseModel):
    """One file."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    taskPrompt: str | None = None  # noqa: N815
    taskGroupCode: str | None = None  # noqa: N815
    tertiarySceneCode: str | None = None  # noqa: N815
    marks: tuple[LabelMark, ...] = Field(default=(), max_length=10_000)

    @property
    def task(self) -> str:
        return (self.taskPrompt or self.taskGroupCode or "").replace("_", " ").strip()

    def parts(self, zero_ns: int, end_ns: int, where: str) -> Iterator[Instruction]:
        """The marks from the episode's zero (`zero_ns` since 1970) on.

        Raises:
            SourceError: BAD_ANNOTATION, no text, no time, or a mark that the bag does not cover.
        """
        for k, mark in enumerate(self.marks):
            at = f"{where}:marks[{k}]"
            text = (mark.enSkillDetail or mark.skillDetail).strip()
            try:
                start_ns, stop_ns = mark.span_ns()
            except ValueError as error:
                raise SourceError(Code.BAD_ANNOTATION, str(error), where=at) from error
            if not text or stop_ns <= zero_ns or start_ns >= end_ns:
                seconds = [(t - zero_ns) / NS_PER_S for t in (start_ns, stop_ns, end_ns)]
                problem = f"the label {text!r} covers {seconds[0]:.3f} to {seconds[1]:.3f} s of a recording of {seconds[2]:.3f} s"
                todo = "expected a label within the bag; the label file may belong to another bag or time zone"
                raise SourceError(Code.BAD_ANNOTATION, f"{problem}; {todo}", where=at)
            begin = max(start_ns - zero_ns, 0)
            yield Instruction(text=text, start_ns=begin, end_ns=stop_ns - zero_ns, kind="subtask")


def read_labels(root: Path, name: str) -> tuple[LetKuavoLabels, RawFile]:
    """The labels at `name` below `root`, and the file's fingerprint.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE, UNSAFE_PATH, TOO_LARGE, BAD_ANNOTATION.
    """
    text, raw = read_sidecar(root, Sidecar(path=name))
    try:
        return LetKuavoLabels.model_validate(json_object(text, name)), raw
    except ValidationError as error:
        raise SourceError(
            Code.BAD_ANNOTATION, invalid(error, LetKuavoLabels), where=name
        ) from error
