"""Meta-World recordings: known values by hand, what is broken, and that no label of quality is ever read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from adapters.metaworld_hdf5.adapter import MetaWorldHdf5
from jobs.demo.raw import metaworld_hdf5 as generator
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiment_for
from schemas.episode import Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.supervision import Task, allowed_tasks
from tests.adapters.episode_parts import refs_by_id, stream_of

ADAPTER = MetaWorldHdf5()
FIRST, VIDEO = "reach-v3/000002", "window-open-v3/000000"
MOCAP_WXYZ = (0.5**0.5, 0.0, 0.5**0.5, 0.0)  # the simulator's (1, 0, 1, 0)


def load(root: Path, name: str = FIRST) -> Episode:
    return ADAPTER.load(refs_by_id(ADAPTER, root)[name])


def edit(root: Path, change: Callable[[h5py.File], None], name: str = FIRST) -> None:
    with h5py.File(root / f"{name}.hdf5", "r+") as file:
        change(file)


def put(file: h5py.File, key: str, values: object) -> None:
    del file[key]
    file[key] = values


# --- by hand ------------------------------------------------------------------------------------------------------------


def by_hand(file: h5py.File) -> None:
    """The hand at (0.1, 0.6, 0.2), pointing down as the simulator holds it; jaws half open, told to shut, then to open."""
    num = len(file["time_s"])
    put(file, "hand/position_m", np.tile([0.1, 0.6, 0.2], (num, 1)))
    put(file, "hand/quat_wxyz", np.tile(MOCAP_WXYZ, (num, 1)))
    put(file, "hand/gap_m", np.full(num, 0.065))
    put(file, "command/position_m", np.tile([0.1, 0.6, 0.184], (num, 1)))
    put(file, "command/quat_wxyz", np.tile(MOCAP_WXYZ, (num, 1)))
    effort = np.array([1.0, 0.6, 0.0, -1.0, *[-1.0] * (num - 4)])
    put(file, "command/action", np.column_stack([np.tile([0.0, 0.0, -0.2], (num, 1)), effort]))


def test_known_values(root: Path) -> None:
    edit(root, by_hand)
    episode = load(root)
    seen, told = (
        stream_of(episode, "left.T_base_eef"),
        stream_of(episode, "command.left.T_base_eef"),
    )
    T = seen.values[0] @ embodiment_for("metaworld_sawyer").arms["left"].T_src_hand
    np.testing.assert_allclose(T[:3, 3], [0.1, 0.6, 0.155], atol=1e-9)  # 45 mm below: finger tips
    np.testing.assert_allclose(T[:3, 0], [0, 0, -1], atol=1e-9)  # fingers down
    np.testing.assert_allclose(T[:3, 1], [0, 1, 0], atol=1e-9)  # jaws close along the world's y
    assert told.values[0, 2, 3] == pytest.approx(0.184)
    assert (seen.t_ns[1], told.t_ns[0]) == (100_000_000, 100_000_000)  # due one period later
    np.testing.assert_allclose(stream_of(episode, "left.gripper_opening").values[0], 0.5)
    opening = stream_of(episode, "command.left.gripper_opening").values[:4, 0]
    assert opening.tolist() == [0, 0, 1, 1]  # 0.6 shuts as 1 does; 0 opens as -1 does
    assert stream_of(episode, "raw_command").values[1].tolist() == [0.0, 0.0, -0.2, 0.6]


def test_the_jaws_end_at_their_limits(root: Path) -> None:
    edit(root, lambda f: put(f, "hand/gap_m", np.linspace(0.0297, 0.1004, len(f["time_s"]))))
    opening = stream_of(load(root), "left.gripper_opening").values
    assert (opening[0, 0], opening[-1, 0]) == (0.0, 1.0)


def test_everything_is_known_well_enough_for_the_policy(root: Path) -> None:
    arm = embodiment_for("metaworld_sawyer").arms["left"]
    facts = (*load(root).facts, *arm.facts("left"))
    tasks, reasons = allowed_tasks(facts=facts, has_camera=True, action_coverage=1.0)
    assert (set(tasks), reasons) == (set(Task), ())
    assert arm.base_axes == {"right": 0, "forward": 1, "up": 2}


# --- action-free video ----------------------------------------------------------------------------------------------------


def test_an_action_free_video_has_pictures_and_words_only(root: Path) -> None:
    episode = load(root, VIDEO)
    assert episode.streams == ()
    assert [c.name for c in episode.cameras] == ["front"]
    assert [i.text for i in episode.instructions] == ["reach the red ball"]
    assert [f.name for f in episode.facts if f.is_for_actions] == ["rate"]
    tasks, _ = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=0.0)
    assert tasks == (Task.VISUAL_FORECASTING,)


def test_half_of_the_actions_are_none(root: Path) -> None:
    def without_commands(file: h5py.File) -> None:
        del file["command"]

    edit(root, without_commands)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is Code.MISSING_CHANNEL


# --- labels ---------------------------------------------------------------------------------------------------------------


def test_the_label_is_never_read(root: Path) -> None:
    """Whatever it says, and whether it is there: the same episode, which knows of no success."""
    before = [load(root, name) for name in (FIRST, VIDEO)]
    (root / f"{FIRST}.label.json").write_text('{"is_success": true, "play": "expert"}')
    (root / f"{VIDEO}.label.json").unlink()
    after = [load(root, name) for name in (FIRST, VIDEO)]
    for one, two in zip(before, after, strict=True):
        assert one.success is None
        assert two.success is None
        assert (one.facts, one.raw_files, one.instructions, one.ref) == (
            *(two.facts, two.raw_files, two.instructions, two.ref),
        )
    one = before[0]
    said = repr((one.facts, one.instructions, one.raw_files, one.ref.episode_id, one.ref.locator))
    assert not any(word in said for word in ("noisy", "label", "seed", "sigma"))


# --- what is broken -------------------------------------------------------------------------------------------------------


def nan(file: h5py.File) -> None:
    file["command/quat_wxyz"][3, 1] = np.nan


def zero(file: h5py.File) -> None:
    file["hand/quat_wxyz"][3] = 0.0


def short(file: h5py.File) -> None:
    put(file, "command/action", np.zeros((3, 4)))


def other_layout(file: h5py.File) -> None:
    file.attrs["layout"] = "metaworld_hdf5 2"


def no_rate(file: h5py.File) -> None:
    file.attrs["rate_hz"] = -1.0


def backwards(file: h5py.File) -> None:
    file["time_s"][2] = 0.0


BROKEN = {
    nan: Code.NOT_FINITE,
    zero: Code.NOT_A_ROTATION,
    short: Code.SHAPE_MISMATCH,
    other_layout: Code.UNKNOWN_LAYOUT,
    no_rate: Code.BAD_ANNOTATION,
    backwards: Code.CLOCK_NOT_INCREASING,
}


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_what_is_broken_is_named(root: Path, change: Callable[[h5py.File], None]) -> None:
    edit(root, change)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is BROKEN[change]


def test_a_picture_too_many(root: Path) -> None:
    generator.write_episode(root / FIRST, Scene(width=96, height=72), extra_frames=1)
    with pytest.raises(SourceError, match="21 frames for 20 rows") as caught:
        load(root)
    assert caught.value.code is Code.FRAME_COUNT


def test_half_a_pair_is_listed(root: Path) -> None:
    (root / f"{FIRST}.mp4").unlink()
    (root / f"{VIDEO}.hdf5").unlink()
    problems = {name: ref.problem for name, ref in refs_by_id(ADAPTER, root).items()}
    assert problems[FIRST] == ("missing_video", f"{FIRST} has no .mp4; record it again")
    assert problems[VIDEO] == ("missing_file", f"{VIDEO} has no .hdf5; record it again")
    assert problems["reach-v3/000010"] is None


def test_another_set_with_the_same_tree_is_not_ours(root: Path) -> None:
    for name in refs_by_id(ADAPTER, root):
        edit(root, lambda file: file.attrs.pop("layout"), name)
    with pytest.raises(ConfigError, match="metaworld_hdf5 1"):
        ADAPTER.survey(root, {})
