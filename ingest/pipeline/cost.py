"""What a plan will cost: core-hours, terabytes of video and objects, from the cameras of a few of its episodes.

The speeds are those of one core of an AMD EPYC virtual machine, fitted to `docs/results/data/ingest.json`: seconds of an output frame are its
source pixels over `DECODE_PX_PER_S` plus its output pixels over `ENCODE_PX_PER_S`. The fit is within 7 % of the three sizes measured there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.registry import adapter_for
from ingest.executors.local import LocalPool
from ingest.executors.node_proof import spread
from ingest.pipeline.plan import Plan, Request
from ingest.pipeline.process import is_required
from ingest.raw_data.bucket_source import BucketSource, let_go, reading
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from ingest.transforms import time_grid
from ingest.video.camera_video import frame_clock, frame_size
from schemas.episode import EpisodeRef
from schemas.stored_size import output_size

DECODE_PX_PER_S = 272e6
ENCODE_PX_PER_S = 57e6
# H.264, crf 23, `veryfast`: 1.2 kB a frame of 224 × 224. Noise and motion change it by a factor of three.
BYTES_PER_PX = 1200 / 224**2
PROBED = 3  # episodes, the first and the last among them
DATA_FILES = 1  # of an episode, beside its videos
# More requests where workers upload: staged rows; of a video its upload, and the three of a copy that S3 makes only where nothing is.
ROWS_PUTS, VIDEO_PUTS = 1, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeCost:
    """Of one probed episode."""

    duration_s: float
    core_s: float
    video_bytes: float
    num_cameras: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCost:
    """Of a plan. All but the number of episodes are estimates."""

    num_probed: int
    hours: float  # of recording: from the metadata, else from the probed episodes
    core_hours: float
    video_bytes: int
    num_objects: int  # files of episodes
    num_puts: int  # requests that a bucket charges as PUT


def ingest_cost(
    plan: Plan, request: Request, limits: Limits, *, workers_upload: bool = False
) -> IngestCost | None:
    """None where none of the probed episodes can be read. They are read in a worker process, under the limits of a run."""
    todo = [ref for ref in plan.todo if ref.problem is None]
    let_go(request.bucket)
    probed = _probed(spread(todo, PROBED), request, limits)
    return estimate(todo, probed, request.recipe, workers_upload=workers_upload)


def estimate(
    todo: Sequence[EpisodeRef],
    probed: Sequence[EpisodeCost],
    recipe: Recipe,
    *,
    workers_upload: bool = False,
) -> IngestCost | None:
    """Of episodes, by those that were probed.

    Args:
        workers_upload: to `staging/` of a bucket, from where the driver copies.
    """
    duration_s = sum(each.duration_s for each in probed)
    if not duration_s:
        return None
    hours = _recorded_s(todo, duration_s / len(probed), recipe) / 3600
    per_recorded_s = hours * 3600 / duration_s
    cameras = sum(each.num_cameras for each in probed) / len(probed)
    uploads = ROWS_PUTS + VIDEO_PUTS * cameras if workers_upload else 0
    return IngestCost(
        num_probed=len(probed),
        hours=hours,
        core_hours=sum(each.core_s for each in probed) * per_recorded_s / 3600,
        video_bytes=round(sum(each.video_bytes for each in probed) * per_recorded_s),
        num_objects=round(len(todo) * (DATA_FILES + cameras)),
        num_puts=round(len(todo) * (DATA_FILES + cameras + uploads)),
    )


def _recorded_s(todo: Sequence[EpisodeRef], probed_mean_s: float, recipe: Recipe) -> float:
    """Lengths of the metadata. An episode without one that can be true has the mean of the others, or of the probed."""
    hints_s = [ref.duration_hint_s for ref in todo]
    known_s = [each for each in hints_s if 0 < each <= recipe.max_episode_s]
    mean_s = sum(known_s) / len(known_s) if known_s else probed_mean_s
    return sum(known_s) + mean_s * (len(todo) - len(known_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """What a worker process reads one episode for."""

    ref: EpisodeRef
    source: str
    recipe: Recipe
    bucket: BucketSource | None


def _probed(refs: Sequence[EpisodeRef], request: Request, limits: Limits) -> list[EpisodeCost]:
    """What cannot be read is set aside by the run and costs next to nothing."""
    if not refs:
        return []
    with LocalPool(1, limits) as pool:
        futures = [
            pool.submit(
                _cost_or_none,
                _Probe(
                    ref=ref, source=request.source, recipe=request.recipe, bucket=request.bucket
                ),
            )
            for ref in refs
        ]
        costs = [pool.result(future) for future in futures]
    return [cost for cost in costs if isinstance(cost, EpisodeCost)]


def _cost_or_none(probe: _Probe, disk: LocalStorage) -> EpisodeCost | None:
    """A worker body."""
    try:
        with reading(probe.bucket):
            return _cost_of(probe.ref, probe.source, probe.recipe)
    except Exception:  # noqa: BLE001  the run itself names what is wrong with an episode
        return None


def _cost_of(ref: EpisodeRef, source: str, recipe: Recipe) -> EpisodeCost:
    episode = adapter_for(source).load(ref)
    clocks = {camera.name: frame_clock(camera) for camera in episode.cameras}
    streams = (stream.t_ns for stream in episode.streams if is_required(stream.name))
    required = [*clocks.values(), *streams]
    num_steps = len(time_grid.grid(required, recipe.rate_hz, recipe.max_episode_s))
    core_s = video_bytes = 0.0
    for camera in episode.cameras:
        width, height = frame_size(camera, clocks[camera.name])
        out_width, out_height = output_size(width, height, recipe.video.short_side_px)
        out_px = num_steps * out_width * out_height
        core_s += len(clocks[camera.name]) * width * height / DECODE_PX_PER_S
        core_s += out_px / ENCODE_PX_PER_S
        video_bytes += out_px * BYTES_PER_PX
    return EpisodeCost(
        duration_s=num_steps / float(recipe.rate_hz),
        core_s=core_s,
        video_bytes=video_bytes,
        num_cameras=len(episode.cameras),
    )
