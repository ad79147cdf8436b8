"""A camera's pictures on the canonical grid, as one MP4: the hot path of the ingest.

`frame_clock` says when every available frame was taken; `write_video` takes for each grid instant the frame nearest
in time (the earlier of two equally near), never a blend, and writes exactly one picture per instant. Sources are
decoded once and in order; memory does not depend on the length of an episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ingest.recipe import VideoSettings
from ingest.video.copy import copy_packets, copy_plan
from ingest.video.encode import Encoder, seal, x264_options
from ingest.video.images import CODEC, array_images, check_array, decoded_images, image_codec
from ingest.video.scale import Scaler
from ingest.video.source import (
    MAX_FRAMES,
    Times,
    Video,
    check_span,
    decoded,
    open_video,
    span_times,
    window_times,
)
from ingest.video.stats import ImageStatistics, Repeat, SourceSteps, sampled_frames
from schemas.episode import ArrayFrames, Camera, EncodedImages, VideoSpan, VideoWindow
from schemas.errors import Code, SourceError
from schemas.rate import ns_from_seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoFacts:
    """What was written for one camera, and how well it follows the source."""

    num_frames: int
    width: int
    height: int
    codec: str
    sha256: str
    num_bytes: int
    worst_skew_ms: float  # worst |time of the chosen frame - grid instant|
    repeated_share: float  # share of grid steps that show the same source frame as the step before
    was_copied: bool  # packets copied, nothing encoded again
    source_num_frames: int
    source_rate_hz: Fraction | None  # as the container states it; None for single pictures
    source_codec: str
    color: tuple[str, str]  # (matrix, range) of the output, e.g. ("bt709", "tv")
    rotation_deg: (
        int  # counter-clockwise turn applied to the stored picture; K_cam is in STORED pixels
    )
    image_stats: dict[str, np.ndarray]  # min max mean std (3, 1, 1) in [0, 1], count [k]
    repeats: tuple[Repeat, ...] = ()  # timesteps whose source picture repeats the one before


def frame_clock(camera: Camera, *, max_frames: int = MAX_FRAMES) -> npt.NDArray[np.int64]:
    """Times [N] of every available frame on the episode clock, ns, ascending; nothing is decoded.

    A `VideoWindow` brings its own clock (PTS - start); for the others it is the camera's `t_ns`, after checking
    that the file holds that many frames.

    Raises:
        SourceError: missing, cut or corrupt video, too few frames, none at all, or more than `max_frames`.
    """
    frames = camera.frames
    if isinstance(frames, VideoWindow):
        start_ns, end_ns = ns_from_seconds([frames.start_s, frames.end_s]).tolist()
        with _open(frames, max_frames) as video:
            times_ns = window_times(video, start_ns, end_ns)
        return np.asarray(times_ns - start_ns, dtype=np.int64)
    assert camera.t_ns is not None  # Camera.__post_init__
    if len(camera.t_ns) > max_frames:
        problem = f"{len(camera.t_ns)} frames; expected at most {max_frames}"
        raise SourceError(Code.TOO_LONG, problem, where=f"camera {camera.name}")
    if isinstance(frames, VideoSpan):
        with _open(frames, max_frames) as video:
            check_span(video, frames.first_frame, frames.num_frames)
    if isinstance(frames, ArrayFrames):
        check_array(frames)
    return np.array(camera.t_ns, dtype=np.int64)


def frame_size(camera: Camera, clock_ns: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Width and height of the first frame as it is stored; only that is decoded.

    Raises:
        SourceError: it cannot be decoded.
    """
    with _opened(camera, clock_ns, np.zeros(1, dtype=np.int64), 1, MAX_FRAMES) as source:
        picture = next(iter(source.pictures))
    return picture.width, picture.height


