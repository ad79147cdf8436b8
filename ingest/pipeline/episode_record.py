"""What a processed episode says about itself: its rows, its LeRobot features, its catalog rows, its digest. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.corpus.digest import content_digest, rows_digest
from ingest.corpus.lerobot_writer import TASK_COLUMN, column_stats, staged_table
from ingest.recipe import Recipe
from ingest.transforms import resample, time_grid
from ingest.transforms.action_vector import Vectors
from ingest.transforms.hands import CanonicalHand
from ingest.transforms.resample import Mask
from ingest.video.camera_video import VideoFacts
from schemas.catalog_rows import (
    CameraValue,
    EpisodeFacts,
    MeasurementRow,
    rows_of,
    table_of,
)
from schemas.episode import Episode
from schemas.fact import Certainty
from schemas.lerobot import vector_feature, video_feature
from schemas.outcome import StagedEpisode, StagedVideo
from schemas.split import default_split, split_group
from schemas.supervision import allowed_tasks

MEASUREMENT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProcessedEpisode:
    """An episode after processing, before it has a place in the corpus. K timesteps."""

    episode: Episode
    adapter_version: int
    options_digest: str
    recipe: Recipe
    at: time_grid.Instants  # [K] the grid
    clocks: Mapping[str, time_grid.Instants]  # camera -> instants of its source frames
    vectors: Vectors
    hands: tuple[CanonicalHand, ...] = ()
    absent_cameras: tuple[str, ...] = ()  # have no file
    videos: Mapping[str, VideoFacts]

    @property
    def texts(self) -> list[str]:
        """The task text of each timestep."""
        return resample.task_of_timesteps(self.episode.instructions, self.at)

    @property
    def seen(self) -> Mask:
        """[K] True where every observed slice is valid and every camera has a frame near enough to the instant."""
        near = [np.ones(len(self.at), dtype=bool), self.vectors.observed]
        for instants in self.clocks.values():
            limit = time_grid.gap_limit_ns(
                instants, gap_periods=self.recipe.gap_periods, gap_ms=self.recipe.gap_ms
            )
            chosen = instants[time_grid.nearest(instants, self.at)]
            near.append(np.abs(chosen - self.at) <= limit // 2)
        return np.asarray(np.logical_and.reduce(near))


def staged_rows(canonical: ProcessedEpisode) -> pa.Table:
    """The numeric columns, and for each timestep the index of its text among the episode's tasks."""
    texts = canonical.texts
    tasks = list(dict.fromkeys(texts))
    columns = {name: named.values for name, named in canonical.vectors.features.items()}
    return staged_table(columns, np.array([tasks.index(t) for t in texts], dtype=np.int64))


def describe(canonical: ProcessedEpisode, table: pa.Table) -> StagedEpisode:
    """Everything the committer needs to register the episode; `table` is from `staged_rows`."""
    episode, vectors, videos = canonical.episode, canonical.vectors, canonical.videos
    texts, seen = canonical.texts, canonical.seen
    features = _features(canonical)
    rate_hz = float(canonical.recipe.rate_hz)
    segments = resample.segment_rows(
        episode.ref.uid, seen, episode.instructions, canonical.at, rate_hz
    )
    measurements = _measurements(canonical, seen)
    # Through the table and back, so that the digest sees the types the row will be read back with.
    written = table_of(EpisodeFacts, [_episode_facts(canonical, texts, seen)])
    (facts,) = rows_of(EpisodeFacts, written)
    digest = content_digest(
        rows_sha256=rows_digest(table.drop_columns([TASK_COLUMN]), texts),
        videos={name: video.sha256 for name, video in videos.items()},
        episode=facts,
        segments=segments,
        measurements=measurements,
    )
    stats = {name: column_stats(named.values) for name, named in vectors.features.items()}
    return StagedEpisode(
        group=_group(episode, features),
        robot_type=episode.embodiment,
        features=features,
        spec=[[s.name, s.width, s.unit] for s in vectors.spec.slices] if vectors.spec else [],
        episode=replace(facts, content_sha256=digest),
        segments=segments,
        measurements=measurements,
        stats=stats,
        videos=[_staged_video(name, video) for name, video in videos.items()],
    )


def _features(canonical: ProcessedEpisode) -> dict[str, dict[str, Any]]:
    """The LeRobot feature table of the episode, sorted by name so that equal episodes have equal tables."""
    numeric = {
        name: vector_feature("bool" if named.values.dtype == bool else "float32", named.names)
        for name, named in sorted(canonical.vectors.features.items())
    }
    pictures = {
        f"observation.images.{name}": video_feature(
            width=facts.width,
            height=facts.height,
            codec=facts.codec,
            fps=int(canonical.recipe.rate_hz),
        )
        for name, facts in sorted(canonical.videos.items())
    }
    return {**numeric, **pictures}


def _group(episode: Episode, features: Mapping[str, Any]) -> str:
    """Which LeRobot dataset the episode joins.

    A LeRobot dataset has one feature table, so episodes that differ in cameras or vectors cannot share one: the folder's
    name ends in a digest of the table, which makes it independent of the order of work.
    """
    schema = hashlib.sha256(json.dumps(features, sort_keys=True).encode()).hexdigest()[:8]
    parts = [episode.ref.dataset, episode.embodiment, schema]
    if episode.ref.dataset == episode.ref.source:
        parts = parts[1:]
    return f"datasets/{episode.ref.source}/{'.'.join(parts)}"


