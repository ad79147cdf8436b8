"""What was captured in one ARCTIC sequence: the head camera and the hands.

The head camera of one ARCTIC sequence: its pose, lens and pictures.

    <sequence>.egocam.dist.npy    pickled R_k_cam_np (F, 3, 3), T_k_cam_np (F, 3, 1) world -> camera, metres; intrinsics (3, 3); dist8 (8)
    images/<subject>/<sequence>/0/00012.jpg            2800 x 2000, row 12 - ioi_offset
    cropped_images/<subject>/<sequence>/0/00012.jpg    the same at 0.3 of its size: view 0 is not cropped
Axes are OpenCV's, and so are the eight coefficients (k1 k2 p1 p2 k3 k4 k5 k6, applied to the ideal ray). Sources:
`zc-alexfan/arctic:{src/arctic/preprocess_dataset.py,src/arctic/processing.py,common/transforms.py,scripts_data/crop_images.py}` (code).
The small pictures are taken where both are there: nothing here is stored larger. R0, T0 and ego_markers are not read.

The hands of one ARCTIC sequence: MANO by motion capture, in the world, one row a picture.

    <sequence>.mano.npy     pickled {"right", "left"}: rot (F, 3), pose (F, 45) axis-angle; trans (F, 3) metres; shape (10); fitting_err (F)
Read with smplx's MANO, `use_pca=False`, `flat_hand_mean=False` (the model's mean pose is added to `pose`), `transl=trans`: the wrist
is J0(shape) + trans. The left shape was fitted with the official left model, whose first shape direction has the wrong sign.
Sources: `zc-alexfan/arctic:{docs/data/data_doc.md,common/body_models.py,src/arctic/processing.py}` (doc, code), issue 50 (left
shapes). `fitting_err` is not read: no limit of it is stated. Upstream's `left_valid` and `right_valid` (in the picture) are made by the
hand stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from adapters.arctic.tree import EGOCAM, MANO, MISC, RAW
from adapters.containers.images import ImageFolder, LazyImages
from adapters.containers.json_rows import Broken, JsonRow, parse
from adapters.containers.restricted_pickle import load_npy_object, mapping, numbers
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from schemas.camera_model import Lens
from schemas.episode import SIDES, Camera, EncodedImages, RawFile, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse, rotmat_from_rotvec, transform
from schemas.hand_track import HandTrack, ManoPose

# -- camera --------------------------------------------------------------------------------------------------------

CAMERA, VIEW = "ego", "0"
FOLDERS = ("cropped_images", "images")
MAX_DIGITS = 9


class Subject(JsonRow):
    """Of misc.json; sizes are (width, height) of the nine views at full size."""

    ioi_offset: int = Field(ge=0, le=1_000_000)
    image_size: list[tuple[int, int]] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Egocam:
    T_world_cam: Array  # [F, 4, 4]
    K_cam: Array
    lens: Lens


def egocam_path(root: Path, name: str) -> Path:
    return inside(root, RAW, f"{name}{EGOCAM}")


def egocam_of(path: Path, count: int, where: str) -> Egocam:
    """The camera of `count` rows, turned round: the file has world to camera.

    Raises:
        SourceError: MISSING_CHANNEL, SHAPE_MISMATCH (not one pose a row of the hands), or as `load_npy_object`.
    """
    values = mapping(load_npy_object(path, max_bytes=LIMIT_BYTES), where)
    shapes = {
        "R_k_cam_np": (count, 3, 3),
        "T_k_cam_np": (count, 3, 1),
        "intrinsics": (3, 3),
        "dist8": (8,),
    }
    if missing := [key for key in shapes if key not in values]:
        problem = f"no {missing} in {sorted(map(str, values))[:20]}"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=where)
    R, p, K_cam, dist = (numbers(values[k], s, f"{where}:{k}") for k, s in shapes.items())
    for key, value in (
        ("R_k_cam_np", R),
        ("T_k_cam_np", p),
        ("intrinsics", K_cam),
        ("dist8", dist),
    ):
        if not np.isfinite(value).all():
            raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{where}:{key}")
    lens = Lens(model="opencv", params=tuple(dist.tolist()))
    return Egocam(T_world_cam=inverse(transform(R, p[..., 0])), K_cam=K_cam, lens=lens)


def pose_stream(egocam: Egocam, t_ns: npt.NDArray[np.int64]) -> Stream:
    spec = pose_channel(f"T_world_cam.{CAMERA}")
    return Stream(spec=spec, t_ns=t_ns, values=egocam.T_world_cam)


def subject_of(root: Path, name: str) -> tuple[Subject, RawFile]:
    """What misc.json says of the sequence's subject. Raises SourceError: MISSING_META, BAD_ANNOTATION."""
    text, raw = read_sidecar(root, Sidecar(path=MISC))
    subjects = json_object(text, MISC)
    key = name.partition("/")[0]
    if key not in subjects:
        raise SourceError(Code.MISSING_META, f"no entry for subject {key}", where=MISC)
    subject = parse(Subject, subjects[key])
    if isinstance(subject, Broken):
        raise SourceError(Code.BAD_ANNOTATION, f"{key}: {subject.why}", where=MISC)
    return subject, raw


