"""What a plan will cost: core-hours, terabytes of video and objects, from the cameras of a few of its episodes.

The speeds are those of one core of an AMD EPYC virtual machine, fitted to `docs/results/data/ingest.json`: seconds of an output frame are its
source pixels over `DECODE_PX_PER_S` plus its output pixels over `ENCODE_PX_PER_S`. The fit is within 7 % of the three sizes measured there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adapters.registry import adapter_for
from ingest.executors.node_proof import spread
from ingest.pipeline.plan import Plan, Request
from ingest.pipeline.process import is_required
from ingest.recipe import Recipe
from ingest.transforms import time_grid
from ingest.video.camera_video import frame_clock, frame_size
from ingest.video.scale import output_size
from schemas.episode import EpisodeRef
from schemas.errors import PipelineError

DECODE_PX_PER_S = 272e6
ENCODE_PX_PER_S = 57e6
# H.264, crf 23, `veryfast`: 1.2 kB a frame of 224 × 224. Noise and motion change it by a factor of three.
BYTES_PER_PX = 1200 / 224**2
PROBED = 3  # episodes, the first and the last among them
DATA_FILES = 1  # of an episode, beside its videos


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
    num_objects: int  # files of episodes; each is one PUT in a bucket


def ingest_cost(plan: Plan, request: Request) -> IngestCost | None:
    """None where none of the probed episodes can be read."""
    todo = [ref for ref in plan.todo if ref.problem is None]
    probed = list(_probed(spread(todo, PROBED), request))
    duration_s = sum(each.duration_s for each in probed)
    if not duration_s:
        return None
    mean_s = duration_s / len(probed)
    hours = plan.hours or mean_s * len(todo) / 3600
    per_recorded_s = hours * 3600 / duration_s
    cameras = sum(each.num_cameras for each in probed) / len(probed)
    return IngestCost(
        num_probed=len(probed),
        hours=hours,
        core_hours=sum(each.core_s for each in probed) * per_recorded_s / 3600,
        video_bytes=round(sum(each.video_bytes for each in probed) * per_recorded_s),
        num_objects=round(len(todo) * (DATA_FILES + cameras)),
    )


def _probed(refs: Iterable[EpisodeRef], request: Request) -> Iterable[EpisodeCost]:
    """What cannot be read is quarantined by the run and costs next to nothing."""
    for ref in refs:
        try:
            yield _cost_of(ref, request.source, request.recipe)
        except (PipelineError, OSError):
            continue


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
