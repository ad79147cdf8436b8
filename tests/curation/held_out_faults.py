"""What may be wrong with a held-out demonstration, from faint to gross, and how sound ones differ.

`SWEEPS` names of each fault the sizes, the rules that may find it, and the size from which on it counts as a fault in the figures per
tier; those sizes were written down before anything was measured. A smaller one is labelled alike: what it costs shows in the recall by size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tests.curation.demonstrations import RATE_HZ, Demonstration, Recording
from tests.curation.held_out import (
    EVERY_RIG,
    RIGS,
    SEED,
    Rig,
    finished,
    held_still,
    of_length,
    openings,
    perform,
    recording,
)

# --- sound, as people differ --------------------------------------------------------------------------------------------


def slow(made: Recording) -> None:
    """Takes two thirds longer."""
    made.speed = np.full(round(made.length / 0.6), 0.6)
    perform(made)


def quick(made: Recording) -> None:
    made.speed = np.full(round(made.length / 1.3), 1.3)
    perform(made)


def tremor(made: Recording) -> None:
    """A human one: 0.5 mm, white."""
    perform(made)
    shake(made, 0.0005)


def nudge(made: Recording) -> None:
    """Loosens the grip halfway and grips again, as people do to adjust; about 0.7 s."""
    perform(made)
    closed = np.flatnonzero(made.opening < 0.5)
    if len(closed) > 12:
        start = int(closed[6])
        made.opening[start : start + 7] = np.maximum(
            made.opening[start : start + 7], [0.2, 0.4, 0.6, 0.6, 0.6, 0.4, 0.2]
        )
    if made.command_opening is not None:
        made.command_opening = np.append(made.opening[1:], made.opening[-1])


def pour(made: Recording) -> None:
    """Stays for 3 s on purpose; the wrist turns by 0.6 rad and back."""
    start, end = held_still(made, 3.0, near=0.5, speed=0.01)
    at_s = made.time_s  # creeps on, so that the scene knows how far the wrist has turned
    made.scene = replace(made.scene, poured=(float(at_s[start]), float(at_s[end])))  # type: ignore[call-arg]
    perform(made)


def wait(made: Recording) -> None:
    """Stays for 2.5 s on purpose and does nothing: for a kettle, say.

    That time is `low`, as of any pause: its actions are true and fit for dynamics, and nothing in them is worth imitating, since a policy
    that sees neither kettle nor clock learns to stall. `low` is no blame of the demonstrator; what is around the wait is `high`.
    """
    start, end = held_still(made, 2.5, near=0.5)
    perform(made)
    made.label("low", start, end)


STYLES: dict[str, Callable[[Recording], None]] = {
    "plain": perform,
    "slow": slow,
    "quick": quick,
    "tremor of 0.5 mm": tremor,
    "grip nudged": nudge,
    "pours for 3 s": pour,
    "waits for 2.5 s": wait,
}


# --- faults -------------------------------------------------------------------------------------------------------------


def shake(made: Recording, size_m: float) -> None:
    """What is commanded trembles, and what follows does too."""
    for number, side in enumerate(made.body.sides):
        rng = np.random.default_rng([SEED, made.seed, 7, number])
        noise = rng.normal(0, size_m, (made.length + 1, 3))
        made.arms[side][:, :3, 3] += noise[:-1]
        if side in made.command:
            made.command[side][:, :3, 3] += noise[1:]


def noise(made: Recording, size_mm: float) -> None:
    perform(made)
    shake(made, size_mm / 1000)
    made.label("low")


def pause(made: Recording, seconds: float) -> None:
    start, end = held_still(made, seconds, near=float(made.rng.uniform(0.3, 0.6)))
    perform(made)
    made.label("low", start, end)


def rest(made: Recording, seconds: float) -> None:
    """The recording runs on after the task, or has begun before it."""
    steps = round(seconds * RATE_HZ)
    at = 0 if made.seed % 2 else made.length
    made.speed = np.insert(made.speed, at, np.zeros(steps))
    perform(made)
    made.label("low", *((0, steps) if at == 0 else (at, at + steps)))


def _retry(made: Recording, seconds: float, lift_m: float) -> None:
    """Shut, lifted, put back, opened and shut again; `seconds` from the first closing to the second."""
    first = _first_grip(made)
    steps = round(seconds * RATE_HZ)
    made.speed = np.insert(made.speed, first, np.zeros(steps))
    opening = openings(made, made.time_s)
    at = [0, 0.45 * steps, 0.45 * steps + 3, steps - 4, steps - 1]
    tried = np.interp(np.arange(steps), at, [opening[first]] * 2 + [1.0, 1.0, opening[first]])
    opening[first : first + steps] = (
        np.where(tried > 0.5, 1.0, 0.0) if is_binary(made) else np.maximum(tried, opening[first])
    )
    made.opening = opening
    perform(made)
    up = lift_m * np.sin(np.pi * np.clip(np.arange(steps) / (0.45 * steps), 0, 1))
    for values in (*made.arms.values(), *made.command.values()):
        values[first : first + steps, 2, 3] += up
    made.label("low", first - 3, first + steps)


def is_binary(made: Recording) -> bool:
    return isinstance(made.body, Rig) and made.body.is_binary


def _first_grip(made: Recording) -> int:
    """The timestep at which the jaws have closed for the first time."""
    opening = openings(made, made.time_s)
    return int(np.argmax(opening <= opening.min() + 1e-6)) + 1


def retry_after(made: Recording, seconds: float) -> None:
    _retry(made, seconds, 0.01)


def retry_lifted(made: Recording, lift_cm: float) -> None:
    _retry(made, 2.4, lift_cm / 100)


def truncation(made: Recording, percent: float) -> None:
    of_length(made, round(made.length * (1 - percent / 100)))
    perform(made)
    made.label("low")


def _part(made: Recording, percent: float) -> slice:
    """The last so many percent."""
    start = round(made.length * (1 - percent / 100))
    made.label("actionless", start)
    return slice(start, None)


def wrong_gripper(made: Recording, percent: float) -> None:
    perform(made)
    part = _part(made, percent)
    assert made.command_opening is not None
    made.command_opening[part] = 1 - made.command_opening[part]


def replayed_actions(made: Recording, percent: float) -> None:
    perform(made)
    rig = made.body
    assert isinstance(rig, Rig)
    other = recording(rig, made.seed + 1)
    perform(other)
    part = _part(made, percent)
    for side, values in made.command.items():
        wanted = np.resize(np.arange(other.length), made.length)
        values[part] = other.command[side][wanted][part]


def swapped_arms(made: Recording, percent: float) -> None:
    perform(made)
    part = _part(made, percent)
    left, right = made.command["left"].copy(), made.command["right"].copy()
    made.command["left"][part], made.command["right"][part] = right[part], left[part]


def looped(made: Recording, seconds: float) -> None:
    """The last seconds are those before them, to the last bit; the pictures go on."""
    perform(made)
    steps = min(round(seconds * RATE_HZ), made.length // 2)
    for values in (*made.arms.values(), *made.command.values(), made.opening):
        values[-steps:] = values[-2 * steps : -steps]
    made.label("actionless", made.length - steps)


def teleport(made: Recording, size_cm: float) -> None:
    """From the middle on one arm is elsewhere, as is what it was told."""
    perform(made)
    middle, side = made.length // 2, made.body.sides[0]
    made.arms[side][middle:, 0, 3] += size_cm / 100
    if side in made.command:
        made.command[side][middle - 1 :, 0, 3] += size_cm / 100
    made.label("actionless", middle - 5, middle + 5)


def stuck_column(made: Recording, seconds: float) -> None:
    """One coordinate does not change for a while; the others do."""
    perform(made)
    side, steps = made.body.sides[0], round(seconds * RATE_HZ)
    moving = np.linalg.norm(np.diff(made.arms[side][:, :2, 3], axis=0), axis=1)
    start = int(np.argmax(np.convolve(moving, np.ones(steps), "valid")))  # where it moves most
    made.arms[side][start : start + steps + 1, 2, 3] = made.arms[side][start, 2, 3]
    made.label("actionless", start, start + steps)


def frozen_video(made: Recording, seconds: float) -> None:
    perform(made)
    start, steps = int(0.3 * made.length), round(seconds * RATE_HZ)
    made.shown = np.arange(made.length)
    made.shown[start : start + steps] = start
    made.label("excluded", start, start + steps)


def late_video(made: Recording, seconds: float) -> None:
    perform(made)
    made.shown = np.maximum(np.arange(made.length) - round(seconds * RATE_HZ), 0)
    made.label("actionless")


ANY = tuple(rig.name for rig in EVERY_RIG)
ROBOTS = tuple(rig.name for rig in EVERY_RIG if not rig.is_human)
COMMANDED = tuple(rig.name for rig in EVERY_RIG if rig.has_commands)
PARTS = (25.0, 50.0, 75.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One fault in growing sizes."""

    make: Callable[[Recording, float], None]
    unit: str
    sizes: tuple[float, ...]
    counts_from: float  # the size from which on it counts in the figures per tier
    codes: tuple[str, ...]  # rules that may find it
    also: tuple[str, ...] = ()  # rules that are right about it without having found it
    rigs: tuple[str, ...] = ANY
    is_seen: bool = False  # needs pictures


