"""MANO_RIGHT.pkl and MANO_LEFT.pkl as checked NumPy arrays, read without chumpy and without unpickling code.

The files are pickles of Python 2 (protocol 2). What they name, beside numpy and `set` (source: a public reader that lists the
globals of MANO v1.2, CODE; UNVERIFIED by us, the files are licensed and not here): `chumpy.ch.Ch` (state: its array `x`),
`chumpy.reordering.Select` (state: `a`, `idxs`, `preferred_shape`; value `a.ravel()[idxs].reshape(preferred_shape)`,
`mattloper/chumpy:chumpy/reordering.py`) around `shapedirs`, and `scipy.sparse.csc.csc_matrix` around `J_regressor`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.pickle_machine import Budget, Maker, Pending
from adapters.containers.restricted_pickle import MIB, loads
from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.geometry import Array

PARENTS16 = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
MIDDLE_MCP16 = 4  # MANO's fourth joint after the wrist: middle1
NUM_VERTICES, NUM_FACES, NUM_BETAS = 778, 1538, 10
MAX_FILE_BYTES = 64 * MIB  # the real ones have 4
MAX_CELLS = 1 << 24  # of a sparse matrix written out

# Field -> key in the file and shape.
_KEYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "v_template": ("v_template", (NUM_VERTICES, 3)),
    "shapedirs": ("shapedirs", (NUM_VERTICES, 3, NUM_BETAS)),
    "posedirs": ("posedirs", (NUM_VERTICES, 3, 135)),
    "J_regressor": ("J_regressor", (16, NUM_VERTICES)),
    "weights": ("weights", (NUM_VERTICES, 16)),
    "hands_components": ("hands_components", (45, 45)),
    "hands_mean": ("hands_mean", (45,)),
    "kintree_table": ("kintree_table", (2, 16)),
    "faces": ("f", (NUM_FACES, 3)),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManoModel:
    """One side's model as it is in the file: metres, MANO axes, float64, read-only."""

    side: str
    v_template: Array  # [778, 3]
    shapedirs: Array  # [778, 3, 10] metres per unit of beta
    posedirs: Array  # [778, 3, 135] metres per entry of R - I, 15 joints, row-major
    J_regressor: Array  # [16, 778]
    weights: Array  # [778, 16]
    hands_components: Array  # [45, 45] rows are principal components, rad
    hands_mean: Array  # [45] rad
    faces: npt.NDArray[np.int64]  # [1538, 3]
    sha256: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.flags.writeable = False


