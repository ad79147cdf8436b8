"""How far the corpus is from the truth: what a reader finds on disk against the analytic scene it was made from.

Nothing of the packages is used to read: parquet by pyarrow, pictures by PyAV, rotations by the Gram-Schmidt below. The
scene is exact at any time, so every timestep of every episode is compared, not only those that hit a source sample.

Where timesteps fall between source samples, a straight line (or a great circle) over a period dt is off by up to
a_max dt^2 / 8, a_max being the largest acceleration of the scene: that much is allowed on top, and no more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq

from adapters.registry import ADAPTERS
from benchmarks.raw import mano_model
from ingest.pipeline.assets import NO_ASSETS, Assets
from jobs.demo.raw import Written, agibot_world, ego4d, lerobot, metaworld_hdf5, oxe
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene
from tests import generators
from tests.faults.runs import facts, run
from tests.generators import (
    aloha,
    interndata_a1,
    interndata_a1_raw,
    robomimic,
    video_folder,
)

GRID_HZ = 10
POSITION_MM, ROTATION_DEG, GRIPPER = 0.1, 0.01, 0.01  # allowed where timesteps hit source samples
RAMP_PER_S = 5.0  # the scene's gripper opens or closes in 0.2 s
REST_S = 0.25  # binary commands are compared where the gripper rests for so long before and after
View = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to write the scene down as raw data."""

    name: str
    source: str  # in the registry, or an import string
    write: Callable[[Path], Written]
    rate_hz: Fraction | None  # of samples and frames; None for what each episode states
    cameras: Mapping[str, View]  # those that show the scene, and how they see `Scene.picture`
    has_binary_commands: bool = False  # the gripper is told open or closed, nothing between
    other_rates_hz: Mapping[str, Fraction] = field(default_factory=dict)  # by episode id

    def rate_of(self, row: dict[str, Any]) -> Fraction:
        """Of one episode, given its catalog row."""
        stated = self.rate_hz or Fraction(row["source_rate"])
        return self.other_rates_hz.get(row["episode_id"], stated)


def as_it_is(picture: np.ndarray) -> np.ndarray:
    return picture


def _agibot_small(root: Path) -> Written:
    """One episode of AgiBot with commands of its own, in small pictures."""
    scene = Scene(seed=4, sides=("left", "right"), width=160, height=120, focal_px=150.0)
    agibot_world.write_episode(root, 327, 1, scene=scene, commands=True, cameras=("head",))
    return Written(root=root, scenes={"327/1": scene})


def _robomimic(root: Path) -> Written:
    """The rows of its LIBERO file are seen one period after the scene's start."""
    written = robomimic.write(root)
    late = {name: 1 / robomimic.RATE_HZ for name in written.scenes if name.startswith("libero")}
    return replace(written, t0_s={**late, **written.t0_s})


SPECIAL = (
    Case(
        name="agibot_world",
        source="agibot_world",
        write=agibot_world.write,
        rate_hz=Fraction(30),
        cameras={"head": as_it_is},
    ),
    Case(
        name="agibot_world, commanded",
        source="agibot_world",
        write=_agibot_small,
        rate_hz=Fraction(30),
        cameras={"head": as_it_is},
    ),
    Case(
        name="aloha",
        source="aloha",
        write=aloha.write,
        rate_hz=Fraction(50),
        cameras={"cam_high": as_it_is},
    ),
    Case(
        name="lerobot",
        source="lerobot",
        write=lerobot.write,
        rate_hz=Fraction(30),
        cameras={"top_head": as_it_is},
    ),
    Case(
        name="lerobot at 24 Hz",
        source="lerobot",
        write=lambda root: lerobot.write(root, fps=24, width=160, height=120),
        rate_hz=Fraction(24),
        cameras={"top_head": as_it_is},
    ),
    Case(
        name="oxe",
        source="oxe",
        write=oxe.write,
        rate_hz=Fraction(5),
        cameras={"image_1": lambda picture: picture[:, ::-1]},
        has_binary_commands=True,
    ),
    Case(
        name="robomimic",
        source="robomimic",
        write=_robomimic,
        rate_hz=Fraction(robomimic.RATE_HZ),
        cameras={"agentview": as_it_is},
        has_binary_commands=True,
    ),
    Case(
        name="ego4d",
        source="ego4d",
        write=ego4d.write,
        rate_hz=Fraction(30),
        cameras={"ego": as_it_is},
    ),
    Case(
        name="interndata_a1",
        source="interndata_a1",
        write=interndata_a1.write,
        rate_hz=Fraction(30),
        cameras=defaultdict(lambda: as_it_is),
        has_binary_commands=True,
    ),
    Case(
        name="interndata_a1_raw",
        source="interndata_a1_raw",
        write=interndata_a1_raw.write,
        rate_hz=Fraction(30),
        cameras={"head": as_it_is},
        has_binary_commands=True,
    ),
    Case(
        name="metaworld_hdf5",
        source="metaworld_hdf5",
        write=metaworld_hdf5.write,
        rate_hz=Fraction(metaworld_hdf5.RATE_HZ),
        cameras={"front": as_it_is},
        has_binary_commands=True,
    ),
    Case(
        name="video_folder",
        source="video_folder",
        write=video_folder.write,
        rate_hz=Fraction(30),
        cameras={"ego": as_it_is},
        other_rates_hz={"kitchen/day 2/b.MKV/0000": Fraction(25)},
    ),
)