def camera_of(
    root: Path, name: str, egocam: Egocam, subject: Subject, t_ns: npt.NDArray[np.int64]
) -> Camera | None:
    """The pictures of rows 0 to F - 1, each at the instant of its row; None when no folder of them is there.

    Raises:
        SourceError: FRAME_COUNT, pictures of other rows only; UNSAFE_PATH.
    """
    folder = next((f for f in FOLDERS if (root / f / name / VIEW).is_dir()), None)
    if folder is None:
        return None
    where = f"{folder}/{name}/{VIEW}"
    path = inside(root, where)
    rows = {row: file for row, file in _rows(path, subject.ioi_offset) if 0 <= row < len(t_ns)}
    if not rows:
        problem = f"no image for rows 0 to {len(t_ns) - 1} (ioi_offset {subject.ioi_offset})"
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    order = sorted(rows)
    for row in order:
        inside(root, where, rows[row])  # a link must not lead out
    images = LazyImages([rows[row] for row in order], ImageFolder(folder=path, where=where))
    return Camera(
        name=CAMERA,
        frames=EncodedImages(images=images),
        t_ns=t_ns[order],
        K_cam=egocam.K_cam,
        K_size=subject.image_size[0],
        lens=egocam.lens,
    )


def _rows(folder: Path, ioi_offset: int) -> list[tuple[int, str]]:
    """(row, file name) of every picture; those before row 0 are known, and those after the last one too."""
    names = [p.name for p in folder.iterdir() if p.suffix == ".jpg"]
    stems = [(n.removesuffix(".jpg"), n) for n in names]
    return [
        (int(stem) - ioi_offset, name)
        for stem, name in stems
        if stem.isascii() and stem.isdigit() and len(stem) <= MAX_DIGITS
    ]


# -- hands ---------------------------------------------------------------------------------------------------------

LIMIT_BYTES = 256 << 20  # the 339 real files of hands together are smaller
NUM_BETAS = 10
KEYS = ("rot", "pose", "trans", "shape")


def mano_path(root: Path, name: str) -> Path:
    return inside(root, RAW, f"{name}{MANO}")


def parameters_of(path: Path, where: str) -> dict[str, dict[str, Array]]:
    """rot [F, 3], pose [F, 45], trans [F, 3], shape [10] of each side.

    Raises:
        SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_FINITE, EMPTY_EPISODE, or as `load_npy_object`.
    """
    content = mapping(load_npy_object(path, max_bytes=LIMIT_BYTES), where)
    sides = {side: mapping(content.get(side, {}), f"{where}:{side}") for side in SIDES}
    for side, values in sides.items():
        if missing := [key for key in KEYS if key not in values]:
            problem = f"no {missing} in {sorted(map(str, values))[:20]}"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=f"{where}:{side}")
    count = np.size(sides["right"]["rot"]) // 3
    if count == 0:
        raise SourceError(Code.EMPTY_EPISODE, "no rows", where=where)
    return {side: _side(values, count, f"{where}:{side}") for side, values in sides.items()}


def _side(values: dict[Any, Any], count: int, where: str) -> dict[str, Array]:
    shapes = dict(zip(KEYS, ((count, 3), (count, 45), (count, 3), (NUM_BETAS,)), strict=True))
    out = {key: numbers(values[key], shape, f"{where}/{key}") for key, shape in shapes.items()}
    for key, value in out.items():
        if not np.isfinite(value).all():
            raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{where}/{key}")
    return out


def track_of(
    side: str, values: dict[str, Array], t_ns: npt.NDArray[np.int64], view: str | None
) -> HandTrack:
    """One hand, always there: nothing in the file says otherwise."""
    return HandTrack(
        side=side,
        t_ns=t_ns,
        present=np.ones(len(t_ns), dtype=bool),
        mano=ManoPose(
            global_orient=rotmat_from_rotvec(values["rot"]),
            hand_axis_angle_rad=values["pose"],
            trans_m=values["trans"],
            trans_is="smplx_transl",
            betas=values["shape"],
            is_flat_hand_mean=False,
            has_shapedirs_fix=side == "right",
        ),
        view=view,
    )