SWEEPS = {
    "noise": Sweep(
        make=noise,
        unit="mm",
        sizes=(1, 2, 3, 5, 10, 20),
        counts_from=3,
        codes=("shaky",),
        also=("teleport",),
    ),
    "pause": Sweep(
        make=pause, unit="s", sizes=(0.5, 1, 1.5, 2, 3, 5), counts_from=2, codes=("pause",)
    ),
    "rest at an end": Sweep(
        make=rest, unit="s", sizes=(0.5, 1, 1.5, 2, 3, 5), counts_from=2, codes=("rest",)
    ),
    "retry, time between": Sweep(
        make=retry_after,
        unit="s",
        sizes=(1, 1.5, 2, 2.8, 4, 6),
        counts_from=1,
        codes=("retry",),
        also=("pause",),
        rigs=ROBOTS,
    ),
    "retry, lifted by": Sweep(
        make=retry_lifted,
        unit="cm",
        sizes=(0.5, 1, 2, 3, 5, 8),
        counts_from=0.5,
        codes=("retry",),
        rigs=ROBOTS,
    ),
    "truncation": Sweep(
        make=truncation,
        unit="% missing",
        sizes=(10, 20, 30, 40, 50, 60),
        counts_from=40,
        codes=("cut_off",),
    ),
    "wrong gripper": Sweep(
        make=wrong_gripper,
        unit="% of it",
        sizes=PARTS,
        counts_from=50,
        codes=("foreign_action",),
        rigs=COMMANDED,
    ),
    "replayed actions": Sweep(
        make=replayed_actions,
        unit="% of it",
        sizes=PARTS,
        counts_from=50,
        codes=("foreign_action", "arms_swapped"),
        rigs=COMMANDED,
    ),
    "swapped arms": Sweep(
        make=swapped_arms,
        unit="% of it",
        sizes=PARTS,
        counts_from=50,
        codes=("arms_swapped", "foreign_action"),
        rigs=tuple(rig.name for rig in EVERY_RIG if rig.has_commands and len(rig.sides) == 2),
    ),
    "looped": Sweep(
        make=looped,
        unit="s",
        sizes=(0.5, 1, 2, 4),
        counts_from=2,
        codes=("repeated",),
        also=("teleport", "late_video", "retry", "shaky"),
    ),
    "teleport": Sweep(
        make=teleport,
        unit="cm",
        sizes=(1, 2, 5, 10, 15, 30),
        counts_from=10,
        codes=("teleport",),
        also=("shaky",),
    ),
    "stuck column": Sweep(
        make=stuck_column, unit="s", sizes=(0.5, 1, 2, 4), counts_from=2, codes=("stuck",)
    ),
    "frozen video": Sweep(
        make=frozen_video,
        unit="s",
        sizes=(0.2, 0.5, 1, 2, 3, 5),
        counts_from=2,
        codes=("frozen_video", "unusable_video"),
        is_seen=True,
    ),
    "late video": Sweep(
        make=late_video,
        unit="s",
        sizes=(0.1, 0.2, 0.3, 0.4, 0.6, 1),
        counts_from=0.4,
        codes=("late_video",),
        also=("frozen_video",),
        rigs=ROBOTS,
        is_seen=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A held-out demonstration and what was done to it."""

    rig: str
    name: str  # of the fault, or of the style of a sound one
    size: float  # 0 for a sound one
    counts: bool  # sound, or of a size that counts
    demonstration: Demonstration


def held_out(
    sound: int,
    faulty: int,
    *,
    first: int = 0,
    rigs: Sequence[Rig] = RIGS,
    has_pictures: bool = True,
) -> Iterator[Made]:
    """Of every rig `sound` of each style, with pictures, and `faulty` of each fault and size, with pictures where those matter."""
    for rig in rigs:
        seed = first
        for style, vary in STYLES.items():
            for _ in range(sound):
                made = recording(rig, seed := seed + 1)
                vary(made)
                codes = ("pause",) if vary is wait else ()
                done = finished(made, "none", codes, has_pictures=has_pictures)
                yield Made(rig=rig.name, name=style, size=0.0, counts=True, demonstration=done)
        for fault, sweep in SWEEPS.items():
            if rig.name not in sweep.rigs or (sweep.is_seen and not has_pictures):
                continue
            for size in sweep.sizes:
                for _ in range(faulty):
                    made = recording(rig, seed := seed + 1)
                    sweep.make(made, size)
                    codes = (*sweep.codes, *sweep.also)
                    done = finished(made, fault, codes, has_pictures=sweep.is_seen)
                    yield Made(
                        rig=rig.name,
                        name=fault,
                        size=size,
                        counts=size >= sweep.counts_from,
                        demonstration=done,
                    )
