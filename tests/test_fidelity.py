"""The corpus against the analytic truth, source by source; and mistakes that people really make, each of which must be seen.

The numbers are printed by `python -m tests.fidelity_report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import ingest.pipeline.process
from adapters.base import SourceInfo
from adapters.registry import adapter_for
from ingest.transforms import action_vector
from ingest.transforms.resample import Samples
from schemas.episode import Episode, EpisodeRef, Stream, Unit
from tests.fidelity import Worst, case_of, measure, names

pytestmark = pytest.mark.slow  # `make check` has a minute; `make test` runs them

# The rest is read at every `make test`; these have every kind of number and a camera.
FAST = {"agibot_world, commanded", "lerobot at 24 Hz", "oxe", "robomimic"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in names()],
)
def test_what_is_on_disk_is_what_happened(name: str, tmp_path: Path) -> None:
    worst = measure(case_of(name), tmp_path)
    assert worst.faults == []
    assert worst.poses + worst.pictures > 20, "nothing was compared: see `tests.fidelity.Case`"
    if worst.is_on_grid and worst.poses:  # nothing between samples: only float32 is left
        assert max(worst.mm.values()) < 1e-3
        assert max(worst.deg.values()) < 1e-4


# --- planted mistakes ---------------------------------------------------------------------------------------------------

Mistake = Callable[[Episode], Episode]


class Planted:
    """AgiBot World, with a mistake in what its adapter hands over."""

    name: ClassVar[str] = "agibot_world"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "hdf5"
    about: ClassVar[str] = "AgiBot World with a mistake"
    mistake: ClassVar[Mistake]

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        return adapter_for(self.name).survey(root, options)

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        return adapter_for(self.name).discover(root, info)

    def load(self, ref: EpisodeRef) -> Episode:
        return type(self).mistake(adapter_for(self.name).load(ref))


PLANTED = replace(case_of("agibot_world, commanded"), source="tests.test_fidelity:Planted")


def measured(mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worst:
    monkeypatch.setattr(Planted, "mistake", staticmethod(mistake), raising=False)
    return measure(PLANTED, tmp_path)


def no_mistake(episode: Episode) -> Episode:
    return episode


def without_pictures(mistake: Mistake) -> Mistake:
    """Most mistakes are in the numbers: leave the pictures out, they cost the time."""
    return lambda episode: mistake(replace(episode, cameras=()))


def changed(episode: Episode, change: Callable[[Stream], Stream]) -> Episode:
    return replace(episode, streams=tuple(change(stream) for stream in episode.streams))


def rotations(change: Callable[[np.ndarray], np.ndarray]) -> Mistake:
    """Change [N, 3, 3] of every hand pose."""

    def of(stream: Stream) -> Stream:
        if not stream.name.endswith("T_base_eef"):
            return stream
        T = np.array(stream.values)
        T[:, :3, :3] = change(T[:, :3, :3])
        return replace(stream, values=T)

    return lambda episode: changed(episode, of)


def positions(factor: float) -> Mistake:
    def of(stream: Stream) -> Stream:
        if stream.spec.unit is not Unit.POSE:
            return stream
        T = np.array(stream.values)
        T[:, :3, 3] *= factor
        return replace(stream, values=T)

    return lambda episode: changed(episode, of)


def grippers(change: Callable[[np.ndarray], np.ndarray]) -> Mistake:
    def of(stream: Stream) -> Stream:
        is_gripper = stream.name.endswith("gripper_opening")
        return replace(stream, values=change(stream.values)) if is_gripper else stream

    return lambda episode: changed(episode, of)


def commands_by(periods: int) -> Mistake:
    """Stamp commands `periods` source periods later."""

    def of(stream: Stream) -> Stream:
        if not stream.name.startswith("command."):
            return stream
        period_ns = int(np.median(np.diff(stream.t_ns)))
        return replace(stream, t_ns=stream.t_ns + periods * period_ns)

    return lambda episode: changed(episode, of)


def sides_swapped(episode: Episode) -> Episode:
    other = {"left": "right", "right": "left"}

    def of(stream: Stream) -> Stream:
        words = [other.get(word, word) for word in stream.name.split(".")]
        is_hand = "cam" not in stream.name
        name = ".".join(words) if is_hand else stream.name
        return replace(stream, spec=replace(stream.spec, name=name))

    return changed(episode, of)


def frames_late(episode: Episode) -> Episode:
    """Every picture a timestep after its instant: a clock that starts with the first decoded frame, say."""
    cameras = tuple(
        replace(camera, t_ns=camera.t_ns - 100_000_000)
        for camera in episode.cameras
        if camera.t_ns is not None
    )
    return replace(episode, cameras=cameras)


def wrong_order(R: np.ndarray) -> np.ndarray:
    """Scalar-last quaternions read as scalar-first."""
    return Rotation.from_quat(np.roll(Rotation.from_matrix(R).as_quat(), -1, axis=1)).as_matrix()


def degrees_as_radians(R: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(np.degrees(Rotation.from_matrix(R).as_rotvec())).as_matrix()


def radians_as_degrees(R: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(np.radians(Rotation.from_matrix(R).as_rotvec())).as_matrix()


def other_euler_order(R: np.ndarray) -> np.ndarray:
    return Rotation.from_euler("XYZ", Rotation.from_matrix(R).as_euler("xyz")).as_matrix()


NUMBERS: dict[str, tuple[Mistake, str]] = {
    "quaternion_order": (rotations(wrong_order), "deg"),
    "transposed_rotation": (rotations(lambda R: np.swapaxes(R, 1, 2)), "deg"),
    "euler_order": (rotations(other_euler_order), "deg"),
    "degrees_as_radians": (rotations(degrees_as_radians), "deg"),
    "radians_as_degrees": (rotations(radians_as_degrees), "deg"),
    "millimetres": (positions(1000.0), "mm"),
    "centimetres": (positions(100.0), "mm"),
    "a_millimetre_in_a_metre": (positions(1.001), "mm"),
    "gripper_inverted": (grippers(lambda v: 1 - v), "gripper"),
    "gripper_of_half_range": (grippers(lambda v: 0.5 * v), "gripper"),
    "command_stamped_when_issued": (commands_by(-1), "action"),
    "command_a_period_late": (commands_by(1), "action"),
    "sides_swapped": (sides_swapped, "mm"),
}


def test_without_a_mistake_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worst = measured(no_mistake, tmp_path / "whole", monkeypatch)
    assert worst.faults == []
    assert (worst.poses, worst.pictures) == (80, 20)
    worst = measured(without_pictures(no_mistake), tmp_path / "numbers", monkeypatch)
    assert worst.faults == []


@pytest.mark.parametrize("name", NUMBERS)
def test_planted_in_the_numbers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake, word = NUMBERS[name]
    worst = measured(without_pictures(mistake), tmp_path, monkeypatch)
    assert any(word in fault for fault in worst.faults), worst
    if word == "action":  # the state is as it should be: the mistake is found where it is
        assert not any("state" in fault for fault in worst.faults)


def test_planted_rot6d_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(R: np.ndarray) -> np.ndarray:
        return np.concatenate([R[..., 0, :], R[..., 1, :]], axis=-1)

    monkeypatch.setattr(action_vector, "rot6d_cols_from_rotmat", rows)
    worst = measured(without_pictures(no_mistake), tmp_path, monkeypatch)
    assert any("deg" in fault for fault in worst.faults)
    assert not any("mm" in fault for fault in worst.faults)


def test_planted_command_read_at_its_own_timestep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = action_vector.canonical_vectors

    def off_by_one(episode: Any, body: Any, at: Any, following: Any, *rest: Any) -> Any:
        return real(episode, body, at, at, *rest)

    monkeypatch.setattr(ingest.pipeline.process, "canonical_vectors", off_by_one)
    worst = measured(without_pictures(no_mistake), tmp_path, monkeypatch)
    assert any("action" in fault for fault in worst.faults)


def test_planted_achieved_action_is_the_state_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_by_one(command: Samples | None, state: Samples | None) -> tuple[Samples, str]:
        assert state is not None
        return state, "achieved"

    monkeypatch.setattr(action_vector, "_action", off_by_one)
    worst = measured(without_pictures(no_mistake), tmp_path, monkeypatch)
    assert any("action" in fault for fault in worst.faults)


def test_planted_axes_of_another_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry entry of the other tool: the same axes, the grasp centre 8 cm nearer."""

    def other(episode: Episode) -> Episode:
        return replace(episode, embodiment="agibot_g1_omnipicker", cameras=())

    worst = measured(other, tmp_path, monkeypatch)
    assert worst.mm["state"] == pytest.approx(80, abs=0.1)
    assert not any("deg" in fault for fault in worst.faults)


def test_planted_pictures_a_timestep_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worst = measured(frames_late, tmp_path, monkeypatch)
    assert worst.wrong_pictures > 0.8 * worst.pictures


def test_planted_mirrored_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored = replace(PLANTED, cameras={"head": lambda picture: picture[:, ::-1]})
    monkeypatch.setattr(Planted, "mistake", staticmethod(no_mistake), raising=False)
    assert measure(mirrored, tmp_path).faults


def test_planted_red_and_blue_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = replace(PLANTED, cameras={"head": lambda picture: picture[..., ::-1]})
    monkeypatch.setattr(Planted, "mistake", staticmethod(no_mistake), raising=False)
    assert any("255" in fault for fault in measure(swapped, tmp_path).faults)
