"""Recordings, read by the adapters of their sources; of what is not there whole, by the readers under the adapter.

"page" in a row is the format page hands.md; its figures were measured before this code existed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adapters.aria.mps import read_hands
from adapters.aria.vrs import is_readable
from adapters.containers.restricted_pickle import load_npy_object
from adapters.holoassist.recording import CAMERA, POSE_COLUMNS, T_PSI_CV
from adapters.holoassist.sync import NS_PER_TICK, rows_between
from adapters.registry import adapter_for
from ingest.recipe import Recipe
from ingest.transforms.forward_kinematics import Robot
from ingest.transforms.hands import canonical_hands
from ingest.transforms.resample import resample
from schemas.camera_model import project
from schemas.episode import Episode, Stream, pose_channel
from schemas.geometry import inverse, rotmat_from_euler
from schemas.hand_track import HandTrack
from tests.real.hands import FLAG_DEG, NATIVE_IS_PALM, degrees_between, palm_deg, palm_of
from tests.real.rows import Row, number

STEP_NS = 100_000_000
LAST_TICK = 2**62


def agibot_gesim_v2(samples: Path, scratch: Path, order: str = "xyz") -> Iterator[Row]:
    """Joints of a real AgiBot G1 episode through G1.urdf, against the end poses that the robot recorded."""
    folder = samples / "agibot_gesim_v2" / "demo_000"
    q, recorded = (np.load(folder / f"state_{what}_0.npy") for what in ("joints", "eef_poses"))
    arms = tuple(f"{side}_arm_joint{k}" for side in ("left", "right") for k in range(1, 8))
    names = (*arms, "grip_l", "grip_r", "head_yaw", "head_pitch", "waist_pitch", "waist_lift")
    urdf = samples / "agibot_defect_lists" / "urdf_solver" / "G1.urdf"
    T = Robot.open(urdf, "agibot_g1_omnipicker").T_base_tip(q, names)
    off_m, off_deg = [], []
    for at, side in ((0, "left"), (7, "right")):
        R = rotmat_from_euler(recorded[:, at + 3 : at + 6], order)
        off_m.append(np.linalg.norm(T[side][:, :3, 3] - recorded[:, at : at + 3], axis=1).max())
        off_deg.append(degrees_between(R, T[side]).max())
    what = f"link7 by kinematics against {len(q)} recorded poses, worst"
    yield number(what, max(off_m), "m", "3.6e-6 (SOURCE.md)", (0, 4e-6))
    yield number("the same, rotation", max(off_deg), "deg", "4.5e-4 (SOURCE.md)", (0, 5e-4))


def episodes_of(source: str, root: Path) -> Iterator[Episode]:
    adapter = adapter_for(source)
    for ref in adapter.discover(root, adapter.survey(root, {})):
        yield adapter.load(ref)


def hot3d(samples: Path, scratch: Path) -> Iterator[Row]:
    """Two sequences whose hands are told twice, by UmeTrack and by MANO."""
    of_mano = []
    for episode in episodes_of("hot3d", samples / "hot3d" / "data_sample"):
        name = episode.ref.episode_id.split("/")[0]
        for hand in episode.hands:
            assert hand.mano is not None
            assert hand.T_frame_wrist is not None
            turn = degrees_between(hand.mano.global_orient, hand.T_frame_wrist)
            what = f"{name} {hand.side}: MANO's wrist against UmeTrack's"
            known = "a smaller constant" if turn.mean() < 5 else ""
            expected = "a constant of 5 to 8 (page 9)"
            yield number(what, turn.mean(), "deg", expected, (5, 8), known)
            spread = "over time, standard deviation"
            yield number(spread, turn.std(), "deg", "below 0.5 (page 9)", (0, 0.5))
            off = palm_deg(hand).mean()
            what = "UmeTrack's wrist against the palm fit"
            yield number(what, off, "deg", NATIVE_IS_PALM, (0, FLAG_DEG))
            R_palm = palm_of(hand).T_ref_wrist
            of_mano.append(degrees_between(R_palm, hand.mano.global_orient[hand.present]).mean())
    what = "the palm fit against MANO's wrist, least and most"
    ends = [min(of_mano), max(of_mano)]
    yield number(what, ends, "deg", "3.3 to 6.7 (page 9.1)", (3.25, 6.8))


def aria(samples: Path, scratch: Path) -> Iterator[Row]:
    """Hands of the perception services (Gen1) and of the device itself (Gen2), which has to be read from its VRS file."""
    folder = samples / "aria" / "gen1_mps_sample" / "hand_tracking"
    hands, _ = read_hands(folder / "hand_tracking_results_v2.csv", "hands")
    # The sample's trajectory is of another time, so it makes no episode: here the device frame stands for a camera.
    tracks = [hand.in_camera(np.eye(4), "rgb", 0, None) for hand in hands]
    yield from _landmarks("Gen1", tracks, "no figure", (0, 10))
    if not is_readable():
        expected = "7.3 mm palm fit, 140 to 151 mm a step (page)"
        value = "the extra `aria` is not installed"
        yield Row(what="Gen2", value=value, expected=expected, holds=None)
        return
    (episode,) = episodes_of("aria", samples / "aria" / "gen2")
    yield from _landmarks("Gen2", list(episode.hands), "7.3 (page 9.1)", (7.2, 7.45))
    found, _ = canonical_hands(episode, Recipe(), None)
    stream = found.stream("right.T_base_eef")
    assert stream is not None
    steps = 1000 * _steps(stream, stream.t_ns)[0]
    what = "Gen2: right wrist in the world, 100 ms, least and most"
    ends = [steps.min(), steps.max()]
    yield number(what, ends, "mm", "140 to 151 (page 10)", (139, 152))


def _landmarks(
    name: str, hands: list[HandTrack], expected: str, between: tuple[float, float]
) -> Iterator[Row]:
    off = np.concatenate([palm_deg(hand) for hand in hands])
    rms = 1000 * np.concatenate([palm_of(hand).rms_m for hand in hands])
    what = f"{name}: palm fit of {len(rms)} hands, mean"
    yield number(what, rms.mean(), "mm", expected, between)
    what = f"{name}: its wrist against the palm fit, mean"
    yield number(what, off.mean(), "deg", NATIVE_IS_PALM, (0, FLAG_DEG))


def _steps(stream: Stream, start_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees from these instants to 100 ms later, where the stream has both."""
    ends = [resample(stream, t, gap_periods=2, gap_ms=250) for t in (start_ns, start_ns + STEP_NS)]
    ok = ends[0].valid & ends[1].valid
    a, b = (samples.values[ok] for samples in ends)
    return np.linalg.norm(b[:, :3, 3] - a[:, :3, 3], axis=1), degrees_between(a, b)


