"""What the headset sources share: `HandScene`'s hand as UmeTrack tells it, and a fisheye that sees like the scene's pinhole."""

from __future__ import annotations

import numpy as np

from jobs.demo.raw.hand_scene import HandScene, bent_hand
from jobs.demo.raw.scene import rigid_transform

# Canonical point of each UmeTrack (and Aria) landmark 0..19; 20 is the palm's centre. Spelled out: it is the oracle.
CANONICAL_OF = [4, 8, 12, 16, 20, 0, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19]
# Landmark -> bone of UmeTrack: the tip moves with the finger's third bone, the two joints before it with second and first.
BONE_OF = [4, 7, 10, 13, 16, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 1, 14, 15, 1]
FIRST_POINTS = (1, 5, 9, 13, 17)
# theta (1 + sum k_i theta^(2 i + 2)) = tan(theta) to 1e-5: Taylor's series of the tangent.
TANGENT = (1 / 3, 2 / 15, 17 / 315, 62 / 2835, 1382 / 155925, 21844 / 6081075)
NO_TILT = (0.0,) * 6  # p0 p1 s0..s3


def fisheye_params(scene: HandScene, *, num: int = 15) -> list[float]:
    """FISHEYE624 parameters, 15 or 16 of them, that project as `scene.project` does (to 0.001 px at 30 degrees)."""
    K = scene.K_cam
    head = [K[0, 0], K[0, 2], K[1, 2]] if num == 15 else [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    return [*map(float, head), *TANGENT, *NO_TILT]


def landmarks_wrist(t_s: float, scene: HandScene, side: str) -> np.ndarray:
    """[21, 3] landmarks in the wrist frame, metres; the palm's centre is made up."""
    points = scene.joints_wrist(t_s, side)
    return np.concatenate([points[CANONICAL_OF], 0.5 * (points[:1] + points[9:10])])


def hand_model() -> dict[str, object]:
    """The scene's left hand, flat, as a UmeTrack profile: millimetres, four hinges a finger."""
    flat = bent_hand(0.0, "left") * 1000.0
    axes, rest = [], []
    for first in FIRST_POINTS:
        is_thumb = first == 1
        # A hinge that stays still, then those that bend: the left hand bends about -z, its thumb about +y.
        bend = [0.0, 1.0, 0.0] if is_thumb else [0.0, 0.0, -1.0]
        axes += [[0.6, 0.8, 0.0], bend, bend, bend]
        at = (first, first, first + 1, first + 2)
        rest += [flat[k].tolist() for k in at]
    axes += [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]  # the forearm's, which nobody uses
    rest += [[0.0, 0.0, 0.0]] * 2
    landmarks = np.concatenate([flat[CANONICAL_OF], 0.5 * (flat[:1] + flat[9:10])])
    return {
        "joint_rotation_axes": axes,
        "joint_rest_positions": rest,
        "landmark_rest_positions": landmarks.tolist(),
        "landmark_rest_bone_indices": [[bone, 0, 0] for bone in BONE_OF],
        "landmark_rest_bone_weights": [[1.0, 0.0, 0.0]] * 21,
        "hand_scale": 1.0,
    }


def joint_angles(t_s: float, scene: HandScene, side: str) -> list[float]:
    """[22] rad: thumb, index, middle, ring, pinky, forearm."""
    curl = scene.curl_rad(t_s, side)
    finger = [0.0, 0.5 * curl, curl, curl]
    thumb = [0.0, 0.0, 0.3 * curl, 0.3 * curl]
    return [*thumb, *finger * 4, 0.0, 0.0]


def quat_wxyz(R: np.ndarray) -> list[float]:
    """Scalar-first, w >= 0 (Shepperd's largest element)."""
    trace = np.array([R[0, 0] - R[1, 1] - R[2, 2], R[1, 1] - R[0, 0] - R[2, 2]])
    trace = np.array([np.trace(R), *trace, R[2, 2] - R[0, 0] - R[1, 1]])
    k = int(np.argmax(trace))
    size = 0.5 * np.sqrt(1 + trace[k])
    a, b, c = ((R[2, 1], R[1, 2]), (R[0, 2], R[2, 0]), (R[1, 0], R[0, 1]))
    q = np.empty(4)
    q[k] = size
    if k == 0:
        q[1:] = [(m - n) / (4 * size) for m, n in (a, b, c)]
    else:
        i, j = [axis for axis in range(3) if axis != k - 1]
        m, n = (a, b, c)[k - 1]
        q[0] = (m - n) / (4 * size)
        q[i + 1] = (R[k - 1, i] + R[i, k - 1]) / (4 * size)
        q[j + 1] = (R[k - 1, j] + R[j, k - 1]) / (4 * size)
    return (q if q[0] >= 0 else -q).tolist()


def inverse(T: np.ndarray) -> np.ndarray:
    return rigid_transform(T[:3, :3].T, -T[:3, :3].T @ T[:3, 3])
