"""The numbers of committed episodes, as a trainer reads them: named columns of the data Parquet, and nothing of the videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.errors import ConfigError, SourceError
from schemas.json_text import read_json
from schemas.lerobot import CHUNK_SIZE, DATA_PATH, INFO_LIMITS
from schemas.parquet_file import read_table
from schemas.trained_action import Named
from schemas.within import within
from training.data.broken import is_hiccup

FEATURES = ("action", "action.valid", "observation.state", "observation.valid")
INFO = "meta/info.json"


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
        problem = f"missing ({error.strerror}); run `{repair or f'eicorpus verify {root}'}`"
        raise ConfigError(problem, where=relative) from error
    return path


def feature_names(corpus: Path, dataset_path: str) -> Mapping[str, tuple[str, ...]]:
    """Element names of FEATURES of a data set; empty where it has no action.

    Raises:
        ConfigError: its `meta/info.json` is missing or damaged.
    """
    relative = f"{dataset_path}/{INFO}"
    try:
        features = read_json(inside(corpus, relative), limits=INFO_LIMITS)["features"]
        if any(name not in features for name in FEATURES):
            return {}
        return {name: tuple(map(str, features[name]["names"])) for name in FEATURES}
    except (SourceError, OSError, ValueError, KeyError, TypeError) as error:
        problem = f"damaged ({error!r}); run `eicorpus verify {corpus}`"
        raise ConfigError(problem, where=relative) from error


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
        raise ConfigError(f"damaged ({error}); {remedy}", where=path) from error
    for name, values in features.items():
        if values.shape[1] != len(names[name]):
            message = f"{name} has {values.shape[1]} elements, {INFO} names {len(names[name])}"
            raise ConfigError(message, remedy=f"run `eicorpus verify {corpus}`", where=path)
    return {name: Named(values=v, names=tuple(names[name])) for name, v in features.items()}


def _matrix(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[Any]]:
    """[K, n]; a feature of one element is a plain column, not one of lists."""
    array = column.combine_chunks()
    flat = array.flatten() if pa.types.is_nested(array.type) else array
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), -1)
