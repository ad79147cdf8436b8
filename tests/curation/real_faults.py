"""Faults put into real episodes: ingested by their true adapters, then broken in the rows and pictures that were committed.

Episodes are taken as whatever their facts allow (robomimic's have no pictures, GR-1's no verified action), so that the rules are seen at
work; what the facts forbid is `eicorpus tier`'s business. An action that is the achieved next state stays that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.measurements.pictures import facts_of
from ingest.curation.measurements.registry import select_measures
from ingest.curation.measurements.runner import missing, work_of
from ingest.curation.measurements.view import EpisodeView, open_view
from tests.curation.demonstrations import Array, with_pictures
from tests.faults.runs import run

SAMPLES = {
    "oxe": "oxe_bridge_rlds",
    "robomimic": "robomimic_playback",
    "robocasa_gr1": "lerobot_v20_gr1_picknplace",
}
Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Real:
    """A committed episode, its pictures by camera, and (of a broken one) which timesteps are wrong."""

    source: str
    view: EpisodeView
    lumas: Mapping[str, Sequence[Any]]
    wrong: tuple[int, int] = (0, 0)

    @property
    def length(self) -> int:
        return self.view.length

    @property
    def seen(self) -> EpisodeView:
        looked = {name: facts_of(iter(each), self.length) for name, each in self.lumas.items()}
        return with_pictures(self.view, looked) if looked else self.view


def real_episodes(samples: Path, scratch: Path) -> Iterator[Real]:
    """All that is committed of the samples."""
    for source, folder in SAMPLES.items():
        root = scratch / source
        run(samples / folder, root, source=source)
        corpus, current = open_corpus(root), snapshot.load(root)
        works = work_of(corpus, current, missing(corpus, current, select_measures([])))
        for work in sorted(works, key=lambda w: str(w.row["episode_id"])):
            view = open_view(root, work.row, work.segments, work.features, work.rate_hz)
            lumas = {name: list(_decoded(path)) for name, path in view.videos.items()}
            yield Real(source=source, view=view, lumas=lumas)


def _decoded(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="gray")


# --- changes ------------------------------------------------------------------------------------------------------------


def retimed(one: Real, index: Indices, wrong: tuple[int, int]) -> Real:
    """The timesteps `index` of an episode, in that order."""
    row = dict(one.view.row) | {"length": len(index), "duration_s": len(index) / one.view.rate_hz}
    columns = {name: values[index].copy() for name, values in one.view.columns.items()}
    lumas = {name: [each[i] for i in index] for name, each in one.lumas.items()}
    view = replace(one.view, row=row, columns=columns)
    return achieved(replace(one, view=view, lumas=lumas, wrong=wrong))


def whole(one: Real) -> Real:
    """A copy whose columns may be changed."""
    return retimed(one, np.arange(one.length), (0, one.length))


def achieved(one: Real) -> Real:
    """Poses of the action from the next state, where the source commands none."""
    if one.view.row["action_source"] in ("achieved", "mixed"):
        for side in one.view.sides:
            for part in ("position_m", "rot6d_cols"):
                state = one.view.columns["observation.state"][
                    :, at(one, "observation.state", side, part)
                ]
                action = at(one, "action", side, part)
                if len(action):
                    one.view.columns["action"][:-1, action] = state[1:]
    return one


def at(one: Real, feature: str, side: str, part: str) -> list[int]:
    """The columns of a slice."""
    name = f"{side}.{part}"
    names = one.view.names.get(feature, ())
    return [i for i, n in enumerate(names) if n == name or n.startswith(f"{name}.")]


def state(one: Real) -> Array:
    return one.view.columns["observation.state"]


def _rng(one: Real) -> np.random.Generator:
    return np.random.default_rng([one.length, len(one.view.sides)])


def hold(one: Real, start: int, steps: int) -> Real:
    """The timestep `start` lasts `steps` longer; an encoder goes on trembling by 0.05 mm."""
    index = np.insert(np.arange(one.length), start, np.full(steps, start))
    out = retimed(one, index, (start, start + steps))
    for side in one.view.sides:
        columns = at(one, "observation.state", side, "position_m")
        noise = _rng(one).normal(0, 0.00005, (steps, 3))
        state(out)[start : start + steps, columns] += noise
    return achieved(out)


# --- faults -------------------------------------------------------------------------------------------------------------


def noise(one: Real, size_mm: float) -> Real:
    out = whole(one)
    for number, side in enumerate(one.view.sides):
        rng = np.random.default_rng([one.length, number])
        shake = rng.normal(0, size_mm / 1000, (one.length + 1, 3))
        state(out)[:, at(one, "observation.state", side, "position_m")] += shake[:-1]
        action = at(one, "action", side, "position_m")
        if len(action):
            out.view.columns["action"][:, action] += shake[1:]
    return achieved(out)


def pause(one: Real, seconds: float) -> Real:
    return hold(one, one.length // 2, round(seconds * 10))


def rest(one: Real, seconds: float) -> Real:
    return hold(one, 0, round(seconds * 10))


def retry(one: Real, seconds: float) -> Real:
    """At the first closing of the left gripper: shut, opened, shut again, in one place."""
    column = at(one, "observation.state", "left", "gripper_opening")[0]
    opening = state(one)[:, column]
    closed = np.flatnonzero((opening[1:] < 0.3) & (np.maximum.accumulate(opening)[:-1] > 0.7))
    start, steps = int(closed[0]) + 1, round(seconds * 10)
    out = hold(one, start, steps)
    ways = [0, 0.4 * steps, 0.4 * steps + 3, steps - 3, steps]
    jaws = np.interp(np.arange(steps), ways, [opening[start]] * 2 + [1, 1, opening[start]])
    state(out)[start : start + steps, column] = jaws
    return replace(out, wrong=(start, start + steps))


def truncation(one: Real, percent: float) -> Real:
    end = round(one.length * (1 - percent / 100))
    return retimed(one, np.arange(end), (0, end))


def wrong_gripper(one: Real, _: float) -> Real:
    out = whole(one)
    for side in one.view.sides:
        columns = at(one, "action", side, "gripper_opening")
        out.view.columns["action"][:, columns] = 1 - out.view.columns["action"][:, columns]
    return out


def swapped_arms(one: Real, _: float) -> Real:
    out = whole(one)
    left, right = (
        [i for part in ("position_m", "rot6d_cols") for i in at(one, "action", side, part)]
        for side in ("left", "right")
    )
    action = out.view.columns["action"]
    action[:, left + right] = action[:, right + left]
    return out


def looped(one: Real, seconds: float) -> Real:
    steps = round(seconds * 10)
    out = retimed(one, np.arange(one.length), (one.length - steps, one.length))
    for name, values in out.view.columns.items():
        if name != "observation.valid":
            values[-steps:] = values[-2 * steps : -steps]
    return out


def teleport(one: Real, size_cm: float) -> Real:
    out, middle, side = whole(one), one.length // 2, one.view.sides[0]
    state(out)[middle:, at(one, "observation.state", side, "position_m")[0]] += size_cm / 100
    out.view.columns["action"][middle - 1 :, at(one, "action", side, "position_m")[0]] += (
        size_cm / 100
    )
    return replace(out, wrong=(middle - 5, middle + 5))


def stuck_column(one: Real, seconds: float) -> Real:
    out, side, steps = whole(one), one.view.sides[0], round(seconds * 10)
    x, y, z = at(one, "observation.state", side, "position_m")
    moving = np.linalg.norm(np.diff(state(one)[:, [x, y]], axis=0), axis=1)
    start = int(np.argmax(np.convolve(moving, np.ones(steps), "valid")))
    state(out)[start : start + steps + 1, z] = state(out)[start, z]
    return replace(achieved(out), wrong=(start, start + steps))


def _shown(one: Real, index: Indices, wrong: tuple[int, int]) -> Real:
    lumas = {name: [each[i] for i in index] for name, each in one.lumas.items()}
    return replace(one, lumas=lumas, wrong=wrong)


def frozen_video(one: Real, seconds: float) -> Real:
    start, steps = int(0.3 * one.length), round(seconds * 10)
    index = np.arange(one.length)
    index[start : start + steps] = start
    return _shown(one, index, (start, start + steps))


def late_video(one: Real, seconds: float) -> Real:
    index = np.maximum(np.arange(one.length) - round(seconds * 10), 0)
    return _shown(one, index, (0, one.length))


def has_arm(one: Real) -> bool:
    return bool(one.view.sides)


def has_grip(one: Real) -> bool:
    """The left gripper opens wide and shuts."""
    column = at(one, "observation.state", "left", "gripper_opening")
    opening = state(one)[:, column[0]] if column else np.ones(1)
    return bool(((opening[1:] < 0.3) & (np.maximum.accumulate(opening)[:-1] > 0.7)).any())


def has_jaws(one: Real) -> bool:
    return has_arm(one) and bool(at(one, "action", "left", "gripper_opening"))


def has_two(one: Real) -> bool:
    return len(one.view.sides) == 2


def has_pictures(one: Real) -> bool:
    return bool(one.lumas)


def anything(one: Real) -> bool:
    return one.length > 1


@dataclass(frozen=True, kw_only=True)
class RealFault:
    make: Callable[[Real, float], Real]
    unit: str
    sizes: tuple[float, ...]
    codes: tuple[str, ...]
    can: Callable[[Real], bool] = has_arm
    least_s: float = 1.5  # episodes below it are too short to have it


FAULTS = {
    "noise": RealFault(make=noise, unit="mm", sizes=(2, 5, 10), codes=("shaky",)),
    "pause": RealFault(
        make=pause, unit="s", sizes=(2, 3, 5), codes=("pause",), can=anything, least_s=6
    ),
    "rest at an end": RealFault(
        make=rest, unit="s", sizes=(2, 3), codes=("rest",), can=anything, least_s=6
    ),
    "retry": RealFault(
        make=retry, unit="s", sizes=(2, 2.8, 4), codes=("retry",), can=has_grip, least_s=6
    ),
    "truncation": RealFault(
        make=truncation, unit="% missing", sizes=(20, 40, 60), codes=("cut_off",), least_s=2.5
    ),
    "wrong gripper": RealFault(
        make=wrong_gripper, unit="% of it", sizes=(100,), codes=("foreign_action",), can=has_jaws
    ),
    "swapped arms": RealFault(
        make=swapped_arms,
        unit="% of it",
        sizes=(100,),
        codes=("arms_swapped", "foreign_action"),
        can=has_two,
    ),
    "looped": RealFault(make=looped, unit="s", sizes=(1, 2, 4), codes=("repeated",), least_s=9),
    "teleport": RealFault(make=teleport, unit="cm", sizes=(5, 15, 30), codes=("teleport",)),
    "stuck column": RealFault(
        make=stuck_column, unit="s", sizes=(1, 2, 4), codes=("stuck",), least_s=6
    ),
    "frozen video": RealFault(
        make=frozen_video,
        unit="s",
        sizes=(1, 2, 3),
        codes=("frozen_video", "unusable_video"),
        can=has_pictures,
        least_s=6,
    ),
    "late video": RealFault(
        make=late_video,
        unit="s",
        sizes=(0.4, 0.6, 1),
        codes=("late_video",),
        can=has_pictures,
        least_s=6,
    ),
}
# "replayed actions" needs a second episode: see `replayed`.
REPLAYED = RealFault(
    make=lambda one, _: one, unit="% of it", sizes=(100,), codes=("foreign_action", "arms_swapped")
)


def replayed(one: Real, other: Real) -> Real:
    """The actions of another episode of the same body, over and over if it is shorter."""
    out = whole(one)
    values = other.view.columns["action"]
    out.view.columns["action"][:] = values[np.resize(np.arange(len(values)), one.length)]
    return out


def broken(
    episodes: Sequence[Real], *, only_largest: bool = False
) -> Iterator[tuple[str, float, int, Real]]:
    """(fault, size, number of the episode, the episode with it) for every one that can have it."""
    for fault, how in FAULTS.items():
        for size in how.sizes[-1:] if only_largest else how.sizes:
            for number, one in enumerate(episodes):
                if how.can(one) and one.length >= 10 * how.least_s:
                    yield fault, size, number, how.make(one, size)
    for number, one in enumerate(episodes):
        bodies = [e for e in episodes if e.view.row["embodiment"] == one.view.row["embodiment"]]
        if has_arm(one) and len(bodies) > 1:
            other = bodies[(bodies.index(one) + 1) % len(bodies)]
            yield "replayed actions", 100.0, number, replayed(one, other)
