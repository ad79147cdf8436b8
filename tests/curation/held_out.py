"""Demonstrations that no threshold was chosen on: other scenes, bodies, tasks and seeds than `demonstrations`, faults from faint to gross.

Hands reach from place to place with minimum jerk, grip and let go, rest where they arrive. Arms follow their commands late and not
quite, grippers stop at what they hold, sources have 5, 15 and 30 Hz, an estimated hand is off by a slowly changing millimetre, cameras
have noise and a room behind. Sound ones differ as people do (`STYLES`). What is a fault of which size is in `SWEEPS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene, rigid_transform, rot_x, rot_y, rot_z
from tests.curation.demonstrations import RATE_HZ, Array, Body, Demonstration, Recording, stored
from tests.curation.video_corpus import PLAIN, texture

SEED = 900_000  # no seed of `demonstrations` is near it


@dataclass(frozen=True, kw_only=True)
class Rig(Body):
    """A body, how its arm follows, and what it is recorded with."""

    source_hz: int = 30
    late_s: float = 0.0  # of the arm after its command
    off_m: float = 0.0  # where it stops short of it
    noise_m: float = 0.00005
    drift_m: float = 0.0  # error of an estimate, correlated over half a second
    grip: tuple[float, float] = (0.0, 0.0)  # opening at which things stop the jaws
    is_binary: bool = False  # the gripper
    pace_m_s: tuple[float, float] = (0.12, 0.3)
    task: str = ""
    # the scene
    number: int = 0  # of its seeds
    spread: tuple[float, ...] = (0.12, 0.1, 0.08, 0.5, 0.25)  # x, y, z, yaw, tilt of its places
    moves: tuple[int, int] = (5, 8)  # at least, less than
    stays_s: tuple[float, float] = (0.5, 0.9)  # the jaws need that
    least_s: float = 0.7  # a reach
    begins_s: float = 0.8  # at rest before the first
    ends_s: float = 0.7  # and after the last


RIGS = (
    Rig(
        name="desk_arm",
        sides=("left",),
        source_hz=15,
        late_s=0.12,
        off_m=0.004,
        grip=(0.05, 0.35),
        task="move the cubes to the tray",
    ),
    Rig(
        name="slow_arm",
        sides=("left",),
        source_hz=5,
        has_commands=False,
        is_binary=True,
        pace_m_s=(0.08, 0.2),
        task="stack the bowls",
        number=1,
    ),
    Rig(
        name="hand_over",
        sides=("left", "right"),
        late_s=0.06,
        off_m=0.002,
        grip=(0.0, 0.2),
        task="hand the hammer over",
        number=2,
    ),
    Rig(
        name="cook",
        sides=("left", "right"),
        is_human=True,
        has_commands=False,
        noise_m=0.0002,
        drift_m=0.001,
        pace_m_s=(0.15, 0.45),
        task="cut the cucumber",
        number=3,
    ),
)
# Others to work with, and others again that were looked at once: (what they are for, the rigs).
WORKED_ON = (
    Rig(
        name="shelf_arm",
        sides=("left",),
        source_hz=30,
        late_s=0.08,
        off_m=0.003,
        grip=(0.1, 0.45),
        pace_m_s=(0.1, 0.35),
        task="fill the shelf",
        number=10,
        spread=(0.15, 0.15, 0.12, 0.3, 0.2),
        moves=(6, 9),
        stays_s=(0.4, 1.0),
    ),
    Rig(
        name="crate_arm",
        sides=("left",),
        source_hz=10,
        has_commands=False,
        is_binary=True,
        task="empty the crate",
        number=11,
        spread=(0.2, 0.1, 0.1, 0.6, 0.2),
        moves=(4, 7),
        ends_s=0.5,
    ),
    Rig(
        name="sorters",
        sides=("left", "right"),
        source_hz=15,
        late_s=0.1,
        off_m=0.003,
        grip=(0.0, 0.3),
        pace_m_s=(0.15, 0.35),
        task="sort the bolts",
        number=12,
        stays_s=(0.6, 1.1),
    ),
    Rig(
        name="folder",
        sides=("left", "right"),
        is_human=True,
        has_commands=False,
        noise_m=0.0003,
        drift_m=0.0013,
        pace_m_s=(0.2, 0.5),
        task="fold the shirt",
        number=13,
        spread=(0.15, 0.1, 0.06, 0.4, 0.25),
        moves=(5, 9),
        least_s=0.6,
    ),
)
LOOKED_AT_ONCE = (
    Rig(
        name="bench_arm",
        sides=("left",),
        source_hz=25,
        late_s=0.15,
        off_m=0.005,
        grip=(0.0, 0.4),
        pace_m_s=(0.1, 0.25),
        task="load the vice",
        number=20,
        spread=(0.1, 0.14, 0.1, 0.4, 0.3),
        moves=(4, 8),
        stays_s=(0.5, 1.2),
        ends_s=0.6,
    ),
    Rig(
        name="tray_arm",
        sides=("left",),
        source_hz=5,
        has_commands=False,
        is_binary=True,
        pace_m_s=(0.1, 0.25),
        task="clear the tray",
        number=21,
        spread=(0.16, 0.12, 0.06, 0.6, 0.2),
        moves=(5, 9),
        stays_s=(0.4, 0.8),
    ),
    Rig(
        name="weavers",
        sides=("left", "right"),
        source_hz=30,
        late_s=0.05,
        off_m=0.002,
        grip=(0.05, 0.25),
        pace_m_s=(0.1, 0.4),
        task="thread the rope",
        number=22,
        spread=(0.08, 0.1, 0.1, 0.6, 0.3),
        moves=(5, 8),
        begins_s=0.6,
    ),
    Rig(
        name="baker",
        sides=("left", "right"),
        is_human=True,
        has_commands=False,
        noise_m=0.0004,
        drift_m=0.0009,
        pace_m_s=(0.15, 0.4),
        task="shape the rolls",
        number=23,
        spread=(0.1, 0.12, 0.08, 0.5, 0.2),
        moves=(6, 9),
        stays_s=(0.5, 1.0),
    ),
)
EVERY_RIG = (*RIGS, *WORKED_ON, *LOOKED_AT_ONCE)


# --- scenes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """From `start` to `end` between two instants of the scene."""

    begin_s: float
    end_s: float
    start: tuple[float, ...]  # x, y, z, yaw, tilt
    end: tuple[float, ...]


@lru_cache(maxsize=4096)
def moves_of(seed: int, side: str, rig: str) -> tuple[Move, ...]:
    """Reaches between random places, with a stay at each. Of two arms on one task each works while the other mostly stays."""
    how = next(r for r in EVERY_RIG if r.name == rig)
    rng = np.random.default_rng([SEED, seed, len(side), how.number])
    y0 = 0.15 if side == "left" else -0.15
    centre = np.array([0.45, y0, 0.95 if how.is_human else 0.25, 0.0, 0.0])
    spread = np.array(how.spread)
    at, now, out = centre + rng.uniform(-1, 1, 5) * spread, how.begins_s, []
    for index in range(int(rng.integers(*how.moves))):
        to = centre + rng.uniform(-1, 1, 5) * spread
        away = float(np.linalg.norm(to[:3] - at[:3]))
        takes = max(how.least_s, away / rng.uniform(*how.pace_m_s))
        out.append(Move(now, now + takes, tuple(at), tuple(to)))
        waits = rng.uniform(*how.stays_s)
        is_others_turn = len(how.sides) == 2 and not how.is_human and index % 2 == (side == "left")
        now, at = now + takes + waits + (1.2 if is_others_turn else 0.0), to
    return tuple(out)


def place(moves: tuple[Move, ...], t_s: float) -> Array:
    """[5] minimum jerk within a move (Flash and Hogan 1985), still between them."""
    here = moves[0]
    for move in moves:
        if move.begin_s <= t_s:
            here = move
    s = float(np.clip((t_s - here.begin_s) / (here.end_s - here.begin_s), 0, 1))
    share = 10 * s**3 - 15 * s**4 + 6 * s**5
    start = np.array(here.start)
    return start + (np.array(here.end) - start) * share


def pouring_rad(span: tuple[float, float], t_s: float) -> float:
    """0.6 rad there and back within a span of the scene's time."""
    begin, end = span
    return 0.6 * float(np.sin(np.pi * (t_s - begin) / (end - begin))) if begin < t_s < end else 0.0


