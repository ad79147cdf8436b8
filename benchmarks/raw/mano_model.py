"""A generated hand in MANO's file format: same keys, shapes, joint order, axes and pickled types; no MANO value in it.

The joints lie where `hand_scene` has them (palm template of the format page, plausible bones), 0.097 m from the origin as MANO's
wrist does. Everything else that can be confused is big enough to see: a curled mean pose, fingertip sets 4 mm apart, shape
directions of millimetres, pose corrections. The left hand is the exact mirror of the right one, except that its file has the
known defect of the official one (x of `shapedirs` not mirrored, smplx issue 48) unless asked otherwise.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.demo.raw.hand_scene import HandScene, bent_hand

TO_MANO16 = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]  # hand_joint_maps.yaml
TIPS21 = [4, 8, 12, 16, 20]
PARENTS = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
DISTAL = [15, 3, 6, 12, 9]  # last MANO joint of thumb, index, middle, ring, pinky
TIP_VERTICES = {
    "smplx": {"right": [744, 320, 443, 554, 671], "left": [744, 320, 443, 554, 671]},
    "manopth": {"right": [745, 317, 444, 556, 673], "left": [745, 317, 445, 556, 673]},
}
TIPS_APART_M = 0.004
WRIST_AT_REST = np.array([0.095, 0.006, 0.018])
MIRROR = np.array([-1.0, 1.0, 1.0])
MIRROR_ROTVEC = np.array([1.0, -1.0, -1.0])


def finger_rotvec(scene: HandScene, t_s: float, side: str = "right") -> np.ndarray:
    """[15, 3] rad: the bend of the scene's fingers in MANO's terms, flat hand mean, index 1-3, middle, pinky, ring, thumb."""
    curl = scene.curl_rad(t_s, side)
    out = np.zeros((15, 3))
    for finger in range(4):
        out[3 * finger : 3 * finger + 3, 2] = [0.5 * curl, curl, curl]
    out[13:, 1] = -0.3 * curl
    return out if side == "right" else out * MIRROR_ROTVEC


@dataclass(frozen=True)
class MadeModel:
    """One side; shapes as in ingest/models/mano_file.py. `shapedirs` are the right ones, whatever the file says."""

    side: str
    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    J_regressor: np.ndarray
    weights: np.ndarray
    hands_components: np.ndarray
    hands_mean: np.ndarray
    faces: np.ndarray


def made_model(side: str, seed: int = 7) -> MadeModel:
    """The generated model of one side."""
    right = _right(np.random.default_rng(seed))
    return right if side == "right" else _mirrored(right)


def _right(rng: np.random.Generator) -> MadeModel:
    points = bent_hand(0.0) + WRIST_AT_REST
    joints = points[TO_MANO16]
    fixed = sorted({v for of in TIP_VERTICES.values() for vs in of.values() for v in vs})
    free = [v for v in range(778) if v not in fixed]
    vertices, weights, regressor = np.zeros((778, 3)), np.zeros((778, 16)), np.zeros((16, 778))
    for place, vertex in enumerate(free):
        joint = place % 16
        # Corners of a small cube, so that their mean is the joint; the bent skin follows two bones.
        corner = np.array([(place // 16 >> axis) % 2 for axis in range(3)]) - 0.5
        vertices[vertex] = joints[joint] + 0.012 * corner
        share = rng.uniform(0.6, 1.0)
        weights[vertex, joint] = share
        weights[vertex, max(PARENTS[joint], 0)] += 1 - share
        if place < 16 * 8:
            regressor[joint, vertex] = 1 / 8
    for vertex in fixed:
        finger = next(
            of[s].index(vertex) for of in TIP_VERTICES.values() for s in of if vertex in of[s]
        )
        is_manopth = vertex not in TIP_VERTICES["smplx"]["right"]
        vertices[vertex] = points[TIPS21[finger]] + [0.0, TIPS_APART_M * is_manopth, 0.0]
        # The `smplx` tips move with their bone and nothing else: a hand through the model is then the scene's to the last bit.
        share = 0.9 if is_manopth else 1.0
        weights[vertex, [DISTAL[finger], PARENTS[DISTAL[finger]]]] = [share, 1 - share]
    size = (vertices - WRIST_AT_REST)[:, :, None] * np.array([0.04] + [0.0] * 9)
    posedirs = rng.normal(0, 0.0002, (778, 3, 135))
    posedirs[list(TIP_VERTICES["smplx"]["right"])] = 0.0
    return MadeModel(
        side="right",
        v_template=vertices,
        shapedirs=size + rng.normal(0, 0.0015, (778, 3, 10)),
        posedirs=posedirs,
        J_regressor=regressor,
        weights=weights,
        hands_components=np.linalg.qr(rng.normal(size=(45, 45)))[0],
        hands_mean=_curled_mean(),
        faces=np.stack([np.arange(1538) % 776 + k for k in range(3)], axis=1),
    )


def _curled_mean() -> np.ndarray:
    """[45] rad: the fingers bend by about 15 degrees a joint toward the palm (about +z for a right hand)."""
    mean = np.zeros((15, 3))
    mean[:12, 2] = [0.2, 0.3, 0.25] * 4
    mean[12:] = [0.1, -0.2, 0.05]
    return mean.reshape(45)


def _mirrored(right: MadeModel) -> MadeModel:
    """x -> -x of everything: points M p, rotations M R M, axis-angles (x, -y, -z)."""
    of_rotation = np.tile(np.outer(MIRROR, MIRROR).reshape(9), 15)  # sign of each entry of R - I
    of_rotvec = np.tile(MIRROR_ROTVEC, 15)
    return MadeModel(
        side="left",
        v_template=right.v_template * MIRROR,
        shapedirs=right.shapedirs * MIRROR[:, None],
        posedirs=right.posedirs * MIRROR[:, None] * of_rotation,
        J_regressor=right.J_regressor,
        weights=right.weights,
        hands_components=right.hands_components * of_rotvec,
        hands_mean=right.hands_mean * of_rotvec,
        faces=right.faces[:, ::-1],
    )


def write(folder: Path, *, is_left_mended: bool = False, seed: int = 7) -> Path:
    """MANO_RIGHT.pkl and MANO_LEFT.pkl in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("right", "left"):
        model = made_model(side, seed)
        mirror = MIRROR if side == "left" and not is_left_mended else np.ones(3)
        data = pickled(content(model, model.shapedirs * mirror[:, None]))
        (folder / f"MANO_{side.upper()}.pkl").write_bytes(data)
    return folder