def read_mano(path: Path, side: str) -> ManoModel:
    """The model in a user's MANO file.

    Raises:
        ConfigError: the file is not there, is not a MANO pickle, holds anything but plain data, lacks a key, has a wrong
            shape or value, or is the model of the other hand.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        content = loads(data, where=path.name, extra=_MAKERS, max_bytes=MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, path.name)}", where=path.name
        ) from error
    except SourceError as error:
        problem = f"not a MANO model file: {error.message}"
        raise ConfigError(
            problem, remedy="download it again from the MANO page", where=path.name
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"the file contains a {type(content).__name__}; expected a dict", where=path.name
        )
    arrays = {name: _array(content, name, path.name) for name in _KEYS}
    _check(arrays, side, path.name)
    faces = arrays.pop("faces").astype(np.int64)
    arrays.pop("kintree_table")
    return ManoModel(side=side, faces=faces, sha256=hashlib.sha256(data).hexdigest(), **arrays)


def _array(content: dict[Any, Any], name: str, where: str) -> Array:
    key, shape = _KEYS[name]
    value = content.get(key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        problem = f"{key} is a {type(value).__name__}; expected a numeric array {shape}"
        raise ConfigError(problem, where=where)
    if value.shape != shape:
        raise ConfigError(f"{key} has shape {value.shape}; expected {shape}", where=where)
    out = np.array(value, dtype=np.float64)
    if not np.isfinite(out).all():
        raise ConfigError(f"{key} contains NaN or infinity", where=where)
    return out


def _check(arrays: dict[str, Array], side: str, where: str) -> None:
    """Values that would give wrong hands without an error: another order of joints, other units, the other hand."""
    if tuple(arrays["kintree_table"][0, 1:].astype(int)) != PARENTS16[1:]:
        raise ConfigError(
            "kintree_table is not MANO's (index, middle, pinky, ring, thumb)", where=where
        )
    weights, regressor, faces = arrays["weights"], arrays["J_regressor"], arrays["faces"]
    if weights.min() < -1e-6 or np.abs(weights.sum(axis=1) - 1).max() > 1e-3:
        raise ConfigError("weights do not sum to 1 for each vertex", where=where)
    if np.abs(regressor.sum(axis=1) - 1).max() > 1e-2:
        raise ConfigError("J_regressor does not sum to 1 for each joint", where=where)
    if faces.min() < 0 or faces.max() >= NUM_VERTICES:
        raise ConfigError(f"f refers to vertices outside 0..{NUM_VERTICES - 1}", where=where)
    joints = regressor @ arrays["v_template"]
    toward_fingers = joints[MIDDLE_MCP16] - joints[0]
    length_m = float(np.linalg.norm(toward_fingers))
    if not 0.05 < length_m < 0.2:
        problem = f"wrist to middle knuckle is {length_m:.3g}; expected about 0.1 (metres)"
        raise ConfigError(problem, where=where)
    if (toward_fingers[0] < 0) != (side == "right"):
        problem = f"the fingers point to {'-' if toward_fingers[0] < 0 else '+'}x, so this is not the {side} hand"
        raise ConfigError(problem, remedy="check whether the two files are swapped", where=where)


# -- the types of other libraries that the files name ----------------------------------------------------------------


def _maker(name: str, build: Callable[[dict[Any, Any], Budget], Array]) -> Maker:
    def make(args: tuple[Any, ...], budget: Budget) -> Pending:
        if args:
            raise budget.unsafe(f"{name} created with arguments")

        def checked(state: Any) -> Array:
            if not isinstance(state, dict):
                raise budget.corrupt(f"{name} without its state")
            return build(state, budget)

        return Pending(name=name, build=checked)

    return Maker(name=name, make=make)


def _want(state: dict[Any, Any], key: str, kinds: str, budget: Budget) -> npt.NDArray[Any]:
    value = state.get(key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        raise budget.corrupt(f"{key} is a {type(value).__name__}; expected an array")
    return value


def _ch(state: dict[Any, Any], budget: Budget) -> Array:
    return _want(state, "x" if "x" in state else "r", "fiu", budget)


def _select(state: dict[Any, Any], budget: Budget) -> Array:
    source, index = _want(state, "a", "f", budget), _want(state, "idxs", "iu", budget)
    shape = state.get("preferred_shape", index.shape)
    shape = tuple(int(n) for n in np.asarray(shape).reshape(-1))
    is_inside = index.size > 0 and index.min() >= 0 and index.max() < source.size
    if not is_inside or math.prod(shape) != index.size:
        raise budget.corrupt(f"a chumpy Select of {index.size} entries {shape} from {source.size}")
    budget.spend(8 * index.size)
    return np.asarray(source.reshape(-1)[index.reshape(-1)].reshape(shape))


def _csc(state: dict[Any, Any], budget: Budget) -> Array:
    """A column-compressed matrix written out: values data[k] at (indices[k], column whose indptr range holds k)."""
    data = _want(state, "data", "f", budget)
    rows, starts = _want(state, "indices", "iu", budget), _want(state, "indptr", "iu", budget)
    shape = state.get("_shape", state.get("shape"))
    if type(shape) is not tuple or len(shape) != 2 or not all(type(n) is int for n in shape):
        raise budget.corrupt("a sparse matrix without its shape")
    height, width = shape
    ends = starts.astype(np.int64)
    counts = ends[1:] - ends[:-1]
    is_whole = (
        0 < height * width <= MAX_CELLS
        and data.shape == rows.shape == (data.size,)
        and starts.shape == (width + 1,)
        and starts[0] == 0
        and starts[-1] == data.size
        and counts.min() >= 0
        and (not data.size or (rows.min() >= 0 and rows.max() < height))
    )
    if not is_whole:
        raise budget.corrupt(f"an inconsistent sparse matrix {shape}")
    budget.spend(8 * height * width)
    dense = np.zeros((height, width))
    np.add.at(dense, (rows, np.repeat(np.arange(width), counts)), data)
    return dense


_MAKERS = {
    "chumpy.ch.Ch": _maker("chumpy.ch.Ch", _ch),
    "chumpy.reordering.Select": _maker("chumpy.reordering.Select", _select),
    "scipy.sparse.csc.csc_matrix": _maker("scipy.sparse.csc.csc_matrix", _csc),
    "scipy.sparse._csc.csc_matrix": _maker("scipy.sparse._csc.csc_matrix", _csc),
}