@dataclass(frozen=True)
class Reach(Scene):
    """A robot that takes from every second place and lets go at the others."""

    rig: str = "desk_arm"
    held: float = 0.0  # opening at which a thing stops the jaws
    poured: tuple[float, float] = (0.0, 0.0)  # from when to when the wrist is turned and back

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        x, y, z, yaw, tilt = place(moves_of(self.seed, side, self.rig), t_s)
        yaw += pouring_rad(self.poured, t_s)
        return rigid_transform(
            rot_z(yaw) @ rot_y(np.pi / 2 - 0.3 + tilt) @ rot_x(0.5 * yaw), [x, y, z]
        )

    def gripper_opening(self, t_s: float) -> float:
        at, to = [0.0], [1.0]
        for index, move in enumerate(moves_of(self.seed, "left", self.rig)):
            aim = self.held if index % 2 == 0 else 1.0
            at += [move.end_s, move.end_s + 0.4]
            to += [to[-1], aim]
        return float(np.interp(t_s, at, to))


@dataclass(frozen=True)
class Cook(HandScene):
    """Hands that reach, before a head that looks about."""

    rig: str = "cook"
    poured: tuple[float, float] = (0.0, 0.0)

    def T_world_wrist(self, t_s: float, side: str = "right") -> np.ndarray:
        T = super().T_world_wrist(t_s, side)
        x, y, z, yaw, _ = place(moves_of(self.seed, side, self.rig), t_s)
        turn = pouring_rad(self.poured, t_s)
        return rigid_transform(rot_z(0.5 * yaw + turn) @ T[:3, :3], [x, y, z])


