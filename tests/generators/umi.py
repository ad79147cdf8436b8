"""UMI replay buffers in their true layout: Zarr v2, Blosc numbers, one JPEG XL chunk a picture, as a zip or a folder."""

from __future__ import annotations

import json
import zipfile
from itertools import product
from pathlib import Path

import imagecodecs
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

RATE_HZ = 60000 / 1001
# The TCP frame: z along the fingers, x across the jaws, y down; the canonical axes as columns.
R_SRC_HAND = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], dtype=float)
MAX_WIDTH_M = 0.08
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
JPEGXL = {"id": "imagecodecs_jpegxl", "level": 99, "numthreads": 1}
Members = dict[str, bytes]


def write(root: Path) -> Written:
    """A zip with two episodes of one gripper, and a folder with one episode of two grippers; 2 s each."""
    one = [Scene(seed=k, width=96, height=72) for k in (0, 1)]
    two = [Scene(seed=2, sides=("left", "right"), width=96, height=72)]
    write_zip(root / "cup" / "dataset.zarr.zip", buffer_of(one))
    write_folder(root / "dish.zarr", buffer_of(two))
    scenes = {"cup/dataset/0": one[0], "cup/dataset/1": one[1], "dish/0": two[0]}
    return Written(root=root, scenes=scenes)


def buffer_of(episodes: list[Scene], *, codec: dict[str, object] | None = JPEGXL) -> Members:
    """Every member of a store. With two grippers robot0 is the right one."""
    sides = episodes[0].sides
    robots = {"left": 0} if sides == ("left",) else {"right": 0, "left": 1}
    members: Members = dict.fromkeys(
        (".zgroup", "data/.zgroup", "meta/.zgroup"), b'{"zarr_format": 2}'
    )
    times = [np.arange(round(s.duration_s * RATE_HZ)) / RATE_HZ for s in episodes]
    ends = np.cumsum([len(t) for t in times]).astype(np.int64)
    add(members, "meta/episode_ends", ends, (len(ends),))
    for side, robot in robots.items():
        T = np.array(
            [s.T_base_hand(t, side) for s, ts in zip(episodes, times, strict=True) for t in ts]
        )
        width = [
            s.gripper_opening(t) * MAX_WIDTH_M
            for s, ts in zip(episodes, times, strict=True)
            for t in ts
        ]
        R = T[:, :3, :3] @ R_SRC_HAND.T
        name = f"data/robot{robot}"
        add(members, f"{name}_eef_pos", T[:, :3, 3].astype(np.float32), (50, 3))
        rotvec = Rotation.from_matrix(R).as_rotvec().astype(np.float32)
        add(members, f"{name}_eef_rot_axis_angle", rotvec, (50, 3))
        add(members, f"{name}_gripper_width", np.float32(width)[:, None], (50, 1))
        add(members, f"{name}_demo_start_pose", np.zeros((ends[-1], 6)), (50, 6))
    pictures = [s.picture(t) for s, ts in zip(episodes, times, strict=True) for t in ts]
    add(members, "data/camera0_rgb", np.array(pictures), (1, *pictures[0].shape), codec)
    return members


def add(
    members: Members,
    key: str,
    values: np.ndarray,
    chunks: tuple[int, ...],
    codec: dict[str, object] | None = BLOSC,
) -> None:
    """One array; the last chunk of an axis is padded, as Zarr does."""
    meta = {
        "zarr_format": 2,
        "shape": values.shape,
        "chunks": chunks,
        "dtype": values.dtype.str,
        "compressor": codec,
        "fill_value": 0,
        "filters": None,
        "order": "C",
    }
    members[f"{key}/.zarray"] = json.dumps(meta).encode()
    for at in product(*(range(-(-n // c)) for n, c in zip(values.shape, chunks, strict=True))):
        part = values[tuple(slice(i * c, i * c + c) for i, c in zip(at, chunks, strict=True))]
        whole = np.zeros(chunks, values.dtype)
        whole[tuple(slice(0, n) for n in part.shape)] = part
        members[f"{key}/{'.'.join(map(str, at))}"] = encoded(whole, codec)


def encoded(chunk: np.ndarray, codec: dict[str, object] | None) -> bytes:
    name = codec["id"] if codec else ""
    if name == "blosc":
        size = chunk.dtype.itemsize
        return bytes(imagecodecs.blosc_encode(chunk.tobytes(), compressor="lz4", typesize=size))
    if name == "imagecodecs_jpegxl":
        return bytes(imagecodecs.jpegxl_encode(chunk[0], lossless=True))
    if name == "zstd":
        return bytes(imagecodecs.zstd_encode(chunk.tobytes()))
    if name == "lz4":
        return bytes(imagecodecs.lz4_encode(chunk.tobytes(), header=True))
    if name == "zlib":
        return bytes(imagecodecs.zlib_encode(chunk.tobytes()))
    return chunk.tobytes()


def write_zip(path: Path, members: Members) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_folder(path: Path, members: Members) -> None:
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
