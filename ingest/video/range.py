"""A video that is a file, or a part of one: where libav and the check for truncation read from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.byte_range import RangeReader
from ingest.video.truncation import is_truncated
from schemas.errors import Code
from schemas.regular_file import check_regular


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """The file at `path`, or only its bytes [start, end) where `byte_range` says so."""

    path: str
    byte_range: tuple[int, int] | None = None

    @property
    def num_bytes(self) -> int:
        if self.byte_range is None:
            return check_regular(Path(self.path), where=self.path, missing=Code.MISSING_VIDEO)
        return self.byte_range[1] - self.byte_range[0]

    @contextmanager
    def opened(self) -> Iterator[Path | RangeReader]:
        """What `schemas.av_options.open_video` takes: the path of a plain file, or a bounded reader of a part."""
        if self.byte_range is None:
            yield Path(self.path)
            return
        with RangeReader(Path(self.path), *self.byte_range) as reader:
            yield reader

    def is_truncated(self) -> bool:
        """True when the video promises more bytes than there are (`ingest.video.truncation`)."""
        if self.byte_range is None:
            return is_truncated(Path(self.path))
        with RangeReader(Path(self.path), *self.byte_range) as reader:
            return is_truncated(reader)
