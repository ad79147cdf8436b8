"""Past construction nobody checks again: an object of the episode schema that breaks a rule must not exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.episode import (
    EPISODE_NAMESPACE,
    ArrayFrames,
    Camera,
    ChannelSpec,
    EncodedImages,
    Episode,
    EpisodeRef,
    Instruction,
    Interpolation,
    Licence,
    RawFile,
    Stream,
    Unit,
    VideoSpan,
    VideoWindow,
    gripper_channel,
    pose_channel,
    vector_channel,
)
from schemas.errors import Code, ConfigError, SourceError
from tests.pickling import travelled

GRIPPER = gripper_channel("left.gripper_opening", binary=False)
POSE = pose_channel("left.T_base_eef")
REF = EpisodeRef(source="toy", dataset="toy", episode_id="a", root="/raw")
TWO = np.array([0, 5], dtype=np.int64)
NAN = float("nan")
INF = float("inf")


def spec(**changes: Any) -> ChannelSpec:
    good = {
        "name": "source_state",
        "shape": (3,),
        "unit": Unit.SOURCE,
        "interpolation": Interpolation.LINEAR,
    }
    return ChannelSpec(**{**good, **changes})


def stream(**changes: Any) -> Stream:
    good = {"spec": GRIPPER, "t_ns": TWO, "values": [[0.0], [1.0]]}
    return Stream(**{**good, **changes})


def posed(R: Any) -> np.ndarray:
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, :3, :3] = R
    return T


# --- channels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "left.T_base_eef",
        "command.right.gripper_opening",
        "right.hand_keypoints_m",
        "joint_position_rad",
        "raw_command",
        "T_world_cam.head",
        "T_base_cam.hand_left_2",
    ],
)
def test_names_of_the_grammar(name: str) -> None:
    if "T_" in name:
        assert pose_channel(name).name == name
    else:
        assert vector_channel(name, 3, Unit.SOURCE).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "left",
        "middle.T_base_eef",
        "left.T_eef_base",
        "T_world_cam.",
        "T_world_cam.Head",
        "T_world_cam.a/b",
        "left.gripper_opening ",
        "left.gripper_opening\n",
        "source_state2",
    ],
)
def test_names_outside_the_grammar(name: str) -> None:
    with pytest.raises(ValueError, match="grammar"):
        spec(name=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": Unit.POSE, "interpolation": Interpolation.SLERP},  # a pose of width 3
        {"shape": (4, 4), "interpolation": Interpolation.SLERP},  # a [4, 4] that is no pose
        {"shape": (4, 4), "unit": Unit.POSE},  # a pose that is blended element by element
        {"interpolation": Interpolation.SLERP},  # a vector that is slerped
        {"names": ("x", "y")},
    ],
)
def test_channels_that_cannot_exist(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="source_state"):
        spec(**changes)


def test_binary_grippers_and_commands_are_held() -> None:
    assert gripper_channel("left.gripper_opening", binary=True).interpolation is Interpolation.HOLD
    assert GRIPPER.interpolation is Interpolation.LINEAR
    held = vector_channel("raw_command", 2, Unit.SOURCE, names=("a", "b"), hold=True)
    assert (held.interpolation, held.names) == (Interpolation.HOLD, ("a", "b"))


# --- streams ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"values": [[0.0], [NAN]]}, Code.NOT_FINITE),
        ({"values": [[INF], [0.0]]}, Code.NOT_FINITE),
        ({"t_ns": TWO[::-1]}, Code.CLOCK_NOT_INCREASING),
        ({"t_ns": np.array([5, 5])}, Code.CLOCK_NOT_INCREASING),
        ({"values": [0.0, 1.0]}, Code.SHAPE_MISMATCH),
        ({"values": [[0.0]]}, Code.SHAPE_MISMATCH),
        ({"values": [[0.0, 1.0], [0.0, 1.0]]}, Code.SHAPE_MISMATCH),
        ({"valid": [True]}, Code.SHAPE_MISMATCH),
        ({"t_ns": np.empty(0, np.int64), "values": np.empty((0, 1))}, Code.EMPTY_EPISODE),
        ({"spec": POSE, "values": posed(2 * np.eye(3))}, Code.NOT_A_ROTATION),
        ({"spec": POSE, "values": posed(np.diag([1.0, 1, -1]))}, Code.NOT_A_ROTATION),
        ({"spec": POSE, "values": posed(np.zeros((3, 3)))}, Code.NOT_A_ROTATION),
    ],
)
def test_streams_that_cannot_exist(changes: dict[str, Any], code: Code) -> None:
    with pytest.raises(SourceError) as caught:
        stream(**changes)
    assert caught.value.code is code
    assert caught.value.where in (GRIPPER.name, POSE.name)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint64, np.dtype("datetime64[ns]")])
def test_times_are_int64_and_nothing_else(dtype: Any) -> None:
    """Float seconds lose rational rates and int32 nanoseconds overflow after two seconds."""
    with pytest.raises(TypeError, match="int64"):
        stream(t_ns=TWO.astype(dtype))


def test_arrays_are_read_only_copies() -> None:
    values, t_ns, valid = np.zeros((2, 1)), TWO.copy(), np.ones(2, dtype=bool)
    made = stream(values=values, t_ns=t_ns, valid=valid)
    values[0] = 7.0
    t_ns[0] = -7
    valid[0] = False
    assert (made.values[0, 0], made.t_ns[0], made.valid[0]) == (0.0, 0, True)
    for array in (made.values, made.t_ns, made.valid):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(FrozenInstanceError):
        made.values = values  # type: ignore[misc]


def test_invalid_samples_may_be_anything_and_become_finite() -> None:
    made = stream(values=[[NAN], [1.0]], valid=[False, True])
    assert made.values.tolist() == [[0.0], [1.0]]
    T = posed(np.full((3, 3), NAN))
    made = stream(spec=POSE, values=T, valid=[True, False])
    np.testing.assert_array_equal(made.values[1], np.eye(4))
    assert stream(spec=POSE, values=posed(0), valid=[True, False]).values[1, 0, 0] == 0.0


def test_float32_noise_of_a_rotation_is_no_error() -> None:
    assert stream(spec=POSE, values=posed(np.eye(3) + 4e-4)).name == "left.T_base_eef"


@given(st.integers(1, 6), st.integers(0, 5))
def test_whatever_sample_is_not_finite_is_named(count: int, at: int) -> None:
    values = np.zeros((count, 1))
    values[at % count] = NAN
    with pytest.raises(SourceError, match=f"sample {at % count}"):
        stream(t_ns=np.arange(count), values=values)


# --- cameras ------------------------------------------------------------------------------------------------------------


def camera(**changes: Any) -> Camera:
    good = {"name": "head", "frames": VideoSpan(path="v.mp4", first_frame=0, num_frames=2)}
    return Camera(**{**good, "t_ns": TWO, **changes})


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: VideoSpan(path="v", first_frame=-1, num_frames=1), Code.EMPTY_EPISODE),
        (lambda: VideoSpan(path="v", first_frame=0, num_frames=0), Code.EMPTY_EPISODE),
        (lambda: VideoWindow(path="v", start_s=1.0, end_s=1.0), Code.BAD_ANNOTATION),
        (lambda: VideoWindow(path="v", start_s=-0.1, end_s=1.0), Code.BAD_ANNOTATION),
        (lambda: VideoWindow(path="v", start_s=NAN, end_s=1.0), Code.BAD_ANNOTATION),
        (lambda: VideoWindow(path="v", start_s=0.0, end_s=NAN), Code.BAD_ANNOTATION),
        (lambda: VideoWindow(path="v", start_s=0.0, end_s=INF), Code.BAD_ANNOTATION),
        (lambda: VideoSpan(path="v", first_frame=0, num_frames=1, byte_range=(9, 9)), None),
        (lambda: VideoSpan(path="v", first_frame=0, num_frames=1, byte_range=(-1, 9)), None),
        (lambda: ArrayFrames(path="v", key="k", num_frames=0), Code.EMPTY_EPISODE),
        (lambda: ArrayFrames(path="v", key="k", num_frames=1, first_frame=-1), Code.EMPTY_EPISODE),
        (lambda: camera(frames=ArrayFrames(path="v", key="k", num_frames=3)), Code.FRAME_COUNT),
        (lambda: camera(t_ns=None), Code.FRAME_COUNT),
        (lambda: camera(t_ns=TWO[:1]), Code.FRAME_COUNT),
        (lambda: camera(t_ns=TWO[::-1]), Code.CLOCK_NOT_INCREASING),
        (lambda: camera(frames=EncodedImages(images=()), t_ns=TWO[:0]), Code.FRAME_COUNT),
        (lambda: camera(frames=EncodedImages(images=(b"x",))), Code.FRAME_COUNT),
    ],
)
def test_pictures_that_cannot_exist(make: Callable[[], object], code: Code | None) -> None:
    with pytest.raises(SourceError) as caught:
        make()
    assert code in (None, caught.value.code)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Head"},
        {"name": ""},
        {"name": "_head"},
        {"name": "../head"},
        {"name": "a.b"},
        {"K_cam": np.eye(3)},
        {"K_size": (640, 480)},
        {"K_cam": np.eye(4), "K_size": (640, 480)},
        {"t_ns": TWO.astype(float)},
        {"frames": VideoWindow(path="v", start_s=0, end_s=1), "t_ns": TWO},  # two clocks
    ],
)
def test_cameras_that_cannot_exist(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        camera(**changes)


def test_a_video_window_brings_its_own_clock() -> None:
    assert camera(frames=VideoWindow(path="v", start_s=0, end_s=1), t_ns=None).t_ns is None


# --- the rest -----------------------------------------------------------------------------------------------------------


def test_instructions() -> None:
    with pytest.raises(ValueError, match="chatter"):
        Instruction(text="x", kind="chatter")
    for end in (3, 2):
        with pytest.raises(SourceError) as caught:
            Instruction(text="x", start_ns=3, end_ns=end)
        assert caught.value.code is Code.BAD_ANNOTATION
    assert Instruction(text="x", start_ns=3).end_ns is None


@pytest.mark.parametrize(
    ("commercial", "redistribution", "found"),
    [
        (None, None, "unknown"),
        (True, None, "unknown"),
        (None, True, "unknown"),
        (True, True, "permissive"),
        (False, True, "non_commercial"),
        (False, None, "non_commercial"),
        (True, False, "no_redistribution"),
        (False, False, "no_redistribution"),  # the strictest that applies
    ],
)
def test_licence_classes(commercial: bool | None, redistribution: bool | None, found: str) -> None:
    licence = Licence(name="x", allows_commercial=commercial, allows_redistribution=redistribution)
    assert licence.licence_class == found


def test_uids_are_fixed_for_ever() -> None:
    """These values are in corpora on disk: a change here orphans every one of them."""
    assert str(EPISODE_NAMESPACE) == "2f2a4c5e-0f5b-5d0c-9d3e-6f1c3a7b9e10"
    assert REF.uid == str(uuid5(EPISODE_NAMESPACE, "toy/a"))
    assert uuid5(NAMESPACE_URL, "") != EPISODE_NAMESPACE
    assert replace(REF, root="/elsewhere", dataset="other").uid == REF.uid
    assert replace(REF, source="toy2").uid != REF.uid


def test_a_ref_is_small_and_picklable() -> None:
    ref = replace(REF, locator=(("shard", "x.tfrecord"), ("offset", 12)))
    assert travelled(ref) == ref
    assert ref.at("offset") == 12
    with pytest.raises(KeyError):
        ref.at("row")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", ".hidden", "a\\b", "a\0b", "a\nb", "../x"])
@pytest.mark.parametrize("field", ["source", "dataset"])
def test_names_that_would_leave_their_folder_are_refused(field: str, name: str) -> None:
    """Both become folders of the corpus."""
    with pytest.raises(ConfigError, match="expected only letters, digits"):
        replace(REF, **{field: name})


def episode(**changes: Any) -> Episode:
    good = {"ref": REF, "embodiment": "umi", "rate_hz": Fraction(10), "streams": (stream(),)}
    return Episode(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"streams": ()}, Code.EMPTY_EPISODE),
        ({"streams": (stream(), stream())}, Code.CONTRACT_BROKEN),
        ({"cameras": (camera(), camera())}, Code.CONTRACT_BROKEN),
    ],
)
def test_episodes_that_cannot_exist(changes: dict[str, Any], code: Code) -> None:
    with pytest.raises(SourceError) as caught:
        episode(**changes)
    assert caught.value.code is code


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-1, 3)])
def test_a_rate_is_positive(rate: Fraction) -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        episode(rate_hz=rate)


@pytest.mark.parametrize("name", ["", "Franka Panda", "../x", "a/b", ".x", "a b"])
def test_an_embodiment_is_a_slug(name: str) -> None:
    """It becomes part of a folder's name."""
    with pytest.raises(ValueError, match="embodiment"):
        episode(embodiment=name)


def test_streams_are_found_by_name() -> None:
    made = episode()
    assert made.stream("left.gripper_opening") is made.streams[0]
    assert made.stream("right.gripper_opening") is None
    assert RawFile(path="a", num_bytes=1, digest="sha256:00").num_bytes == 1