# --- recordings ---------------------------------------------------------------------------------------------------------


def recording(rig: Rig, seed: int) -> Recording:
    rng = np.random.default_rng([SEED, seed, 1])
    sides = {side: moves_of(seed, side, rig.name) for side in rig.sides}
    seconds = max(moves[-1].end_s for moves in sides.values()) + rig.ends_s
    scene: Scene | HandScene
    if rig.is_human:
        scene = Cook(seed=seed, duration_s=seconds, sides=rig.sides, rig=rig.name)
    else:
        held = float(rng.uniform(*rig.grip))
        scene = Reach(seed=seed, duration_s=seconds, sides=rig.sides, rig=rig.name, held=held)
    return Recording(body=rig, seed=seed, scene=scene, speed=np.ones(int(seconds * RATE_HZ)))


def perform(made: Recording) -> None:
    """Arms as recorded and commands as given, from the scene and the pace of its time."""
    rig = made.body
    assert isinstance(rig, Rig)
    grid_s = np.arange(made.length) / RATE_HZ
    made.truth = ["high"] * made.length
    scene_s = made.time_s
    ahead = np.append(scene_s[1:], scene_s[-1])
    followed = np.interp(grid_s - rig.late_s, grid_s, scene_s)
    if not len(made.opening):
        made.opening = openings(made, followed)
    for side in rig.sides:
        made.arms[side] = _recorded(made, side, followed)
        if rig.has_commands:
            asked = np.stack([made.scene.T_base_hand(t, side) for t in ahead])
            asked[:, :3, 3] += _rng(made, side, 4).uniform(-1, 1, 3) * rig.off_m
            made.command[side] = asked
    if rig.has_commands and not rig.is_human:
        wanted = np.append(made.opening[1:], made.opening[-1])
        made.command_opening = np.where(wanted < 0.5, 0.0, wanted)  # shut, whatever is between


def openings(made: Recording, scene_s: Array) -> Array:
    if isinstance(made.scene, HandScene):
        return np.zeros(made.length)
    found = np.array([made.scene.gripper_opening(t) for t in scene_s])
    is_binary = isinstance(made.body, Rig) and made.body.is_binary
    return np.where(found > 0.5, 1.0, 0.0) if is_binary else found


