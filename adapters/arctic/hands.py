"""The hands of one ARCTIC sequence: MANO by motion capture, in the world, one row a picture.

    <sequence>.mano.npy     pickled {"right", "left"}: rot (F, 3), pose (F, 45) axis-angle; trans (F, 3) metres; shape (10); fitting_err (F)
Read with smplx's MANO, `use_pca=False`, `flat_hand_mean=False` (the model's mean pose is added to `pose`), `transl=trans`: the wrist
is J0(shape) + trans. The left shape was fitted with the official left model, whose first shape direction has the wrong sign.
Sources: `zc-alexfan/arctic:{docs/data/data_doc.md,common/body_models.py,src/arctic/processing.py}` (doc, code), issue 50 (left
shapes). `fitting_err` is not read: no limit of it is stated. Upstream's `left_valid` and `right_valid` (in the picture) are made by the
hand stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.arctic.tree import MANO, RAW
from adapters.containers.pickled_numbers import mapping, numbers
from adapters.containers.restricted_pickle import load_npy_object
from adapters.containers.safe_path import inside
from schemas.episode import SIDES
from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_rotvec
from schemas.hand_track import HandTrack, ManoPose

LIMIT_BYTES = 256 << 20  # all 339 real ones together have less
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
