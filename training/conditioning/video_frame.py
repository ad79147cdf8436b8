"""One picture of an episode's video, as it is stored.

`ingest/video/timestep_pictures.py` is no second one: it goes through many pictures and leaves out what none of them needs; here one is
sought. What both must agree on, what is opened and what is damage, is `schemas/av_options.py`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from schemas.av_options import DECODER_OPTIONS, open_video
from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.json_text import read_json
from schemas.lerobot import CHUNK_SIZE, INFO_LIMITS, MOST_FPS, VIDEO_PATH
from schemas.manifest import ManifestRow
from schemas.vlm import Picture
from training.data.broken import broken_sample
from training.data.recording import inside

_VERIFY = "run `eicorpus verify CORPUS`"


def picture_of(corpus: Path, row: ManifestRow, camera: str, timestep: int) -> Picture:
    """[H, W, 3] RGB at a timestep of the episode.

    Raises:
        SourceError: the video is missing or damaged, or has no picture then; the message has its file, episode and timestep.
    """
    relative = VIDEO_PATH.format(
        episode_chunk=row.episode_index // CHUNK_SIZE,
        episode_index=row.episode_index,
        video_key=f"observation.images.{camera}",
    )
    where = f"{row.dataset_path}/{relative}"
    try:
        path = inside(corpus, where)
        return frame_at(path, timestep / rate_hz_of(corpus, row.dataset_path))
    except ConfigError as error:
        raise broken_sample(row, timestep, where, error) from error


def frame_at(path: Path, at_s: float) -> Picture:
    """[H, W, 3] RGB shown at exactly `at_s`: from the keyframe at or before it, as many as it takes.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        with open_video(path, format_name="mp4") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = dict(DECODER_OPTIONS)
            stream.thread_count = 1  # loader workers are threads already
            assert stream.time_base is not None
            pts = (stream.start_time or 0) + round(at_s / stream.time_base)
            container.seek(pts, stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts == pts:
                    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                if frame.pts is None or frame.pts > pts:
                    break
    except (av.FFmpegError, OSError, IndexError, SourceError) as error:
        raise ConfigError(
            system_error_text(error, str(path)), remedy=_VERIFY, where=str(path)
        ) from error
    raise ConfigError(f"no frame at {at_s:.3f} s", remedy=_VERIFY, where=str(path))


@lru_cache(maxsize=256)
def rate_hz_of(corpus: Path, dataset_path: str) -> float:
    """Timesteps a second of a LeRobot dataset.

    Raises:
        ConfigError: its `meta/info.json` does not say it, or lies outside the corpus.
    """
    path = inside(corpus, f"{dataset_path}/meta/info.json")
    try:
        fps = float(read_json(path, limits=INFO_LIMITS)["fps"])
        if not 0 < fps <= MOST_FPS:
            raise ValueError(f"{fps} of them")
        return fps
    except (SourceError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"has no valid fps ({error!r})", remedy=_VERIFY, where=str(path)
        ) from error
