"""Named columns of an episode's data Parquet, read by position (pread), so that a failing disk or a truncated file is an error and not a crash. The measured pose as a state token."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.episode import SIDES
from schemas.errors import ConfigError, SourceError
from schemas.json_text import read_json
from schemas.lerobot import CHUNK_SIZE, DATA_PATH, INFO_LIMITS
from schemas.parquet_file import read_table
from schemas.paths import within
from schemas.trained_action import Named
from training.data.action_layout import MAX_HAND_JOINTS
from training.data.broken import is_hiccup


class PositionalFile:
    """One open file; closed with the last who has it. `where` names it in errors, `repair` is what to do about damage."""

    def __init__(self, path: Path, *, where: str, repair: str) -> None:
        """
        Raises:
            OSError: it cannot be opened now.
        """
        self.where, self.repair = where, repair
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)  # of several threads the last one lets go

    def damaged(self, why: str) -> ConfigError:
        """The error for a file that is not what was written."""
        return ConfigError(f"damaged ({why})", remedy=self.repair, where=self.where)

    def fill(self, out: npt.NDArray[Any], start: int) -> None:
        """All of `out`, which is contiguous, with the bytes of the file from `start` on. The interpreter's lock is free meanwhile.

        Raises:
            ConfigError: it ends before that.
            OSError: it cannot be read now.
        """
        left = memoryview(out.reshape(-1).view(np.uint8).data)
        while len(left):
            num = os.preadv(self._file, [left], start)
            if not num:
                raise self.damaged(f"the file ends at byte {start}")
            left, start = left[num:], start + num

    def fill_all(self, parts: Sequence[npt.NDArray[Any]], start: int) -> None:
        """As `fill`, of arrays whose bytes follow each other in the file: one call of the system."""
        views = [part.reshape(-1).view(np.uint8).data for part in parts]
        if os.preadv(self._file, views, start) == sum(map(len, views)):
            return
        for part in parts:
            self.fill(part, start)
            start += part.nbytes


FEATURES = ("action", "action.valid", "observation.state", "observation.valid")
INFO = "meta/info.json"
Taken = TypeVar("Taken")


def inside(root: Path, relative: str, *, repair: str = "") -> Path:
    """`root / relative`, as it lies in the corpus.

    Args:
        repair: the command that makes it again where nothing is there; else the one that says what all is missing.

    Raises:
        ConfigError: there is nothing.
        OutsideCorpus: a link, or it lies elsewhere: a manifest is data, and may say anything.
        OSError: the machine cannot look now.
    """
    try:
        path = within(root, relative)
        path.stat()
    except OSError as error:
        if is_hiccup(error):
            raise
        problem = f"missing ({error.strerror})"
        raise ConfigError(
            problem, remedy=f"run `{repair or f'eicorpus verify {root}'}`", where=relative
        ) from error
    return path


def feature_names(corpus: Path, dataset_path: str) -> Mapping[str, tuple[str, ...]]:
    """Element names of FEATURES of a data set; empty where it has no action.

    Raises:
        ConfigError: its `meta/info.json` is missing or damaged.
    """

    def names_in(features: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        if any(name not in features for name in FEATURES):
            return {}
        return {name: tuple(map(str, features[name]["names"])) for name in FEATURES}

    return _of_features(corpus, dataset_path, names_in)


def short_side_px(corpus: Path, dataset_paths: Iterable[str]) -> int | None:
    """The shorter side of the largest picture that data sets store of any camera; None where they have no videos.

    Raises:
        ConfigError: a `meta/info.json` is missing or damaged.
    """

    def sides_in(features: Mapping[str, Any]) -> list[int]:
        shapes = [each["shape"] for each in features.values() if each["dtype"] == "video"]
        return [min(int(height), int(width)) for height, width, _ in shapes]

    sides = (side for path in dataset_paths for side in _of_features(corpus, path, sides_in))
    return max(sides, default=None)


def _of_features(
    corpus: Path, dataset_path: str, take: Callable[[Mapping[str, Any]], Taken]
) -> Taken:
    relative = f"{dataset_path}/{INFO}"
    try:
        return take(read_json(inside(corpus, relative), limits=INFO_LIMITS)["features"])
    except (SourceError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"damaged ({error!r})"
        raise ConfigError(
            problem, remedy=f"run `eicorpus verify {corpus}`", where=relative
        ) from error


def data_path(dataset_path: str, episode_index: int) -> str:
    """Relative to the corpus."""
    inner = DATA_PATH.format(episode_chunk=episode_index // CHUNK_SIZE, episode_index=episode_index)
    return f"{dataset_path}/{inner}"


def read_features(corpus: Path, path: str, names: Mapping[str, Sequence[str]]) -> dict[str, Named]:
    """All rows of FEATURES of one episode.

    Raises:
        ConfigError: no whole Parquet file with these columns of these widths.
    """
    remedy = f"run `eicorpus verify {corpus}`"
    table = read_table(inside(corpus, path), [*names], use_threads=False, remedy=remedy)
    try:
        features = {name: _matrix(table[name]) for name in names}
    except (ValueError, pa.ArrowException) as error:
        raise ConfigError(f"damaged ({error})", remedy=remedy, where=path) from error
    for name, values in features.items():
        if values.shape[1] != len(names[name]):
            message = f"{name} has {values.shape[1]} elements; {INFO} names {len(names[name])}"
            raise ConfigError(message, remedy=f"run `eicorpus verify {corpus}`", where=path)
    return {name: Named(values=v, names=tuple(names[name])) for name, v in features.items()}


def _matrix(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[Any]]:
    """[K, n]; a feature of one element is a plain column, not one of lists."""
    array = column.combine_chunks()
    flat = array.flatten() if pa.types.is_nested(array.type) else array
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), -1)


PARTS = (
    ("position_m", 3),
    ("rot6d_cols", 6),
    ("gripper_opening", 1),
    ("hand_joints_rad", MAX_HAND_JOINTS),
)
STATE_WIDTH = len(SIDES) * sum(width for _, width in PARTS)


def measured_slices(state_valid: Named) -> frozenset[str]:
    """The slices of `observation.valid` that hold at any timestep."""
    is_measured = (state_valid.values.astype(np.float64) > 0.5).any(axis=0)
    return frozenset(np.array(state_valid.names, dtype=np.str_)[is_measured].tolist())


def state_vector(state: Named, state_valid: Named) -> npt.NDArray[np.float32]:
    """[K, 52] of `observation.state` and `observation.valid`."""
    out = np.zeros((len(state.values), STATE_WIDTH), dtype=np.float32)
    first = 0
    for side in SIDES:
        for part, width in PARTS:
            values = state.part(f"{side}.{part}")
            if values is not None:
                seen = state_valid.is_set(f"{side}.{part}")
                out[:, first : first + values.shape[1]] = np.where(seen[:, None], values, 0)
            first += width
    return out