def nearest_frames(
    clock_ns: npt.NDArray[np.int64], grid_ns: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """For each grid instant the index of the frame nearest in time; of two equally near the earlier."""
    after = np.clip(np.searchsorted(clock_ns, grid_ns), 1, max(1, len(clock_ns) - 1))
    if len(clock_ns) == 1:
        return np.zeros(len(grid_ns), dtype=np.int64)
    is_before = grid_ns - clock_ns[after - 1] <= clock_ns[after] - grid_ns
    return (after - is_before).astype(np.int64)


def write_video(
    camera: Camera,
    clock_ns: npt.NDArray[np.int64],
    grid_ns: npt.NDArray[np.int64],
    out: Path,
    recipe: VideoSettings,
    *,
    num_threads: int = 1,
    rate_hz: Fraction = Fraction(10),
    max_frames: int = MAX_FRAMES,
) -> VideoFacts:
    """Write the frames of `camera` nearest to `grid_ns` as an MP4 whose picture k is at exactly k / rate.

    Args:
        clock_ns: [N] from `frame_clock` of the same camera.
        grid_ns: [T] instants on the episode clock, ascending.
        out: written directly and flushed to the disk; removed again when an error ends the work.
        num_threads: for the decoder; the encoder always has one, so that bytes do not depend on it.

    Raises:
        SourceError: this camera's pictures are unusable.
        TransientError: `out` could not be written.
    """
    if len(grid_ns) == 0 or len(clock_ns) == 0:
        raise SourceError(
            Code.EMPTY_EPISODE, "the camera has no frames", where=f"camera {camera.name}"
        )
    if len(clock_ns) > max_frames or len(grid_ns) > max_frames:
        problem = f"{max(len(clock_ns), len(grid_ns))} frames; expected at most {max_frames}"
        raise SourceError(Code.TOO_LONG, problem, where=f"camera {camera.name}")
    chosen = nearest_frames(clock_ns, grid_ns)
    shown, num_steps = np.unique(chosen, return_counts=True)
    with _opened(camera, clock_ns, shown, num_threads, max_frames) as source:
        writing = _Writing(
            source=source, recipe=recipe, num_steps=num_steps, rate_hz=rate_hz, out=out
        )
        scaler, stats, was_copied, repeats = writing.run()
    sha256, num_bytes = seal(out)
    return VideoFacts(
        num_frames=len(grid_ns),
        width=scaler.size[0],
        height=scaler.size[1],
        codec="h264",
        sha256=sha256,
        num_bytes=num_bytes,
        worst_skew_ms=float(np.abs(clock_ns[chosen] - grid_ns).max()) / 1e6,
        repeated_share=float((np.diff(chosen) == 0).sum()) / len(grid_ns),
        was_copied=was_copied,
        source_num_frames=len(clock_ns),
        source_rate_hz=source.video.rate_hz if source.video else None,
        source_codec=source.codec,
        color=scaler.colour.tags,
        rotation_deg=90 * scaler.turns,
        image_stats=stats.result(),
        repeats=repeats,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _FrameSource:
    """The chosen pictures of a camera, ready to be decoded once, in order."""

    where: str
    codec: str
    pictures: Iterator[VideoFrame]
    is_bgr: bool = False
    video: Video | None = None  # None for single pictures
    times_ns: Times | None = None  # of the chosen pictures on the container's clock
    is_consecutive: bool = False  # no picture of the file lies between them


@contextmanager
def _opened(
    camera: Camera, clock_ns: Times, shown: Times, num_threads: int, max_frames: int
) -> Iterator[_FrameSource]:
    frames = camera.frames
    if isinstance(frames, EncodedImages):
        yield _FrameSource(
            where=f"camera {camera.name}",
            codec=image_codec(frames.images[int(shown[0])], f"camera {camera.name}"),
            pictures=decoded_images(frames.images, shown.tolist(), camera.name),
            is_bgr=frames.is_bgr,
        )
        return
    if isinstance(frames, ArrayFrames):
        pictures = array_images(frames, shown.tolist())
        yield _FrameSource(where=f"camera {camera.name}", codec=CODEC, pictures=pictures)
        return
    times_ns = _container_times(frames, clock_ns, shown, max_frames)
    with _open(frames, max_frames, num_threads=num_threads, probes=False) as video:
        yield _FrameSource(
            where=frames.path,
            codec=video.stream.codec_context.codec.canonical_name,
            pictures=decoded(video, times_ns, needed_only=True),
            video=video,
            times_ns=times_ns,
            is_consecutive=int(shown[-1] - shown[0]) + 1 == len(shown),
        )


def _open(
    frames: VideoSpan | VideoWindow,
    max_frames: int,
    *,
    num_threads: int | None = None,
    probes: bool = True,
) -> AbstractContextManager[Video]:
    return open_video(
        frames.path,
        num_threads=num_threads,
        max_frames=max_frames,
        byte_range=frames.byte_range,
        probes=probes,
    )


def _container_times(
    frames: VideoSpan | VideoWindow, clock_ns: Times, shown: Times, max_frames: int
) -> Times:
    """Instants of the frames `shown` on the container's clock."""
    if isinstance(frames, VideoWindow):
        return np.asarray(clock_ns[shown] + int(ns_from_seconds(frames.start_s)), dtype=np.int64)
    first, last = int(shown[0]), int(shown[-1])
    with _open(frames, max_frames) as video:
        times_ns = span_times(video, frames.first_frame + first, last - first + 1)
    return np.asarray(times_ns[shown - first], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Writing:
    """One pass over the chosen pictures; `num_steps` [M] says for how many grid steps each is shown."""

    source: _FrameSource
    recipe: VideoSettings
    num_steps: npt.NDArray[np.int64]
    rate_hz: Fraction
    out: Path

    def run(self) -> tuple[Scaler, ImageStatistics, bool, tuple[Repeat, ...]]:
        first = next(self.source.pictures)
        scaler = Scaler(
            first,
            short_side_px=self.recipe.short_side_px,
            is_bgr=self.source.is_bgr,
            where=self.source.where,
        )
        pictures = chain((first,), self.source.pictures)
        stats = ImageStatistics()
        source = SourceSteps(int(self.num_steps.sum()))
        if self._is_kept(first, scaler) and self._copy(pictures, scaler, stats, source):
            return scaler, stats, True, source.repeats()
        options = x264_options(crf=self.recipe.crf, preset=self.recipe.preset, gop=self.recipe.gop)
        with Encoder(self.out, scaler.size, scaler.colour, self.rate_hz, options) as encoder:
            for frame, steps in self._scaled(pictures, scaler, stats, source):
                for step in steps:
                    encoder.write(frame, step)
        return scaler, stats, False, source.repeats()

    def _scaled(
        self,
        pictures: Iterator[VideoFrame],
        scaler: Scaler,
        stats: ImageStatistics,
        source: SourceSteps,
    ) -> Iterator[tuple[VideoFrame, range]]:
        """Each picture scaled, with the grid steps that show it; the sampled ones are counted."""
        num_total = int(self.num_steps.sum())
        is_sampled = np.zeros(num_total, dtype=bool)
        is_sampled[sampled_frames(num_total)] = True
        start = 0
        for frame, num_steps in zip(pictures, self.num_steps.tolist(), strict=True):
            steps = range(start, start + num_steps)
            source.see(frame, steps.start)
            start = steps.stop
            scaled = scaler.scale(frame)
            num_sampled = int(is_sampled[steps.start : steps.stop].sum())
            if num_sampled:
                stats.add(scaler.rgb(scaled), num_sampled)
            yield scaled, steps

    def _is_kept(self, first: VideoFrame, scaler: Scaler) -> bool:
        """Whether the stored pictures are already what would be encoded: size, format, range, one per step."""
        return (
            self.source.video is not None
            and self.source.is_consecutive
            and scaler.size == (first.width, first.height)
            and scaler.turns == 0
            and scaler.is_yuv420p_limited
            and bool(self.num_steps.max() == 1)
        )

    def _copy(
        self,
        pictures: Iterator[VideoFrame],
        scaler: Scaler,
        stats: ImageStatistics,
        source: SourceSteps,
    ) -> bool:
        """Copy packets when `ingest.video.copy` can; False leaves `pictures` untouched."""
        video, times_ns = self.source.video, self.source.times_ns
        assert video is not None
        assert times_ns is not None
        plan = copy_plan(video.file, times_ns, rate_hz=self.rate_hz, gop=self.recipe.gop)
        if plan is None:
            return False
        for _ in self._scaled(pictures, scaler, stats, source):
            pass  # decoded all the same: for the statistics, and so that damage is found
        copy_packets(video.file, times_ns, plan, self.out, self.rate_hz)
        return True