def holoassist(samples: Path, scratch: Path) -> Iterator[Row]:
    """How the head moves; the session has neither its video nor its hands, so its poses are read alone."""
    path = samples / "holoassist" / "session_R007-7July-DSLR" / "Export_py/Video/Pose_sync.txt"
    rows = rows_between(path, 0, LAST_TICK, POSE_COLUMNS)
    stream = Stream(
        spec=pose_channel(f"T_world_cam.{CAMERA}"),
        t_ns=(rows.ticks - rows.ticks[0]) * NS_PER_TICK,
        values=rows.values.reshape(-1, 4, 4) @ T_PSI_CV,
    )
    metres, degrees = _steps(stream, np.arange(0, stream.t_ns[-1], STEP_NS))
    # The page took every third row, 100.0 to 100.1 ms apart; these are the corpus's own instants.
    for share, name, step_mm, turn_deg in ((0.5, "median", 1.7, 0.32), (0.95, "95th %", 15.4, 2.5)):
        what, near = f"camera, 100 ms on the 10 Hz grid, {name}", (0.95, 1.05)
        moved, turned = 1000 * np.quantile(metres, share), np.quantile(degrees, share)
        between = (near[0] * step_mm, near[1] * step_mm)
        yield number(f"{what} step", moved, "mm", f"{step_mm} (page 10)", between)
        between = (near[0] * turn_deg, near[1] * turn_deg)
        yield number(f"{what} turn", turned, "deg", f"{turn_deg} (page 10)", between)


def vitra(samples: Path, scratch: Path) -> Iterator[Row]:
    """One episode of fitted hands in a moving camera: the annotation says twice where the joints are."""
    (episode,) = episodes_of("vitra", samples / "vitra")
    (hand,), (camera,) = episode.hands, episode.cameras
    path = episode.stream(f"T_world_cam.{camera.name}")
    assert path is not None
    assert hand.joints_m is not None
    assert camera.K_cam is not None
    assert camera.K_size is not None
    off, rms = palm_deg(hand), 1000 * palm_of(hand).rms_m
    expected = "0.2 or less: the template is this hand's (ours)"
    yield number(
        f"{hand.side} palm fit, {len(rms)} frames, worst", rms.max(), "mm", expected, (0, 0.2)
    )
    what = "its wrist against the palm fit, worst"
    yield number(what, off.max(), "deg", "1 or less: as above (ours)", (0, 1))
    (file,) = (samples / "vitra" / "annotations").glob("*.npy")
    told = load_npy_object(file)[hand.side]["joints_camspace"][hand.present]
    T = inverse(path.values[hand.present])
    seen = np.einsum("nab,njb->nja", T[:, :3, :3], hand.joints_m[hand.present])
    seen += T[:, None, :3, 3]
    apart = 1000 * np.linalg.norm(seen - told, axis=2).max()
    what = "world joints through the camera's pose against joints_camspace, worst"
    yield number(what, apart, "mm", "0: one is the other moved (page 8)", (0, 0.01))
    uv, in_front = project(seen, camera.K_cam, camera.lens)
    inside = in_front & ((uv >= 0) & (uv <= np.array(camera.K_size) - 1)).all(axis=2)
    what = "joints that fall into the picture"
    yield number(what, 100 * inside.mean(), "%", "nearly all (ours)", (90, 100))