def names() -> list[str]:
    """Of all cases: the special ones, and one for every other registered source."""
    special = {case.source for case in SPECIAL}
    return [case.name for case in SPECIAL] + [name for name in ADAPTERS if name not in special]


def case_of(name: str) -> Case:
    """A source without a case of its own: every camera sees the scene as it is, at the rate the episode states."""
    found = next((case for case in SPECIAL if case.name == name), None)
    return found or Case(
        name=name,
        source=name,
        write=partial(generators.write, name),
        rate_hz=None,
        cameras=defaultdict(lambda: as_it_is),
    )


@dataclass(kw_only=True)
class Worst:
    """The largest error of one case over all episodes, sides and timesteps, and what is allowed."""

    rate_hz: Fraction  # of the slowest episode
    allowed_mm: float = POSITION_MM
    allowed_deg: float = ROTATION_DEG
    allowed_gripper: float = GRIPPER
    mm: dict[str, float] = field(default_factory=dict)  # state, action
    deg: dict[str, float] = field(default_factory=dict)
    gripper: dict[str, float] = field(default_factory=dict)
    keypoint_mm: dict[str, float] = field(default_factory=dict)  # in the wrist frame
    episodes: int = 0
    poses: int = 0  # compared
    pictures: int = 0  # compared
    wrong_pictures: int = 0  # more like a neighbour in time than like their own instant
    picture_error: float = 0.0  # worst mean absolute difference, of 255

    @property
    def is_on_grid(self) -> bool:
        """Whether every timestep hits a source sample."""
        return self.rate_hz % GRID_HZ == 0

    @property
    def faults(self) -> list[str]:
        """What is out of bounds, in words; empty when all is well."""
        bounds = (
            ("mm", self.mm, self.allowed_mm),
            ("deg", self.deg, self.allowed_deg),
            ("of gripper", self.gripper, self.allowed_gripper),
            ("mm of a keypoint", self.keypoint_mm, self.allowed_mm),
        )
        found = [
            f"{what} is off by {error:.4g} {unit}, allowed {allowed:.4g}"
            for unit, errors, allowed in bounds
            for what, error in errors.items()
            if not error <= allowed
        ]
        if self.wrong_pictures:
            found.append(f"{self.wrong_pictures} of {self.pictures} pictures show another instant")
        if self.picture_error > 8:
            found.append(f"a picture is off by {self.picture_error:.1f} of 255 on average")
        return found


def measure(case: Case, folder: Path) -> Worst:
    """Write the raw data, run the whole pipeline on it, read the corpus back and compare."""
    written = case.write(folder / "raw")
    assets = NO_ASSETS
    if written.needs_mano:
        assets = Assets(mano_dir=str(mano_model.write(folder / "mano")))
    run(written.root, folder / "corpus", source=case.source, options=written.options, assets=assets)
    rows = facts(folder / "corpus", "episodes")
    worst = _allowed(min(case.rate_of(row) for row in rows), written)
    for row in rows:
        scene = written.scenes[row["episode_id"]]
        t0_s = written.t0_s.get(row["episode_id"], 0.0)
        _compare_rows(worst, _Stored(folder / "corpus", row), case, scene, t0_s)
        for camera in row["cameras"]:
            name, size = camera["name"], (camera["width"], camera["height"])
            if name in case.cameras or isinstance(case.cameras, defaultdict):
                seen = _Seen(case.rate_of(row), scene, t0_s, case.cameras[name], size)
                _compare_pictures(worst, _frames(folder / "corpus", row, name), seen)
        worst.episodes += 1
    assert worst.episodes == len(written.scenes)
    return worst


# --- what is allowed ----------------------------------------------------------------------------------------------------