def content(model: MadeModel, shapedirs: np.ndarray) -> dict[str, object]:
    """The dict of the file, in the types that the official one has: `shapedirs` is a chumpy selection of a chumpy array."""
    order = np.random.default_rng(0).permutation(shapedirs.size)
    base = np.empty(shapedirs.size)
    base[order] = shapedirs.reshape(-1)
    parents = np.array([PARENTS, range(16)], dtype=np.int64)
    parents[0, 0] = 4294967295
    return {
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "f": model.faces.astype(np.uint32),
        "J": model.J_regressor @ model.v_template,
        "J_regressor": Instance("scipy.sparse.csc", "csc_matrix", csc_state(model.J_regressor)),
        "kintree_table": parents,
        "v_template": model.v_template,
        "weights": model.weights,
        "posedirs": model.posedirs,
        "hands_mean": model.hands_mean,
        "hands_coeffs": np.zeros((3, 45)),
        "hands_components": model.hands_components,
        "shapedirs": Instance(
            "chumpy.reordering",
            "Select",
            {
                "a": Instance("chumpy.ch", "Ch", {"x": base.reshape(-1, 10), "_dirty_vars": {"x"}}),
                "idxs": order,
                "preferred_shape": shapedirs.shape,
                "_dirty_vars": {"a"},
                "_itr": None,
                "_depends_on_deps": {},
            },
        ),
    }


def csc_state(matrix: np.ndarray) -> dict[str, object]:
    """What scipy stores of a column-compressed matrix."""
    columns, rows = np.nonzero(matrix.T)
    return {
        "_shape": matrix.shape,
        "maxprint": 50,
        "data": matrix[rows, columns],
        "indices": rows.astype(np.int32),
        "indptr": np.searchsorted(columns, np.arange(matrix.shape[1] + 1)).astype(np.int32),
    }


# -- Python 2's pickle, protocol 2, by hand --------------------------------------------------------------------------


@dataclass(frozen=True)
class Instance:
    """An object of a library that is not here: its class by name, made without arguments, then its state."""

    module: str
    name: str
    state: dict[str, object]


def pickled(value: object) -> bytes:
    """As Python 2 writes it: byte strings as T and U, numpy 1's modules, new-style instances by NEWOBJ."""
    return b"\x80\x02" + _code(value) + b"."


def _code(value: object) -> bytes:
    if isinstance(value, Instance):
        return f"c{value.module}\n{value.name}\n)\x81".encode("latin-1") + _code(value.state) + b"b"
    if isinstance(value, np.ndarray):
        return _array_code(value)
    if isinstance(value, dict):
        return b"}(" + b"".join(_code(k) + _code(v) for k, v in value.items()) + b"u"
    if isinstance(value, (tuple, list)):
        return b"(" + b"".join(map(_code, value)) + b"t"
    if isinstance(value, set):
        return b"c__builtin__\nset\n](" + b"".join(map(_code, sorted(value))) + b"e\x85R"
    if isinstance(value, str):
        return _code(value.encode("latin-1"))
    if isinstance(value, bytes):
        return (
            b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        ) + value
    return b"N" if value is None else b"J" + struct.pack("<i", int(value))  # type: ignore[call-overload]


def _array_code(array: np.ndarray) -> bytes:
    dtype = (
        b"cnumpy\ndtype\n"
        + _code(array.dtype.str[1:])
        + b"K\x00K\x01\x87R"
        + _code((3, "<", None, None, None, -1, -1, 0))
        + b"b"
    )
    empty = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + _code((0,))
        + _code("b")
        + b"\x87R"
    )
    raw = np.ascontiguousarray(array).tobytes()
    return empty + b"(" + _code(1) + _code(array.shape) + dtype + b"\x89" + _code(raw) + b"tb"