def _recorded(made: Recording, side: str, scene_s: Array) -> Array:
    """[K, 4, 4]: the scene at the instants of the source, straight lines between them, and the error of what measured it."""
    rig = made.body
    assert isinstance(rig, Rig)
    grid_s = np.arange(made.length) / RATE_HZ
    poses = np.stack([made.scene.T_base_hand(t, side) for t in scene_s])
    measured = _rng(made, side, 3)
    if rig.source_hz % RATE_HZ == 0:  # the grid falls on its samples
        poses[:, :3, 3] += measured.normal(0, rig.noise_m, (made.length, 3))
    else:
        source_s = np.arange(0, grid_s[-1] + 1 / rig.source_hz, 1 / rig.source_hz)
        at = np.interp(source_s, grid_s, scene_s)
        seen = np.stack([made.scene.T_base_hand(t, side)[:3, 3] for t in at])
        seen += measured.normal(0, rig.noise_m, seen.shape)
        for axis in range(3):
            poses[:, axis, 3] = np.interp(grid_s, source_s, seen[:, axis])
    poses[:, :3, 3] += _drift(made, rig.drift_m, side)
    return poses


def _rng(made: Recording, side: str, what: int) -> np.random.Generator:
    return np.random.default_rng([SEED, made.seed, what, len(side)])


def _drift(made: Recording, size_m: float, side: str) -> Array:
    """[K, 3] an error of that size that takes half a second to change."""
    rng = _rng(made, side, 5)
    keep = np.exp(-1 / (0.5 * RATE_HZ))
    out = rng.normal(0, size_m, (made.length, 3))
    for k in range(1, made.length):
        out[k] = keep * out[k - 1] + np.sqrt(1 - keep**2) * out[k]
    return out


def held_still(
    made: Recording, seconds: float, *, near: float, speed: float = 0.0
) -> tuple[int, int]:
    """The scene's time stops for `seconds`, half a second to come to rest and to go on; returns the timesteps at rest."""
    start, steps = int(near * made.length), round(seconds * RATE_HZ)
    ramp = np.array([0.9, 0.6, 0.35, 0.1])
    made.speed = np.insert(made.speed, start, [*ramp, *np.full(steps, speed), *ramp[::-1]])
    return start + len(ramp), start + len(ramp) + steps


def pictures(made: Recording) -> Iterator[Any]:
    """[H, W] luma: the scene before a room, with a camera's noise; a picture shown twice is the same twice."""
    room, plain = _luma(texture(made.seed % 7, sigma_px=6.0)), _luma(np.full((1, 1, 3), PLAIN))
    noise = np.random.default_rng([SEED, made.seed]).normal(0, 2.0, (300, 400))
    shown = np.arange(made.length) if made.shown is None else made.shown
    scene_s = made.time_s
    last, luma = -1, None
    for index in shown:
        if index != last or luma is None:
            scene = _luma(made.scene.picture(float(scene_s[index])))
            scene = np.where(scene == plain[0, 0], room, scene)
            if made.body.is_human:  # the head goes on looking about
                scene = np.roll(scene, int(6 * np.sin(index / 5.0)), axis=1)
            y, x = (31 * index) % 60, (17 * index) % 80
            luma = np.clip(scene + noise[y : y + 240, x : x + 320], 0, 255).astype(np.uint8)
            last = int(index)
        yield luma


def _luma(rgb: Any) -> Any:
    return cv2.cvtColor(np.asarray(rgb, np.uint8), cv2.COLOR_RGB2GRAY)


def finished(
    made: Recording, fault: str, codes: tuple[str, ...], *, has_pictures: bool
) -> Demonstration:
    rig = made.body
    assert isinstance(rig, Rig)
    said = {
        "tasks": [rig.task],
        "source_rate_hz": float(rig.source_hz),
        "embodiment": "human_mano" if rig.is_human else f"held_out_{rig.name}",
    }
    shown = pictures(made) if has_pictures else None
    view = stored(made, has_pictures=has_pictures, lumas=shown, **said)
    return Demonstration(fault=fault, codes=codes, truth=tuple(made.truth), view=view)


def of_length(made: Recording, end: int) -> None:
    """Cut off after `end` timesteps."""
    made.speed = made.speed[:end]
    made.opening = made.opening[:end]