def _allowed(rate_hz: Fraction, written: Written) -> Worst:
    """For the slowest episode; where every timestep hits a sample, nothing on top."""
    if rate_hz % GRID_HZ == 0:
        return Worst(rate_hz=rate_hz)
    dt_s = float(1 / rate_hz)
    linear, angular = (
        max(found)
        for found in zip(*(_accelerations(s) for s in written.scenes.values()), strict=True)
    )
    return Worst(
        rate_hz=rate_hz,
        allowed_mm=POSITION_MM + 1000 * float(linear) * dt_s**2 / 8,
        allowed_deg=ROTATION_DEG + float(np.degrees(angular * dt_s**2 / 8)),
        allowed_gripper=GRIPPER + RAMP_PER_S * dt_s / 4,  # a kink in the middle of a period
    )


def _accelerations(scene: Scene | HandScene, step_s: float = 1e-3) -> tuple[float, float]:
    """(m/s^2, rad/s^2), the largest over the scene by finite differences."""
    t_s = np.arange(0, scene.duration_s, 0.02)
    worst_m = worst_rad = 0.0
    for side in scene.sides:
        T = [np.array([scene.T_base_hand(t + i * step_s, side) for t in t_s]) for i in (-1, 0, 1)]
        p = [poses[:, :3, 3] for poses in T]
        a = np.linalg.norm(p[0] - 2 * p[1] + p[2], axis=1) / step_s**2
        turns = [_rotvec(np.swapaxes(A[:, :3, :3], 1, 2) @ B[:, :3, :3]) for A, B in pairwise(T)]
        alpha = np.linalg.norm(turns[1] - turns[0], axis=1) / step_s**2
        worst_m, worst_rad = max(worst_m, a.max()), max(worst_rad, alpha.max())
    return worst_m, worst_rad


def _rotvec(R: np.ndarray) -> np.ndarray:
    """Small rotations [N, 3, 3] to rotation vectors, first order."""
    return 0.5 * np.stack(
        [R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], axis=1
    )


# --- numbers ------------------------------------------------------------------------------------------------------------


