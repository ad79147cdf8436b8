"""Labelled demonstrations for the tier benchmark: the generators' scenes at 10 Hz, sound or with one known fault at a known place.

Robots of one and two arms, with commands of their own or with achieved next states, and a person's hands. A fault is put into the time
of the scene, its numbers, its commands or its pictures; `truth` says for each timestep which tier is right, `fault` which rule codes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ingest.curation.measurements.pictures import ImageFacts, facts_of
from ingest.curation.measurements.view import EpisodeView
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene
from tests.curation.arms import ArmPath, view_of
from tests.curation.video_corpus import camera_row

RATE_HZ = 10
Array = np.ndarray[Any, np.dtype[np.float64]]
ACTIONS = ("policy", "forward_dynamics", "inverse_dynamics", "visual_forecasting")


class TwoArms(Scene):
    """Both arms have a motion of their own; in `Scene` they move alike."""

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        if side == "left":
            return super().T_base_hand(t_s, side)
        return Scene(seed=self.seed + 5, sides=self.sides).T_base_hand(0.8 * t_s, side)


@dataclass(frozen=True)
class Person(HandScene):
    """The head goes on when the hands rest: its clock is `head_ahead_s` before theirs."""

    head_ahead_s: float = 0.0

    def T_world_cam(self, t_s: float) -> np.ndarray:
        return super().T_world_cam(t_s + self.head_ahead_s)


@dataclass(frozen=True)
class Body:
    """What is recorded, and how."""

    name: str
    sides: tuple[str, ...]
    is_human: bool = False
    has_commands: bool = True


BODIES = (
    Body("one_arm", ("left",)),
    Body("two_arms", ("left", "right")),
    Body("one_arm_achieved", ("left",), has_commands=False),
    Body("human_hands", ("left", "right"), is_human=True, has_commands=False),
)


@dataclass(kw_only=True)
class Recording:
    """One demonstration before it is stored: what a fault may change. K timesteps."""

    body: Body
    seed: int
    scene: Scene | HandScene
    speed: Array  # [K] of the scene's time at each timestep: 1 is as it was, 0 a rest
    truth: list[str] = field(default_factory=list)  # [K]
    opening: Array = field(default_factory=lambda: np.zeros(0))  # [K]
    arms: dict[str, Array] = field(default_factory=dict)  # side -> [K, 4, 4]
    command: dict[str, Array] = field(default_factory=dict)  # side -> [K, 4, 4], target of k + 1
    command_opening: Array | None = None
    shown: Array | None = None  # [K] the timestep whose picture is shown

    @property
    def length(self) -> int:
        return len(self.speed)

    @property
    def time_s(self) -> Array:
        """[K] instant of the scene at each timestep."""
        return np.concatenate([[0.0], np.cumsum(self.speed[:-1])]) / RATE_HZ

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, 77])

    def label(self, tier: str, start: int = 0, end: int | None = None) -> None:
        self.truth[start:end] = [tier] * len(self.truth[start:end])


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """One stored episode with its labels."""

    fault: str  # "none" for a sound one
    codes: tuple[str, ...]  # rules that are right about it
    truth: tuple[str, ...]
    view: EpisodeView | None  # None once it was measured


# --- sound recordings ---------------------------------------------------------------------------------------------------


def recording(body: Body, seed: int) -> Recording:
    """A scene of 10 to 13 s that begins and ends at rest; the gripper closes in the middle third."""
    seconds = float(np.random.default_rng([seed, 1]).uniform(10, 13))
    kind = Person if body.is_human else TwoArms if len(body.sides) == 2 else Scene
    scene = kind(seed=seed, duration_s=seconds, sides=body.sides)
    at_s = np.arange(int((seconds + 1) * RATE_HZ)) / RATE_HZ
    ease = np.clip(np.minimum(at_s, at_s[-1] - at_s), 0, 1)  # a second from rest to full speed
    speed = np.asarray(ease**2 * (3 - 2 * ease))
    return Recording(body=body, seed=seed, scene=scene, speed=speed)


def _opening(scene: Scene | HandScene, time_s: Array) -> Array:
    if isinstance(scene, HandScene):
        return np.zeros(len(time_s))
    return np.array([scene.gripper_opening(t) for t in time_s])


def perform(made: Recording) -> None:
    """Fill in arms and commands from the scene; an encoder has a noise of 0.05 mm, an estimated hand one of 0.3 mm."""
    time_s = made.time_s
    if not len(made.opening):
        made.opening = _opening(made.scene, time_s)
    made.truth = ["high"] * made.length
    ahead = np.append(time_s[1:], time_s[-1])
    noise_m = 0.0003 if made.body.is_human else 0.00005
    for side in made.body.sides:
        poses = np.stack([made.scene.T_base_hand(t, side) for t in time_s])
        poses[:, :3, 3] += made.rng.normal(0, noise_m, (made.length, 3))
        made.arms[side] = poses
        if made.body.has_commands:
            made.command[side] = np.stack([made.scene.T_base_hand(t, side) for t in ahead])
    if made.body.has_commands:
        made.command_opening = np.append(made.opening[1:], made.opening[-1])


# --- faults -------------------------------------------------------------------------------------------------------------


def slowed(made: Recording, seconds: float, speed: float) -> tuple[int, int]:
    """From 40 % on the scene goes at `speed` for `seconds`; returns those timesteps."""
    start, steps = int(0.4 * made.length), int(seconds * RATE_HZ)
    made.speed = np.insert(made.speed, start, np.full(steps, speed))
    return start, start + steps


def pause(made: Recording) -> None:
    start, end = slowed(made, float(made.rng.uniform(3, 5)), 0.0)
    perform(made)
    made.label("low", start, end)


def retry(made: Recording) -> None:
    """Closed on nothing, opened, closed again within 2.6 s, while the arm hardly moves; opened at the end."""
    start, end = slowed(made, 2.6, 0.1)
    closed_until = made.length - start - 20
    at = [2, 5, 10, 13, 17, 20, closed_until, closed_until + 3]
    made.opening = np.interp(np.arange(made.length) - start, at, [1, 0, 0, 1, 1, 0, 0, 1])
    perform(made)
    made.label("low", start, end)


def noise(made: Recording) -> None:
    """A trembling operator: what is commanded trembles, and what follows does too."""
    perform(made)
    size_m = made.rng.uniform(0.004, 0.01)
    for side in made.body.sides:
        shake = made.rng.normal(0, size_m, (made.length + 1, 3))
        made.arms[side][:, :3, 3] += shake[:-1]
        if side in made.command:
            made.command[side][:, :3, 3] += shake[1:]
    made.label("low")


def truncation(made: Recording) -> None:
    end = int(made.length * made.rng.uniform(0.3, 0.5))
    made.speed = made.speed[:end]
    perform(made)
    made.label("low")


def wrong_gripper(made: Recording) -> None:
    perform(made)
    assert made.command_opening is not None
    made.command_opening = 1 - made.command_opening
    made.label("actionless")


def replayed_actions(made: Recording) -> None:
    """The commands of another demonstration of the same task."""
    perform(made)
    other = recording(made.body, made.seed + 3)
    other.speed = made.speed
    perform(other)
    made.command = other.command
    made.label("actionless")


def swapped_arms(made: Recording) -> None:
    perform(made)
    made.command = {"left": made.command["right"], "right": made.command["left"]}
    made.label("actionless")


def looped(made: Recording) -> None:
    """The last 4 s are those before them, to the last bit; the pictures go on."""
    perform(made)
    steps = 4 * RATE_HZ
    for values in (*made.arms.values(), *made.command.values()):
        values[-steps:] = values[-2 * steps : -steps]
    made.opening[-steps:] = made.opening[-2 * steps : -steps]
    made.label("actionless", made.length - steps)


def teleport(made: Recording) -> None:
    """From the middle on one arm is 15 cm elsewhere, as is what it was told."""
    perform(made)
    middle, side = made.length // 2, made.body.sides[0]
    made.arms[side][middle:, 0, 3] += 0.15
    if side in made.command:
        made.command[side][middle - 1 :, 0, 3] += 0.15
    made.label("actionless", middle - 10, middle + 10)


def stuck_column(made: Recording) -> None:
    """Half of the recording has one coordinate that does not change."""
    perform(made)
    start, side = made.length // 2, made.body.sides[0]
    made.arms[side][start:, 2, 3] = made.arms[side][start, 2, 3]
    made.label("actionless", start)


def frozen_video(made: Recording) -> None:
    perform(made)
    start = int(0.3 * made.length)
    end = start + 4 * RATE_HZ
    made.shown = np.arange(made.length)
    made.shown[start:end] = start
    made.label("excluded", start, end)


def late_video(made: Recording) -> None:
    """The pictures come 0.6 s after the state."""
    perform(made)
    made.shown = np.maximum(np.arange(made.length) - 6, 0)
    made.label("actionless")


ANY = tuple(body.name for body in BODIES)
ROBOTS = tuple(body.name for body in BODIES if not body.is_human)
COMMANDED = tuple(body.name for body in BODIES if body.has_commands)


@dataclass(frozen=True)
class Fault:
    make: Callable[[Recording], None]
    codes: tuple[str, ...]  # rules that may find it
    bodies: tuple[str, ...] = ANY  # that it can happen to
    also: tuple[str, ...] = ()  # rules that are right about it without having found it


FAULTS = {
    "none": Fault(perform, ()),
    "pause": Fault(pause, ("pause",)),
    "retry": Fault(retry, ("retry",), ROBOTS),
    "noise": Fault(noise, ("shaky",)),
    "truncation": Fault(truncation, ("cut_off",)),
    "wrong_gripper": Fault(wrong_gripper, ("foreign_action",), COMMANDED),
    "replayed_actions": Fault(replayed_actions, ("foreign_action",), COMMANDED),
    "swapped_arms": Fault(swapped_arms, ("arms_swapped", "foreign_action"), ("two_arms",)),
    "looped": Fault(looped, ("repeated",), also=("teleport", "late_video")),
    "teleport": Fault(teleport, ("teleport",)),
    "stuck_column": Fault(stuck_column, ("stuck",)),
    "frozen_video": Fault(frozen_video, ("frozen_video", "unusable_video")),
    "late_video": Fault(late_video, ("late_video",), ROBOTS),
}


# --- stored -------------------------------------------------------------------------------------------------------------


def demonstrations(
    sound: int, faulty: int, *, has_pictures: bool = True, faults: Collection[str] = tuple(FAULTS)
) -> Iterator[Demonstration]:
    """Of every body `sound` sound episodes ("none"), and `faulty` of every other one of `faults` that it can have."""
    for body in BODIES:
        for fault, how in FAULTS.items():
            count = (sound if fault == "none" else faulty) if fault in faults else 0
            for index in range(count if body.name in how.bodies else 0):
                made = recording(body, seed=1000 * list(FAULTS).index(fault) + index)
                how.make(made)
                yield Demonstration(
                    fault=fault,
                    codes=(*how.codes, *how.also),
                    truth=tuple(made.truth),
                    view=stored(made, has_pictures=has_pictures),
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenView(EpisodeView):
    """A view whose pictures were looked at already; no file is opened."""

    looked: Mapping[str, ImageFacts]

    @property
    def pictures(self) -> Mapping[str, ImageFacts]:
        return self.looked


def with_pictures(view: EpisodeView, looked: Mapping[str, ImageFacts]) -> SeenView:
    """The view as if its videos showed that."""
    kept = {each.name: getattr(view, each.name) for each in fields(view) if each.name != "looked"}
    kept["videos"] = {name: Path(f"{name}.mp4") for name in looked}
    return SeenView(**kept, looked=looked)


def stored(
    made: Recording, *, has_pictures: bool, lumas: Iterator[Any] | None = None, **said: Any
) -> EpisodeView:
    """As the catalog would have it, with the pictures seen already: those of the scene, or `lumas`. `said` is for the row."""
    paths = {}
    for side, poses in made.arms.items():
        command = made.command.get(side)
        is_gripper = not made.body.is_human
        paths[side] = ArmPath(
            position_m=poses[:, :3, 3],
            rotmat=poses[:, :3, :3],
            opening=made.opening if is_gripper else None,
            command_m=None if command is None else command[:, :3, 3],
            command_rotmat=None if command is None else command[:, :3, :3],
            command_opening=made.command_opening if is_gripper else None,
        )
    name = "head"
    row = {
        "embodiment": "human_mano" if made.body.is_human else f"robot_{made.body.name}",
        "action_source": "commanded" if made.command else "achieved",
        "cameras": [camera_row(name)],
        "tasks": ["put the yellow jaws on the red box"],
        "task_counts": [made.length],
        "facts": [],
        "supervision_limits": [],
        "success": None,
    }
    view = view_of(paths, row=row | said)
    if not has_pictures:
        return view
    shown = _lumas(made) if lumas is None else lumas
    return with_pictures(view, {name: facts_of(shown, made.length)})


def _lumas(made: Recording) -> Iterator[Any]:
    shown = np.arange(made.length) if made.shown is None else made.shown
    time_s = made.time_s
    last, luma = -1, None
    for index in shown:
        if index != last or luma is None:
            scene, at_s = made.scene, float(time_s[index])
            if isinstance(scene, Person):
                scene = replace(scene, head_ahead_s=index / RATE_HZ - at_s)
            picture = scene.picture(at_s)
            luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            last = index
        yield luma
