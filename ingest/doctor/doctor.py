"""A look at a source before ingesting it: a few episodes go through the very pipeline, and their numbers are judged.

What is drawn and measured is what the corpus would hold, so a wrong convention shows: a hand beside its picture, metres
that are millimetres, a gripper that moves the wrong way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from adapters.registry import adapter_for
from ingest.check import Check
from ingest.corpus.staging import staged_rows_of
from ingest.doctor.eef_checks import eef_checks, worst_speed_m_s
from ingest.doctor.hand_checks import approach_directions, hand_checks, pooled_approach
from ingest.doctor.hand_drawing import View, draw_hands, enlarged, scale_of, titled
from ingest.doctor.kinematics_checks import episode_kinematics
from ingest.doctor.staged_columns import ACTION, STATE, Columns, columns_of
from ingest.doctor.stream_checks import clock_checks, command_checks
from ingest.pipeline.assets import NO_ASSETS, Assets, robot_for
from ingest.pipeline.process import Work, is_required, process
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from ingest.video.camera_video import frame_clock
from schemas.av_options import open_video
from schemas.embodiment import embodiment_for
from schemas.episode import SIDES, Episode, EpisodeRef
from schemas.geometry import rotmat_from_rot6d_cols, transform
from schemas.outcome import Outcome, StagedEpisode, State

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """One named element of a vector over the examined episode."""

    feature: str
    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One episode as the pipeline sees it."""

    episode_id: str
    outcome: Outcome
    ranges: tuple[Range, ...] = ()
    worst_speed_m_s: dict[str, float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    complaints: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    approaches: tuple[tuple[str, Array, bool], ...] = ()  # side, [G, 3] ways, axes known


def examine(
    refs: Sequence[EpisodeRef],
    adapter: str,
    recipe: Recipe,
    *,
    num_pictures: int,
    assets: Assets = NO_ASSETS,
) -> Iterator[Examined]:
    """Process each reference in a folder of its own that is gone afterwards, and judge what came out."""
    for ref in refs:
        with tempfile.TemporaryDirectory() as folder:
            staging = Path(folder) / "staged"
            work = Work(
                ref=ref, adapter=adapter, recipe=recipe, staging=str(staging), assets=assets
            )
            outcome = process(work, LocalStorage(Path(folder)))
            if outcome.state is State.STAGED and outcome.staged is not None:
                yield _judged(work, outcome, outcome.staged, staging, num_pictures)
            else:
                yield Examined(episode_id=ref.episode_id, outcome=outcome)


def over_all(examined: Sequence[Examined]) -> tuple[Check, ...]:
    """What several episodes tell together."""
    return tuple(pooled_approach(way for one in examined for way in one.approaches))


def _judged(
    work: Work, outcome: Outcome, staged: StagedEpisode, folder: Path, num_pictures: int
) -> Examined:
    columns = columns_of(staged_rows_of(folder), staged)
    # A second reading: what the source says on its own clocks is not in what is staged.
    episode = adapter_for(work.adapter).load(work.ref)
    checks = (
        *_source_checks(episode, work),
        *_staged_checks(columns, staged, episode, work.recipe),
    )
    ranges = tuple(_ranges(columns, staged))
    return Examined(
        episode_id=work.ref.episode_id,
        outcome=outcome,
        ranges=ranges,
        worst_speed_m_s=_speeds(columns, float(work.recipe.rate_hz)),
        checks=checks,
        complaints=tuple(_complaints(staged, ranges, checks)),
        pictures=tuple(
            _pictures(staged, columns, folder, num_pictures, float(work.recipe.rate_hz))
        ),
        approaches=tuple(
            (side, approach_directions(columns, side), columns.hand(side) is not None)
            for side in columns.sides
        ),
    )


def _source_checks(episode: Episode, work: Work) -> Iterator[Check]:
    clocks = {f"camera {c.name}": frame_clock(c) for c in episode.cameras}
    clocks |= {f"{hand.side} hand": hand.t_ns for hand in episode.hands}
    clocks |= {s.name: s.t_ns[s.valid] for s in episode.streams if is_required(s.name)}
    yield from clock_checks(clocks, float(episode.rate_hz), work.recipe)
    yield from command_checks(episode, work.recipe)
    robot = robot_for(work.assets, episode.embodiment)
    yield from episode_kinematics(episode, robot, work.recipe)


def _staged_checks(
    columns: Columns, staged: StagedEpisode, episode: Episode, recipe: Recipe
) -> Iterator[Check]:
    is_upright = episode.world_up is not None and bool(staged.episode.camera_motion_removed)
    body = embodiment_for(staged.robot_type)
    yield from eef_checks(columns, body, float(recipe.rate_hz), is_upright=is_upright)
    if episode.hands:
        measured = {row.name: row.value for row in staged.measurements if row.value is not None}
        yield from hand_checks(columns, measured, recipe.hands)


def _ranges(columns: Columns, staged: StagedEpisode) -> Iterator[Range]:
    for feature, values in columns.values.items():
        if staged.features[feature]["dtype"] == "float32":
            for i, name in enumerate(columns.names[feature]):
                low, high = float(values[:, i].min()), float(values[:, i].max())
                yield Range(feature=feature, name=name, low=low, high=high)


def _speeds(columns: Columns, rate_hz: float) -> dict[str, float]:
    return {
        f"{feature} {side}": worst_speed_m_s(hand.T[:, :3, 3], hand.valid, rate_hz)
        for feature in (STATE, ACTION)
        for side in SIDES
        if (hand := columns.hand(side, feature)) is not None
    }


def _complaints(
    staged: StagedEpisode, ranges: Sequence[Range], checks: Sequence[Check]
) -> Iterator[str]:
    """Plain sentences for what no sound episode shows."""
    for check in checks:
        if check.has_failed:
            yield f"{f'{check.side} ' if check.side else ''}{check.name}: {check.explanation}"
    for r in ranges:
        if r.name.endswith("gripper_opening") and r.low == r.high:
            yield f"{r.feature} {r.name} is constantly {r.low:g}: there is no gripper, or the column is wrong"
    if staged.episode.action_coverage < 0.5 and staged.spec:
        yield f"only {staged.episode.action_coverage:.0%} of the timesteps have a fully valid action"
    for limit in staged.episode.supervision_limits:
        yield f"supervises less: {limit}"


def _pictures(
    staged: StagedEpisode, columns: Columns, folder: Path, count: int, rate_hz: float
) -> Iterator[Picture]:
    """A row of pictures for each camera, the hands drawn in where the camera's model is known."""
    left_in = {f["value"] for f in staged.episode.facts if f["name"].startswith("hand_frame.")}
    for camera in staged.episode.cameras:
        at = np.unique(np.linspace(0, staged.episode.length - 1, count).round().astype(int))
        frames = _frames(folder / f"{camera['name']}.mp4", set(at.tolist()))
        pose = columns.values.get(f"observation.camera_pose.{camera['name']}")
        if camera["name"] in left_in:  # its hands are in its own frame
            pose = np.tile([0, 0, 0, 1, 0, 0, 0, 1, 0], (staged.episode.length, 1)).astype(float)
        row = []
        scale = scale_of(camera["width"])
        for k, small in zip(at, frames, strict=True):
            picture = enlarged(small, scale)
            label = f"{k / rate_hz:.1f} s"
            if pose is not None and STATE in columns.values and camera["K_cam"] is not None:
                view = View(T_ref_cam=_pose_of(pose[k]), camera=camera, scale=scale)
                believed = {side for side in columns.sides if _is_believed(columns, side, int(k))}
                state, names = columns.values[STATE][k], columns.names[STATE]
                draw_hands(picture, view, state, names, staged.robot_type, believed)
                label += "".join(f" {side}?" for side in columns.sides if side not in believed)
            cv2.putText(picture, label, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
            row.append(picture)
        size = f"{camera['width']} x {camera['height']} px" + (
            f", enlarged {scale} times" if scale > 1 else ""
        )
        yield titled(np.hstack(row), f"{camera['name']}, {size}")


def _is_believed(columns: Columns, side: str, k: int) -> bool:
    """Whether there is a hand at timestep k: what is stored where it is not valid is an old pose, and looks like a wrong one."""
    hand = columns.hand(side)
    return hand is not None and bool(hand.valid[k])


def _frames(path: Path, numbers: set[int]) -> list[Picture]:
    with open_video(path) as container:
        return [
            np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
            for index, frame in enumerate(container.decode(video=0))
            if index in numbers
        ]


def _pose_of(pose9: Array) -> Array:
    return transform(rotmat_from_rot6d_cols(pose9[3:9]), pose9[:3])


def contact_sheet(examined: Sequence[Examined]) -> Picture | None:
    """All rows of pictures below each other, on black, each under a line that names it; None when no episode has a camera."""
    rows = [
        picture
        for one in examined
        for picture in (
            [titled(one.pictures[0], one.episode_id), *one.pictures[1:]] if one.pictures else []
        )
    ]
    if not rows:
        return None
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=0) for row in rows
    ]
    return np.vstack(padded)


def as_json(one: Examined) -> dict[str, Any]:
    """An examined episode as data."""
    return {
        "episode_id": one.episode_id,
        "state": one.outcome.state.value,
        "code": one.outcome.code,
        "message": one.outcome.message,
        "ranges": [
            {"feature": r.feature, "name": r.name, "low": r.low, "high": r.high} for r in one.ranges
        ],
        "worst_speed_m_s": one.worst_speed_m_s,
        "checks": [check.as_row() for check in one.checks],
        "complaints": list(one.complaints),
    }