class _Stored:
    """One episode as a reader of the LeRobot dataset finds it."""

    def __init__(self, corpus: Path, row: dict[str, Any]) -> None:
        dataset = corpus / row["dataset_path"]
        self.features = json.loads((dataset / "meta/info.json").read_text())["features"]
        number = row["episode_index"]
        self.table = pq.read_table(dataset / f"data/chunk-000/episode_{number:06d}.parquet")
        self.t_s = self.table["timestamp"].to_numpy().astype(np.float64)

    def part(self, feature: str, name: str) -> np.ndarray | None:
        """[K, n] the elements of `feature` whose names begin with `name`; None when there are none."""
        if feature not in self.features:
            return None
        names = self.features[feature]["names"]
        at = [i for i, n in enumerate(names) if n == name or n.startswith(f"{name}.")]
        values = np.array(self.table[feature].to_pylist(), dtype=np.float64)
        return values.reshape(len(self.t_s), -1)[:, at] if at else None

    def poses(self, feature: str, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """positions [M, 3], rotations [M, 3, 3] and their timesteps [M], the valid ones only."""
        xyz = self.part(feature, f"{side}.position_m")
        rot6d = self.part(feature, f"{side}.rot6d_cols")
        if xyz is None or rot6d is None:
            return None
        good = np.flatnonzero(self.valid(feature, f"{side}.position_m"))
        return xyz[good], gram_schmidt(rot6d[good]), good

    def valid(self, feature: str, name: str) -> np.ndarray:
        masks = "action.valid" if feature == "action" else "observation.valid"
        mask = self.part(masks, name)
        assert mask is not None
        return mask[:, 0].astype(bool)


def gram_schmidt(rot6d: np.ndarray) -> np.ndarray:
    """[M, 6], first column then second column, to [M, 3, 3]."""
    x = rot6d[:, :3] / np.linalg.norm(rot6d[:, :3], axis=1, keepdims=True)
    y = rot6d[:, 3:] - (x * rot6d[:, 3:]).sum(axis=1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=2)


def _compare_rows(
    worst: Worst, stored: _Stored, case: Case, scene: Scene | HandScene, t0_s: float
) -> None:
    """`observation.state` at t_k, `action` at t_k+1."""
    for what, feature, ahead in (("state", "observation.state", 0), ("action", "action", 1)):
        first_s = t0_s + ahead / GRID_HZ
        for side in scene.sides:
            found = stored.poses(feature, side)
            if found is not None:
                _compare_poses(worst, what, found, scene, side, first_s)
            points = stored.part(feature, f"{side}.hand_keypoints_m")
            if points is not None and isinstance(scene, HandScene):
                good = np.flatnonzero(stored.valid(feature, f"{side}.hand_keypoints_m"))
                truth = np.array([scene.joints_wrist(first_s + k / GRID_HZ, side) for k in good])
                off = np.linalg.norm(points[good].reshape(-1, 21, 3) - truth, axis=2)
                _raise(worst.keypoint_mm, what, 1000 * off.max())
            opening = stored.part(feature, f"{side}.gripper_opening")
            if opening is not None:
                good = np.flatnonzero(stored.valid(feature, f"{side}.gripper_opening"))
                is_binary = case.has_binary_commands and what == "action"
                t_s = first_s + good / GRID_HZ
                error = _gripper_error(opening[good, 0], t_s, scene, is_binary=is_binary)
                _raise(worst.gripper, what, error)


def _compare_poses(
    worst: Worst,
    what: str,
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    scene: Scene | HandScene,
    side: str,
    first_s: float,
) -> None:
    xyz, R, at = found
    wanted = (
        0.6 if isinstance(scene, HandScene) else 0.9
    )  # generators lose sight of hands now and then
    assert len(at) >= wanted * (at[-1] + 1) - 1, f"{what}: only {len(at)} valid timesteps"
    T = np.array([scene.T_base_hand(first_s + k / GRID_HZ, side) for k in at])
    _raise(worst.mm, what, 1000 * np.linalg.norm(xyz - T[:, :3, 3], axis=1).max())
    _raise(worst.deg, what, np.degrees(_angle(R, T[:, :3, :3])).max())
    worst.poses += len(at)


def _gripper_error(opening: np.ndarray, t_s: np.ndarray, scene: Scene, *, is_binary: bool) -> float:
    """Worst error [M]; a binary command is compared only where the scene's gripper rests."""
    truth = np.array([scene.gripper_opening(t) for t in t_s])
    counts = np.ones(len(t_s), dtype=bool)
    if is_binary:
        assert set(opening) <= {0.0, 1.0}
        for offset_s in (-REST_S, REST_S):
            counts &= truth == [scene.gripper_opening(t + offset_s) for t in t_s]
    return float(np.abs(opening - truth)[counts].max())


def _angle(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Between rotations [M, 3, 3]: |A - B| = 2 sqrt(2) sin(angle / 2), exact for small angles too."""
    chord = np.linalg.norm((A - B).reshape(len(A), -1), axis=1) / (2 * np.sqrt(2))
    return 2 * np.arcsin(np.minimum(chord, 1.0))


def _raise(errors: dict[str, float], what: str, error: float) -> None:
    errors[what] = float(np.fmax(errors.get(what, 0.0), error))


# --- pictures -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """What a camera saw, frame by frame of the source."""

    rate_hz: Fraction
    scene: Scene | HandScene
    t0_s: float
    view: View
    size: tuple[int, int]
    drawn: dict[int, np.ndarray] = field(default_factory=dict)

    def frame(self, number: int) -> np.ndarray:
        t_s = self.t0_s + float(number / self.rate_hz)
        if number not in self.drawn:
            picture = self.view(self.scene.picture(t_s))
            small = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
            self.drawn[number] = small.astype(np.int16)
        return self.drawn[number]

    def nearest(self, k: int) -> int:
        """The source frame nearest to timestep k; of two equally near the earlier."""
        return int(-((Fraction(1, 2) - Fraction(k, GRID_HZ) * self.rate_hz) // 1))


def _frames(corpus: Path, row: dict[str, Any], camera: str) -> list[np.ndarray]:
    name = f"observation.images.{camera}/episode_{row['episode_index']:06d}.mp4"
    with av.open(str(corpus / row["dataset_path"] / "videos/chunk-000" / name)) as container:
        frames = [f.to_ndarray(format="rgb24").astype(np.int16) for f in container.decode(video=0)]
    assert len(frames) == row["length"]
    return frames


def _compare_pictures(worst: Worst, frames: list[np.ndarray], seen: _Seen) -> None:
    """Each picture must be nearer to the scene at its instant than to the scene one timestep before or after.

    Looked at where these three differ: most of a picture never changes and says nothing about time.
    """
    step = max(1, round(seen.rate_hz / GRID_HZ))
    for k, decoded in enumerate(frames):
        number = seen.nearest(k)
        own, *others = (seen.frame(n) for n in (number, number - step, number + step))
        moving = np.max([np.abs(own - other) for other in others], axis=(0, 3)) > 20
        worst.picture_error = max(worst.picture_error, float(np.abs(decoded - own).mean()))
        if not moving.any():
            continue
        errors = [np.abs(decoded[moving] - picture[moving]).mean() for picture in (own, *others)]
        worst.wrong_pictures += int(np.argmin(errors) != 0)
        worst.pictures += 1
