"""MANO parameters to points and wrist, against a NumPy model written out here, known values, and smplx's own MANO class."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.raw import mano_model as generator
from benchmarks.raw.mano_model import MadeModel, finger_rotvec
from ingest.models.hand_kinematics import HandRig, canonical21
from ingest.models.mano import ManoHands
from jobs.demo.raw.hand_scene import HandScene, bent_hand
from schemas.errors import ConfigError, SourceError
from schemas.hand import fit_palm
from schemas.hand_track import ManoPose

pytest.importorskip("smplx")
pytest.importorskip("torch")

SIDES = ("left", "right")


@pytest.fixture(scope="module")
def mano_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generator.write(tmp_path_factory.mktemp("mano"))


@pytest.fixture(scope="module")
def hands(mano_dir: Path) -> ManoHands:
    return ManoHands.open(mano_dir, fingertips="smplx")


# -- the oracle: linear blend skinning of all 778 vertices, one sample at a time, float64 -----------------------------


def rotation(rotvec_rad: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(rotvec_rad))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = rotvec_rad / angle
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def oracle(
    model: MadeModel,
    betas: np.ndarray,
    rotations: list[np.ndarray],
    transl: np.ndarray,
    tips: list[int],
) -> np.ndarray:
    """[21, 3] canonical order; `rotations` 16, the first one global, about the wrist joint at rest."""
    shaped = model.v_template + model.shapedirs @ betas
    rest = model.J_regressor @ shaped
    feature = np.concatenate([(R - np.eye(3)).reshape(9) for R in rotations[1:]])
    corrected = shaped + model.posedirs @ feature
    turned, placed = [rotations[0]], [rest[0]]
    for joint in range(1, 16):
        parent = generator.PARENTS[joint]
        turned.append(turned[parent] @ rotations[joint])
        placed.append(placed[parent] + turned[parent] @ (rest[joint] - rest[parent]))
    skinned = np.zeros((5, 3))
    for k, vertex in enumerate(tips):
        for joint in range(16):
            moved = turned[joint] @ (corrected[vertex] - rest[joint]) + placed[joint]
            skinned[k] += model.weights[vertex, joint] * moved
    all21 = np.concatenate([placed, skinned]) + transl
    return all21[[0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]]


def random_parameters(seed: int, N: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "rotvec": rng.normal(0, 1.0, (N, 3)),
        "fingers": rng.normal(0, 0.4, (N, 45)),
        "trans": rng.normal(0, 0.5, (N, 3)),
        "betas": rng.normal(0, 1.0, 10),
    }


def mano_pose(p: dict[str, np.ndarray], **changes: Any) -> ManoPose:
    settings: dict[str, Any] = {
        "global_orient": np.stack([rotation(v) for v in p["rotvec"]]),
        "trans_m": p["trans"],
        "trans_is": "smplx_transl",
        "betas": p["betas"],
        "hand_axis_angle_rad": p["fingers"],
        "is_flat_hand_mean": True,
    }
    if changes.keys() & {"hand_pca", "hand_rotmat"}:
        settings.pop("hand_axis_angle_rad")
    return ManoPose(**(settings | changes))


def zero(**changes: Any) -> ManoPose:
    p = {
        "rotvec": np.zeros((1, 3)),
        "fingers": np.zeros((1, 45)),
        "trans": np.zeros((1, 3)),
        "betas": np.zeros(10),
    }
    return mano_pose(p, **({"trans_is": "wrist"} | changes))


def by_oracle(
    side: str, p: dict[str, np.ndarray], *, is_flat: bool = True, tips: str = "smplx"
) -> np.ndarray:
    model = generator.made_model(side)
    mean = np.zeros(45) if is_flat else model.hands_mean
    return np.stack(
        [
            oracle(
                model,
                p["betas"],
                [
                    rotation(p["rotvec"][n]),
                    *(rotation(v) for v in (p["fingers"][n] + mean).reshape(15, 3)),
                ],
                p["trans"][n],
                generator.TIP_VERTICES[tips][side],
            )
            for n in range(len(p["trans"]))
        ]
    )


def largest_m(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b, axis=-1).max())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("tips", ["smplx", "manopth"])
def test_points_are_those_of_the_oracle(
    mano_dir: Path, side: str, is_flat: bool, tips: str
) -> None:
    hands, p = ManoHands.open(mano_dir, fingertips=tips), random_parameters(1)
    points, T = hands.joints21_and_wrist(side, mano_pose(p, is_flat_hand_mean=is_flat))
    assert largest_m(points, by_oracle(side, p, is_flat=is_flat, tips=tips)) < 1e-6
    np.testing.assert_allclose(T[:, :3, 3], points[:, 0], atol=1e-12)
    np.testing.assert_allclose(T[:, :3, :3], [rotation(v) for v in p["rotvec"]], atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
def test_the_four_ways_to_write_fingers_agree(hands: ManoHands, side: str) -> None:
    p, model = random_parameters(2), generator.made_model(side)
    wanted = by_oracle(side, p, is_flat=False)
    coefficients = p["fingers"] @ np.linalg.inv(model.hands_components)
    rotmats = [[rotation(v) for v in (f + model.hands_mean).reshape(15, 3)] for f in p["fingers"]]
    for form in (
        {"is_flat_hand_mean": False},
        {"hand_pca": coefficients, "is_flat_hand_mean": False},
        {"hand_axis_angle_rad": p["fingers"] + model.hands_mean},
        {
            "hand_rotmat": np.array(rotmats),
            "is_flat_hand_mean": False,
        },  # absolute: the mean is in it
    ):
        points, _ = hands.joints21_and_wrist(side, mano_pose(p, **form))
        assert largest_m(points, wanted) < 1e-6


@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("components", [6, 15, 45])
def test_pca_means_what_it_means_in_smplx(hands: ManoHands, is_flat: bool, components: int) -> None:
    """A second oracle: smplx's own MANO class on the whole mesh, in the form that HOT3D writes (15 coefficients)."""
    import smplx
    import torch
    from smplx.utils import Struct

    model, p = generator.made_model("right"), random_parameters(3)
    data = Struct(
        **{
            k: getattr(model, k)
            for k in (
                "v_template",
                "shapedirs",
                "posedirs",
                "J_regressor",
                "weights",
                "hands_components",
                "hands_mean",
            )
        },
        f=model.faces,
        kintree_table=np.array([generator.PARENTS, range(16)]),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        whole = smplx.MANO(
            model_path="",
            data_struct=data,
            use_pca=components < 45,
            num_pca_comps=components,
            flat_hand_mean=is_flat,
            batch_size=3,
        )
    coefficients = p["fingers"][:, :components]
    fingers = coefficients if components < 45 else coefficients @ model.hands_components
    tensors = {
        "global_orient": p["rotvec"],
        "hand_pose": fingers,
        "transl": p["trans"],
        "betas": np.tile(p["betas"], (3, 1)),
    }
    with torch.no_grad():
        out = whole(**{k: torch.tensor(v, dtype=torch.float32) for k, v in tensors.items()})
    tips = out.vertices[:, generator.TIP_VERTICES["smplx"]["right"]].numpy()
    wanted = canonical21(np.concatenate([out.joints.numpy(), tips], axis=1))
    points, _ = hands.joints21_and_wrist(
        "right", mano_pose(p, hand_pca=coefficients, is_flat_hand_mean=is_flat)
    )
    assert largest_m(points, wanted) < 2e-6


# -- known values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_the_flat_hand_lies_in_mano_axes(hands: ManoHands, side: str) -> None:
    points, T = hands.joints21_and_wrist(side, zero())
    assert (
        largest_m(points[0], bent_hand(0.0, side)) < 1e-6
    )  # fingers -x (right) or +x (left), thumb +z
    np.testing.assert_array_equal(T[0], np.eye(4))
    fit = fit_palm(points, np.ones(21, dtype=bool), side)
    assert fit.rms_m[0] < 1e-6
    assert np.degrees(np.arccos((np.trace(fit.T_ref_wrist[0, :3, :3]) - 1) / 2)) < 0.01


@pytest.mark.parametrize("side", SIDES)
def test_a_right_angle_at_the_index_knuckle(hands: ManoHands, side: str) -> None:
    """+90 degrees about z (right; -z left) bends the index finger from along x to straight toward the palm, -y."""
    fingers = np.zeros((1, 45))
    fingers[0, 2] = np.pi / 2 if side == "right" else -np.pi / 2
    points, _ = hands.joints21_and_wrist(side, zero(hand_axis_angle_rad=fingers))
    knuckle, *rest = points[0, 5:9]
    for joint, below_m in zip(rest[:2], (0.034, 0.057), strict=True):
        np.testing.assert_allclose(joint - knuckle, [0, -below_m, 0], atol=1e-6)
    others = np.delete(
        np.arange(21), [6, 7, *generator.TIPS21]
    )  # tips: with the pose corrections of the skin
    assert largest_m(points[0, others], bent_hand(0.0, side)[others]) < 1e-6


@pytest.mark.parametrize("side", SIDES)
def test_a_moving_hand_of_the_scene(hands: ManoHands, side: str) -> None:
    """Joints to a hundredth of a millimetre; tips within the pose corrections of the generated skin (2 mm)."""
    scene, times = HandScene(), [0.0, 0.7, 1.9]
    poses = np.stack([scene.T_world_wrist(t, side) for t in times])
    mano = ManoPose(
        global_orient=poses[:, :3, :3],
        trans_m=poses[:, :3, 3],
        trans_is="wrist",
        betas=np.zeros(10),
        hand_axis_angle_rad=np.stack([finger_rotvec(scene, t, side).reshape(45) for t in times]),
        is_flat_hand_mean=True,
    )
    points, T = hands.joints21_and_wrist(side, mano)
    wanted = np.stack([scene.joints_world(t, side) for t in times])
    np.testing.assert_allclose(T, poses, atol=1e-12)
    joints = np.delete(
        np.arange(21), [1, 2, 3, *generator.TIPS21]
    )  # the scene's thumb bends otherwise
    assert largest_m(points[:, joints], wanted[:, joints]) < 1e-5


# -- one test per known mistake -------------------------------------------------------------------------------------


def test_mistake_wrong_flat_hand_mean_moves_the_tips_by_centimetres(hands: ManoHands) -> None:
    """Flat means flat: the zero pose is straight; not flat means that zero is the curled mean pose."""
    flat, _ = hands.joints21_and_wrist("right", zero())
    curled, _ = hands.joints21_and_wrist("right", zero(is_flat_hand_mean=False))
    assert largest_m(flat[0], bent_hand(0.0)) < 1e-6
    assert curled[0, 8, 1] < flat[0, 8, 1] - 0.03  # toward the palm


def test_mistake_swapped_fingertip_set(mano_dir: Path) -> None:
    """The sets differ by 4 mm in y in the generated model, at the tips and nowhere else."""
    points = {
        v: ManoHands.open(mano_dir, fingertips=v).joints21_and_wrist("left", zero())[0][0]
        for v in ("smplx", "manopth")
    }
    apart = points["manopth"] - points["smplx"]
    np.testing.assert_allclose(apart[generator.TIPS21], [[0, 0.004, 0]] * 5, atol=1e-6)
    np.testing.assert_allclose(np.delete(apart, generator.TIPS21, 0), 0, atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_mistake_meaning_of_trans_is_ten_centimetres(hands: ManoHands, side: str) -> None:
    betas = np.array([1.5, *[0.0] * 9])
    as_wrist, T_wrist = hands.joints21_and_wrist(side, zero(betas=betas))
    as_transl, T_transl = hands.joints21_and_wrist(side, zero(betas=betas, trans_is="smplx_transl"))
    model = generator.made_model(side)
    J0 = model.J_regressor[0] @ (model.v_template + model.shapedirs @ betas)
    np.testing.assert_allclose(T_wrist[0, :3, 3], 0, atol=1e-12)
    np.testing.assert_allclose(T_transl[0, :3, 3], J0, atol=1e-9)
    np.testing.assert_allclose(as_transl - as_wrist, np.broadcast_to(J0, (1, 21, 3)), atol=1e-9)
    assert 0.09 < np.linalg.norm(J0) < 0.11


def test_mistake_rotation_about_the_origin_instead_of_the_wrist(hands: ManoHands) -> None:
    turn = rotation(np.array([0.0, np.pi / 2, 0.0]))[None]
    still, _ = hands.joints21_and_wrist("right", zero(trans_is="smplx_transl"))
    turned, _ = hands.joints21_and_wrist("right", zero(trans_is="smplx_transl", global_orient=turn))
    np.testing.assert_allclose(turned[0, 0], still[0, 0], atol=1e-9)
    assert largest_m(turned[0] - turned[0, 0], (still[0] - still[0, 0]) @ turn[0].T) < 1e-6


def test_mistake_left_hand_by_a_wrong_mirror(hands: ManoHands) -> None:
    """The left model with mirrored parameters is the mirror image of the right hand, in wrist and world."""
    p, M = random_parameters(4), np.array([-1.0, 1.0, 1.0])
    flipped = p | {
        "rotvec": p["rotvec"] * [1, -1, -1],
        "fingers": p["fingers"] * np.tile([1, -1, -1], 15),
        "trans": p["trans"] * M,
    }
    for is_flat in (True, False):
        right, T_right = hands.joints21_and_wrist("right", mano_pose(p, is_flat_hand_mean=is_flat))
        left, T_left = hands.joints21_and_wrist(
            "left", mano_pose(flipped, is_flat_hand_mean=is_flat)
        )
        assert largest_m(left, right * M) < 1e-6
        np.testing.assert_allclose(
            T_left[:, :3, :3], T_right[:, :3, :3] * np.outer(M, M), atol=1e-9
        )


def test_mistake_mirrored_right_model_of_vitra(hands: ManoHands) -> None:
    """V = R M (V_R - J0) + T: fingers in the right hand's convention, the global rotation after the mirror."""
    p, M = random_parameters(5), np.array([-1.0, 1.0, 1.0])
    still = p | {"rotvec": np.zeros((3, 3)), "trans": np.zeros((3, 3))}
    of_right = by_oracle("right", still)
    wanted = np.stack(
        [
            (of_right[n] - of_right[n, 0]) * M @ rotation(p["rotvec"][n]).T + p["trans"][n]
            for n in range(3)
        ]
    )
    mano = mano_pose(p, model="mirrored_right", trans_is="wrist")
    points, T = hands.joints21_and_wrist("left", mano)
    assert largest_m(points, wanted) < 1e-6
    np.testing.assert_allclose(T[:, :3, 3], p["trans"])
    own = hands.joints21_and_wrist("left", mano_pose(p, trans_is="wrist"))[0]
    assert (
        largest_m(own, wanted) > 0.01
    )  # the same numbers in the left model's convention are another hand
    with pytest.raises(ValueError, match="mirrored right model"):
        hands.joints21_and_wrist("right", mano)
    with pytest.raises(ValueError, match="smplx_transl"):
        hands.joints21_and_wrist("left", mano_pose(p, model="mirrored_right"))


def test_mistake_degrees_for_radians(hands: ManoHands) -> None:
    """A finger that is bent by 20 "radians" has been written in degrees; in radians the tip goes toward the palm."""
    fingers = np.zeros((2, 45))
    fingers[1, 2:36:3] = np.deg2rad(20)
    p = random_parameters(11, N=2) | {"fingers": fingers, "rotvec": np.zeros((2, 3))}
    points, _ = hands.joints21_and_wrist("right", mano_pose(p, trans_is="wrist"))
    assert points[1, 8, 1] < points[0, 8, 1] - 0.03
    with pytest.raises(SourceError, match=r"20 rad.*degrees"):
        hands.joints21_and_wrist("right", mano_pose(p | {"fingers": np.rad2deg(fingers)}))


@pytest.mark.parametrize("is_left_mended", [False, True], ids=["official file", "mended file"])
def test_mistake_left_shapedirs(tmp_path: Path, is_left_mended: bool) -> None:
    """Mended by default whatever the file has; unmended where the labels were fitted so (ARCTIC)."""
    hands = ManoHands.open(
        generator.write(tmp_path, is_left_mended=is_left_mended), fingertips="smplx"
    )
    p = random_parameters(6)
    mended, _ = hands.joints21_and_wrist("left", mano_pose(p))
    assert largest_m(mended, by_oracle("left", p)) < 1e-6
    as_fitted, _ = hands.joints21_and_wrist("left", mano_pose(p, has_shapedirs_fix=False))
    good = generator.made_model("left")
    bad = MadeModel(
        **{
            **{f: getattr(good, f) for f in good.__dataclass_fields__},
            "shapedirs": good.shapedirs * np.array([-1.0, 1, 1])[:, None],
        }
    )
    tips = generator.TIP_VERTICES["smplx"]["left"]
    wanted = oracle(
        bad,
        p["betas"],
        [rotation(p["rotvec"][0]), *(rotation(v) for v in p["fingers"][0].reshape(15, 3))],
        p["trans"][0],
        tips,
    )
    assert largest_m(as_fitted[0], wanted) < 1e-6
    assert largest_m(as_fitted, mended) > 0.002
    other = ManoHands.open(tmp_path, fingertips="smplx", left_shapedirs_fixed=False)
    assert not np.array_equal(
        other.hand("left").model.shapedirs, hands.hand("left").model.shapedirs
    )
    np.testing.assert_array_equal(
        other.hand("right").model.shapedirs, hands.hand("right").model.shapedirs
    )


# -- batches and failures ---------------------------------------------------------------------------------------------


def test_chunks_and_shapes_per_sample(hands: ManoHands, monkeypatch: pytest.MonkeyPatch) -> None:
    p = random_parameters(7, N=5)
    right, rotmats = hands.hand("right"), np.tile(np.eye(3), (5, 15, 1, 1))
    whole = right.in_wrist_frame(rotmats, p["betas"])
    monkeypatch.setattr("ingest.models.mano.CHUNK", 2)
    np.testing.assert_allclose(right.in_wrist_frame(rotmats, p["betas"]), whole, atol=1e-7)
    each = np.stack([p["betas"], *[np.zeros(10)] * 4])
    varied = right.in_wrist_frame(rotmats, each)
    np.testing.assert_allclose(varied[0], whole[0], atol=1e-7)
    np.testing.assert_allclose(varied[1], bent_hand(0.0), atol=1e-6)
    assert right.in_wrist_frame(rotmats[:0], p["betas"]).shape == (0, 21, 3)


def test_a_sample_that_is_not_there_does_not_touch_the_others(hands: ManoHands) -> None:
    p = random_parameters(8)
    good, _ = hands.joints21_and_wrist("right", mano_pose(p))
    p["fingers"][1] = np.nan
    points, _ = hands.joints21_and_wrist("right", mano_pose(p))
    np.testing.assert_allclose(points[[0, 2]], good[[0, 2]], atol=1e-7)
    assert np.isnan(points[1, 8]).all()


def test_far_from_the_origin_nothing_is_lost(hands: ManoHands) -> None:
    p = random_parameters(9)
    near, _ = hands.joints21_and_wrist("right", mano_pose(p))
    far, _ = hands.joints21_and_wrist("right", mano_pose(p | {"trans": p["trans"] + 5000.0}))
    assert largest_m(far - 5000.0, near) < 1e-9


def test_without_a_folder_the_way_to_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"licensed.*https://mano\.is\.tue\.mpg\.de.*EICORPUS_MANO_DIR"
    ):
        ManoHands.open(None, fingertips="smplx")
    generator.write(tmp_path)
    (tmp_path / "MANO_LEFT.pkl").unlink()
    with pytest.raises(ConfigError, match=r"no MANO_LEFT\.pkl; MANO is licensed"):
        ManoHands.open(tmp_path, fingertips="smplx")


def test_without_the_extra_its_name_is_told(
    mano_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(ConfigError, match=r"smplx is not installed.*eicorpus\[hands\]"):
        ManoHands.open(mano_dir, fingertips="smplx")


def test_unknown_options(mano_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"manopth.*smplx"):
        ManoHands.open(mano_dir, fingertips="hamer")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU"):
        ManoHands.open(mano_dir, fingertips="smplx", device="cuda")


@pytest.mark.gpu
def test_the_gpu_gives_the_same(mano_dir: Path, hands: ManoHands) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("NOT RUN: no GPU")
    p = random_parameters(10, N=50)
    there, _ = ManoHands.open(mano_dir, fingertips="smplx", device="cuda").joints21_and_wrist(
        "left", mano_pose(p)
    )
    assert largest_m(there, hands.joints21_and_wrist("left", mano_pose(p))[0]) < 1e-5


# -- a free hand ------------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("side", SIDES)
def test_the_anny_hand_through_the_same_skinning(samples: Path, side: str) -> None:
    """Anny has MANO's 16 joints and its own mesh, no shape space and no pose corrections: the rig takes it as it is."""
    import torch

    from ingest.models.mano import hand_layer, posed_points

    with np.load(samples / "anny_hand" / f"anny_hand_{side}.npz") as anny:
        joints, tips = anny["joints16"].astype(float), list(anny["tip_vertex_ids"])
        vertices, weights = anny["vertices"].astype(float), anny["weights"].astype(float)
        rest = anny["keypoints21_rest"].astype(float)
    rig = HandRig(
        rest=np.concatenate([joints, vertices[tips]]),
        shapedirs=np.zeros((21, 3, 10)),
        tip_posedirs=np.zeros((5, 3, 135)),
        tip_weights=weights[tips],
    )
    fingers = np.random.default_rng(0).normal(0, 0.4, (2, 15, 3))
    fingers[0] = 0
    rotmats = torch.tensor(
        np.array([[rotation(v) for v in f] for f in fingers]), dtype=torch.float32
    )
    found = canonical21(posed_points(hand_layer(rig), rotmats, torch.zeros(2, 10)).numpy())
    assert largest_m(found[0], rest - rest[0]) < 1e-6
    model = MadeModel(
        side=side, v_template=vertices, shapedirs=np.zeros((len(vertices), 3, 1)), posedirs=np.zeros((len(vertices), 3, 135)),
        J_regressor=joints @ np.linalg.pinv(vertices), weights=weights, hands_components=np.eye(45), hands_mean=np.zeros(45), faces=np.zeros((1, 3)),
    )  # fmt: skip
    wanted = oracle(
        model, np.zeros(1), [np.eye(3), *(rotation(v) for v in fingers[1])], np.zeros(3), tips
    )
    assert largest_m(found[1], wanted - wanted[0]) < 2e-6