def _measurements(canonical: ProcessedEpisode, seen: Mask) -> list[MeasurementRow]:
    """What ingestion measured by the way; curation measures the rest."""
    measured = [
        ("source_rate", float(canonical.episode.rate_hz), "Hz"),
        ("action_coverage", canonical.vectors.action_coverage, "share"),
        ("observed_coverage", float(np.mean(seen)), "share"),
    ]
    for hand in canonical.hands:
        measured += [(name, value, _unit_of(name)) for name, value in hand.measured.items()]
    for name, facts in sorted(canonical.videos.items()):
        measured.append((f"worst_image_skew.{name}", facts.worst_skew_ms, "ms"))
        measured.append((f"repeated_frame_share.{name}", facts.repeated_share, "share"))
    return [
        MeasurementRow(
            uid=canonical.episode.ref.uid,
            name=name,
            version=MEASUREMENT_VERSION,
            value=value,
            unit=unit,
            start=None,
            end=None,
            denominator=len(seen),
        )
        for name, value, unit in measured
    ]


def _unit_of(measurement: str) -> str:
    """The unit that a measurement of a hand has in its name."""
    stem = measurement.split(".")[0]
    return {"mm": "mm", "deg": "deg", "scale": "ratio"}.get(stem.rsplit("_", 1)[-1], "share")


def _episode_facts(canonical: ProcessedEpisode, texts: list[str], seen: Mask) -> EpisodeFacts:
    """The episode's row of the catalog, without its place and its digest."""
    episode, vectors, videos = canonical.episode, canonical.vectors, canonical.videos
    facts = (*episode.facts, *vectors.facts)
    supervises, limits = allowed_tasks(
        facts=facts, has_camera=bool(videos), action_coverage=vectors.action_coverage
    )
    tasks = list(dict.fromkeys(texts))
    duration_s = len(texts) / float(canonical.recipe.rate_hz)
    return EpisodeFacts(
        uid=episode.ref.uid,
        source=episode.ref.source,
        dataset=episode.ref.dataset,
        episode_id=episode.ref.episode_id,
        embodiment=episode.embodiment,
        length=len(texts),
        duration_s=duration_s,
        hours=duration_s / 3600,
        tasks=tasks,
        task_counts=[texts.count(task) for task in tasks],
        cameras=[_camera_row(episode, name, video_facts) for name, video_facts in videos.items()],
        absent_cameras=list(canonical.absent_cameras),
        eef_frame=vectors.eef_frame,
        frames_verified=vectors.eef_frame == "hand_xfz"
        and all(
            f.certainty is Certainty.VERIFIED
            for f in vectors.facts
            if f.name.startswith("eef_axes")
        ),
        camera_motion_removed=_camera_motion_removed(episode, vectors),
        action_source=vectors.action_source,
        action_coverage=vectors.action_coverage,
        command_only=list(vectors.command_only),
        supervises=[task.value for task in supervises],
        supervision_limits=list(limits),
        source_rate_hz=float(episode.rate_hz),
        source_rate=str(episode.rate_hz),
        worst_image_skew_ms=max((v.worst_skew_ms for v in videos.values()), default=None),
        repeated_frame_share=max((v.repeated_share for v in videos.values()), default=None),
        source_repeats=[
            {"camera": name, "start": r.start, "end": r.end, "luma": r.luma}
            for name, video_facts in sorted(videos.items())
            for r in video_facts.repeats
        ],
        num_gaps=len(resample.runs(~seen)),
        success=episode.success,
        subject_id=episode.subject_id,
        scene_id=episode.scene_id,
        split_group=split_group(episode),
        split=default_split(split_group(episode), episode.ref.source_split),
        source_split=episode.ref.source_split,
        licence=episode.licence.name,
        licence_class=episode.licence.licence_class,
        allows_redistribution=episode.licence.allows_redistribution,
        facts=[fact.as_row() for fact in facts],
        raw_files=[
            {"path": f.path, "num_bytes": f.num_bytes, "digest": f.digest}
            for f in episode.raw_files
        ],
        adapter_version=canonical.adapter_version,
        recipe_digest=canonical.recipe.digest,
        options_digest=canonical.options_digest,
        content_sha256="",
    )


def _camera_motion_removed(episode: Episode, vectors: Vectors) -> bool:
    """What the adapter states, else whether the hand poses are in a frame that does not move with a camera."""
    stated = next((f.value for f in episode.facts if f.name == "camera_motion_removed"), None)
    return vectors.eef_frame != "none" if stated is None else stated == "true"


def _camera_row(episode: Episode, name: str, facts: VideoFacts) -> CameraValue:
    camera = next(c for c in episode.cameras if c.name == name)
    K_stored = None
    # A picture that was turned upright has other axes than its K: none is better than a wrong one.
    if camera.K_cam is not None and camera.K_size is not None and facts.rotation_deg == 0:
        # pixel centres at integers: scale about the picture's corner, half a pixel outside the first centre
        scale = np.array([facts.width / camera.K_size[0], facts.height / camera.K_size[1]])
        K_stored = np.array(camera.K_cam, dtype=np.float64)
        K_stored[:2, :2] *= scale[:, None]
        K_stored[:2, 2] = (K_stored[:2, 2] + 0.5) * scale - 0.5
    return {
        "name": name,
        "width": facts.width,
        "height": facts.height,
        "codec": facts.codec,
        "source_codec": facts.source_codec,
        "was_copied": facts.was_copied,
        "K_cam": None if K_stored is None else K_stored.reshape(-1).tolist(),
        "lens_model": None if K_stored is None else camera.lens.model,
        "lens_params": None if K_stored is None else list(camera.lens.params),
    }


def _staged_video(name: str, facts: VideoFacts) -> StagedVideo:
    return {
        "camera": name,
        "name": f"{name}.mp4",
        "num_bytes": facts.num_bytes,
        "sha256": facts.sha256,
        "num_frames": facts.num_frames,
        "stats": {k: v.tolist() for k, v in facts.image_stats.items()},
    }
