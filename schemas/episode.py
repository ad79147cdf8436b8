"""What an adapter hands over: an `Episode` of streams on their own clocks, cameras as references.

Nothing here is resampled or decoded. Times are int64 nanoseconds from the episode's own zero; every
channel says shape, unit and how it may be interpolated; an object that breaks a rule cannot be made.

Channel names (closed grammar, checked): `<side>.T_base_eef`, `<side>.gripper_opening`,
`<side>.hand_keypoints_m`, `<side>.hand_joints_rad`, `joint_position_rad`, each optionally behind `command.`;
`source_state`, `raw_command`, `T_base_cam.<camera>`, `T_world_cam.<camera>`.
A `command.*` sample is stamped with the instant at which its target is DUE (issue time plus one source
period), so that `action[k]` is simply the commanded trajectory read at timestep k + 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt

from schemas.camera_model import PINHOLE, Lens
from schemas.declared import Declared
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Fact
from schemas.geometry import ROTATION_TOLERANCE, rotation_error
from schemas.hand_track import WORLD, HandTrack
from schemas.source_split import SPLITS

# uuid5(NAMESPACE_URL, "eicorpus episode"): fixed for ever, or every uid in every corpus would change.
EPISODE_NAMESPACE = UUID("2f2a4c5e-0f5b-5d0c-9d3e-6f1c3a7b9e10")

SIDES = ("left", "right")
_NAME = re.compile(
    r"(command\.)?(left|right)\.(T_base_eef|gripper_opening|hand_keypoints_m|hand_joints_rad)"
    r"|(command\.)?joint_position_rad|source_state|raw_command|T_(base|world)_cam\.[a-z0-9_]+"
)
_CAMERA_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_SLUG = re.compile(r"[a-z0-9_]+")
WORLD_UPS = ("+x", "-x", "+y", "-y", "+z", "-z")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Unit(StrEnum):
    METRE = "m"
    RADIAN = "rad"
    FRACTION = "fraction"
    POSE = "pose"  # [4, 4] rigid transform, metres
    SOURCE = "source"  # the source's own unit, not known or mixed: never used as a canonical value


class Interpolation(StrEnum):
    LINEAR = "linear"
    SLERP = "slerp"  # poses: position linear, rotation on the great circle
    HOLD = "hold"  # commands that are states: the latest sample at or before the instant
    NEAREST = "nearest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """One channel: its name, the shape of one sample, its unit and its lawful interpolation."""

    name: str
    shape: tuple[int, ...]
    unit: Unit
    interpolation: Interpolation
    names: tuple[str, ...] = ()  # one per element, in order, when the source names them

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a valid channel name (grammar: {__name__})")
        if (self.unit is Unit.POSE) != (self.shape == (4, 4)):
            raise ValueError(f"{self.name}: unit {self.unit} does not fit shape {self.shape}")
        if (self.unit is Unit.POSE) != (self.interpolation is Interpolation.SLERP):
            raise ValueError(
                f"{self.name}: slerp interpolation is required for poses and allowed only for poses"
            )
        if self.names and len(self.names) != int(np.prod(self.shape)):
            raise ValueError(f"{self.name}: {len(self.names)} names for shape {self.shape}")


def pose_channel(name: str) -> ChannelSpec:
    """A [4, 4] pose channel such as `left.T_base_eef`."""
    return ChannelSpec(name=name, shape=(4, 4), unit=Unit.POSE, interpolation=Interpolation.SLERP)


def gripper_channel(name: str, *, binary: bool) -> ChannelSpec:
    """A `gripper_opening` channel, 0 closed to 1 open; a binary one is held, never blended."""
    how = Interpolation.HOLD if binary else Interpolation.LINEAR
    return ChannelSpec(name=name, shape=(1,), unit=Unit.FRACTION, interpolation=how)


def vector_channel(
    name: str, width: int, unit: Unit, *, names: tuple[str, ...] = (), hold: bool = False
) -> ChannelSpec:
    """A flat vector channel: linear, or held when it is a command."""
    how = Interpolation.HOLD if hold else Interpolation.LINEAR
    return ChannelSpec(name=name, shape=(width,), unit=unit, interpolation=how, names=names)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """Samples of one channel on its own strictly increasing clock; arrays are read-only.

    `values` [N, *shape] float64, `t_ns` [N] int64, `valid` [N] bool. Where `valid` is False the value
    may be anything finite and is never interpolated from.

    Raises:
        SourceError: not finite, clock not increasing, wrong shape, or a pose that is no rotation.
    """

    spec: ChannelSpec
    t_ns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    valid: npt.NDArray[np.bool_] = field(default_factory=lambda: np.ones(0, dtype=bool))

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        t_ns = np.array(self.t_ns)
        valid = np.array(self.valid, dtype=bool)
        if valid.size == 0:
            valid = np.ones(len(t_ns), dtype=bool)
        where = self.spec.name
        if t_ns.dtype != np.int64:
            raise TypeError(f"{where}: t_ns must be int64 nanoseconds, found {t_ns.dtype}")
        if values.shape != (len(t_ns), *self.spec.shape) or valid.shape != t_ns.shape:
            problem = f"values {values.shape}, t_ns {t_ns.shape}, valid {valid.shape}"
            expected = f"[N, {', '.join(map(str, self.spec.shape))}]"
            raise SourceError(Code.SHAPE_MISMATCH, f"{problem}; expected {expected}", where=where)
        if len(t_ns) == 0:
            raise SourceError(Code.EMPTY_EPISODE, "the stream has no samples", where=where)
        steps = np.diff(t_ns)
        if np.any(steps <= 0):
            at = int(np.flatnonzero(steps <= 0)[0])
            problem = f"timestamps must increase, but sample {at + 1} has {t_ns[at + 1]} ns after {t_ns[at]} ns"
            raise SourceError(Code.CLOCK_NOT_INCREASING, problem, where=where)
        finite = np.asarray(np.isfinite(values).reshape(len(t_ns), -1).all(axis=1))
        if not finite[valid].all():
            at = int(np.flatnonzero(~finite & valid)[0])
            raise SourceError(Code.NOT_FINITE, f"NaN or infinity at sample {at}", where=where)
        values[~finite] = np.eye(4) if self.spec.unit is Unit.POSE else 0.0
        if self.spec.unit is Unit.POSE and valid.any():
            worst = float(rotation_error(values[valid][:, :3, :3]).max())
            if worst > ROTATION_TOLERANCE:
                problem = f"rotation part deviates from a rotation by {worst:.2g}; expected below {ROTATION_TOLERANCE}"
                raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
        for name, array in (("values", values), ("t_ns", t_ns), ("valid", valid)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def name(self) -> str:
        return self.spec.name


def _check_range(byte_range: tuple[int, int] | None, path: str) -> None:
    if byte_range is not None and not 0 <= byte_range[0] < byte_range[1]:
        raise SourceError(Code.CORRUPT_RECORD, f"invalid byte range {byte_range}", where=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSpan:
    """`num_frames` pictures of a video file in presentation order from `first_frame`, by COUNT.

    `byte_range` [start, end) is where in the file at `path` the video is: a member of a tar shard is read in place.
    """

    path: str
    first_frame: int
    num_frames: int
    byte_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_range(self.byte_range, self.path)
        if self.first_frame < 0 or self.num_frames <= 0:
            raise SourceError(Code.EMPTY_EPISODE, f"frames {self}", where=self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoWindow:
    """The pictures of a video file whose PTS lies in [start_s, end_s); the container is the clock.

    `byte_range` as in `VideoSpan`.
    """

    path: str
    start_s: float
    end_s: float
    byte_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_range(self.byte_range, self.path)
        if not 0.0 <= self.start_s < self.end_s < math.inf:
            problem = f"window [{self.start_s}, {self.end_s}) s"
            raise SourceError(Code.BAD_ANNOTATION, problem, where=self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImages:
    """Compressed pictures (JPEG or PNG bytes) in order: in memory, or read one by one as they are asked for.

    `is_bgr` marks sources that stored blue where red belongs: the decoder swaps them back.
    """

    images: Sequence[bytes]
    is_bgr: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFrames:
    """`num_frames` raw pictures from row `first_frame` of a [N, H, W, 3] uint8 array, read lazily, by COUNT.

    `path` is an HDF5 file or a Zarr store (folder or zip), as `container` says, `key` the array in it.
    `is_bgr`: blue is stored where red belongs; `is_upside_down`: the bottom row is stored first (OpenGL).
    """

    path: str
    key: str
    num_frames: int
    first_frame: int = 0
    container: str = "hdf5"
    is_bgr: bool = False
    is_upside_down: bool = False

    def __post_init__(self) -> None:
        if self.container not in ("hdf5", "zarr"):
            raise ValueError(f"container {self.container!r}; expected hdf5 or zarr")
        if self.first_frame < 0 or self.num_frames <= 0:
            raise SourceError(Code.EMPTY_EPISODE, f"frames {self}", where=f"{self.path}:{self.key}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """One camera as a reference, never as pixels.

    `t_ns` [N] gives the instant of each frame; it is None only with a `VideoWindow`, whose frames are at
    PTS - start_s. `K_cam` [3, 3] is in pixels of a picture of `K_size` (width, height); OpenCV axes. `lens` bends the ray first.
    """

    name: str
    frames: VideoSpan | VideoWindow | EncodedImages | ArrayFrames
    t_ns: npt.NDArray[np.int64] | None = None
    K_cam: npt.NDArray[np.float64] | None = None
    K_size: tuple[int, int] | None = None
    lens: Lens = PINHOLE

    def __post_init__(self) -> None:
        if not _CAMERA_NAME.fullmatch(self.name):
            raise ValueError(
                f"camera name {self.name!r}: expected only lower-case letters, digits and _"
            )
        if (self.K_cam is None) != (self.K_size is None):
            raise ValueError(f"{self.name}: K_cam and K_size must be given together")
        if self.K_cam is not None and np.shape(self.K_cam) != (3, 3):
            raise ValueError(f"{self.name}: K_cam has shape {np.shape(self.K_cam)}, not [3, 3]")
        if self.t_ns is not None and self.t_ns.dtype != np.int64:
            raise TypeError(f"{self.name}: t_ns must be int64 nanoseconds, found {self.t_ns.dtype}")
        if isinstance(self.frames, VideoWindow):
            if self.t_ns is not None:
                raise ValueError(
                    f"{self.name}: t_ns must be None, because a VideoWindow has its own timestamps"
                )
            return
        expected = (
            len(self.frames.images)
            if isinstance(self.frames, EncodedImages)
            else self.frames.num_frames
        )
        if self.t_ns is None or len(self.t_ns) != expected or expected == 0:
            problem = "no clock" if self.t_ns is None else f"{len(self.t_ns)} instants"
            raise SourceError(
                Code.FRAME_COUNT, f"{problem} for {expected} frames", where=f"camera {self.name}"
            )
        if np.any(np.diff(self.t_ns) <= 0):
            raise SourceError(Code.CLOCK_NOT_INCREASING, "frame times", where=f"camera {self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """A task text over [start_ns, end_ns); `end_ns` None means to the end. `text` is as the source has it."""

    text: str
    start_ns: int = 0
    end_ns: int | None = None
    kind: str = "task"  # task (whole episode) | subtask (a part of it) | summary

    def __post_init__(self) -> None:
        if self.kind not in ("task", "subtask", "summary"):
            raise ValueError(f"unknown instruction kind {self.kind!r}")
        if self.end_ns is not None and self.end_ns <= self.start_ns:
            problem = f"the instruction ends at {self.end_ns} ns, not after its start at {self.start_ns} ns"
            raise SourceError(Code.BAD_ANNOTATION, problem, where=self.text[:60])


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """Under which terms the source was released; None means not documented."""

    name: str
    allows_commercial: bool | None = None
    allows_redistribution: bool | None = None

    @property
    def licence_class(self) -> str:
        """permissive | non_commercial | no_redistribution | unknown, the strictest that applies."""
        if self.allows_redistribution is False:
            return "no_redistribution"
        if self.allows_commercial is False:
            return "non_commercial"
        if self.allows_commercial and self.allows_redistribution:
            return "permissive"
        return "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFile:
    """A raw file an episode came from, with its fingerprint.

    `digest` is "sha256:<hex>" of the bytes read for this episode (a record, a small file) or, for a file over
    64 MiB, "sha256-ends:<hex>" of its size, first MiB and last MiB.
    """

    path: str
    num_bytes: int
    digest: str


@lru_cache(maxsize=4096)  # asked for a dozen times on an episode's way
def _uid(source: str, episode_id: str) -> str:
    return str(uuid5(EPISODE_NAMESPACE, f"{source}/{episode_id}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRef:
    """Where one episode is: picklable, tiny, enough for any worker to load it.

    `locator` holds the adapter's own way to find it (shard, offset, row, ...). `problem` marks an episode that
    discovery already knows to be unusable (a missing shard, say): `load` raises it, so that it is counted.

    Raises:
        ConfigError: `source` or `dataset`, which become folders of the corpus, is not a plain name.
    """

    source: str  # name in the adapter registry
    dataset: str  # the set within the source: "bridge_dataset"; equal to source when there is one
    episode_id: str  # unique within the source, survives adding files
    root: str
    locator: tuple[tuple[str, Any], ...] = ()
    facts: tuple[Fact, ...] = ()  # what the probe and the registry settled for this set
    duration_hint_s: float = 0.0
    bytes_hint: int = 0
    problem: tuple[str, str] | None = None  # (code, message)
    stands_for: int = 1  # episodes that are lost with it: those declared in a missing shard, say
    source_split: str = (
        ""  # train, val or test as the source publishes it; "" where it publishes none
    )

    def __post_init__(self) -> None:
        if self.source_split not in ("", *SPLITS):
            raise ValueError(f"{self.episode_id}: source_split {self.source_split!r}")
        for name in (self.source, self.dataset):
            if not _FOLDER_NAME.fullmatch(name):
                raise ConfigError(f"dataset name {name!r}: expected only letters, digits, _ . -")

    @property
    def uid(self) -> str:
        return _uid(self.source, self.episode_id)

    def at(self, key: str) -> Any:
        """The locator entry `key`; KeyError when the adapter never stored it."""
        return dict(self.locator)[key]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """One demonstration as its source has it, in canonical names and units.

    `declared` are channels that the source declares for this episode: what no stream carries is accounted for by ingestion.
    `hands` are tracked human hands; `world_up` is the axis of their world that points up ("+y"), None if unknown.

    Raises:
        SourceError: nothing to learn from (no stream, hand or camera), or a channel, hand or camera given twice.
    """

    ref: EpisodeRef
    embodiment: str  # a key of schemas/embodiments.yaml, else the robot's name as a slug
    rate_hz: Fraction  # nominal source rate of its slowest required stream
    streams: tuple[Stream, ...] = ()
    cameras: tuple[Camera, ...] = ()
    hands: tuple[HandTrack, ...] = ()
    world_up: str | None = None
    instructions: tuple[Instruction, ...] = ()
    facts: tuple[Fact, ...] = ()
    licence: Licence = Licence(name="unknown")
    raw_files: tuple[RawFile, ...] = ()
    success: bool | None = None
    subject_id: str | None = None
    scene_id: str | None = None
    declared: tuple[Declared, ...] = ()

    def __post_init__(self) -> None:
        if not self.streams and not self.cameras and not self.hands:
            raise SourceError(
                Code.EMPTY_EPISODE,
                "the episode has no stream, no hand and no camera",
                where=self.ref.episode_id,
            )
        for what, names in (
            ("channel", [s.name for s in self.streams]),
            ("camera", [c.name for c in self.cameras]),
            ("hand", [h.side for h in self.hands]),
        ):
            if len(set(names)) != len(names):
                raise SourceError(
                    Code.CONTRACT_BROKEN,
                    f"duplicate {what} in {names}",
                    where=self.ref.episode_id,
                )
        seen_by = {
            WORLD,
            *(c.name for c in self.cameras),
        }  # a camera's pose may be there, its pictures not
        posed = {
            s.name.partition(".")[2] for s in self.streams if s.name.startswith("T_world_cam.")
        }
        for hand in self.hands:
            if hand.frame not in seen_by | posed or (hand.view or WORLD) not in seen_by:
                raise ValueError(
                    f"the hand refers to frame {hand.frame!r} and view {hand.view!r}, which are not cameras of the episode"
                )
        if self.world_up is not None and self.world_up not in WORLD_UPS:
            raise ValueError(f"world_up {self.world_up!r} is not one of {WORLD_UPS}")
        if not _SLUG.fullmatch(self.embodiment):
            raise ValueError(f"{self.ref.episode_id}: embodiment {self.embodiment!r}")
        if self.rate_hz <= 0:
            raise ValueError(f"{self.ref.episode_id}: rate_hz {self.rate_hz}")

    def stream(self, name: str) -> Stream | None:
        """The stream of that channel, or None when this episode has none."""
        return next((s for s in self.streams if s.name == name), None)
