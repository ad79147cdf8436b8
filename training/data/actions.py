"""Trained actions of every segment of a manifest, memory-mapped: rows of a store that `training/data/action_build.py` made once.

Values are as derived, in metres and radians: how they are normalised is the recipe's, and no part of the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.manifest import FOLDER, Manifest, rows_sha256
from schemas.paths import within
from schemas.trained_action import REPRESENTATION
from training.data.action_build import (
    INDEX_FILE,
    MEASURED,
    NAMES,
    STATE,
    VALID,
    VALUES,
    build_actions,
    part_name,
)
from training.data.action_layout import slots_of
from training.data.cache import build_once, damaged, mapped

OPEN_PARTS = 256
STORE_VERSION = 2  # higher whenever the same rows would be stored otherwise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionPart:
    """R rows of E elements, of one data set. `slots` [E]: where they belong in the vector of all bodies; `measured`: slices of
    `observation.valid` that hold in any of the rows."""

    names: tuple[str, ...]
    slots: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]  # [R, E]
    valid: npt.NDArray[np.bool_]  # [R, E]
    state: npt.NDArray[np.float32] | None  # [R, 52]
    measured: frozenset[str]


def default_cache(corpus: Path) -> Path:
    """Beside the manifests' own: `eicorpus forget` removes that folder whole, and with it what is derived of a person.

    Raises:
        OutsideCorpus: the way there is a link.
    """
    return within(corpus, f"{FOLDER}/_cache/training")


class ActionStore:
    """`part` and `offset` [S] say where each row of the manifest lies; part -1 where a body has no action.

    Pickled by its path: every worker maps the same pages.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = mapped(folder, INDEX_FILE)
        self.part_of: npt.NDArray[np.int32] = np.ascontiguousarray(index["part"])
        self.offset_of: npt.NDArray[np.int64] = np.ascontiguousarray(index["offset"])
        self.open_part = lru_cache(maxsize=OPEN_PARTS)(self._opened)

    def __reduce__(self) -> tuple[type[ActionStore], tuple[Path]]:
        return ActionStore, (self.folder,)

    @property
    def num_parts(self) -> int:
        return int(self.part_of.max(initial=-1)) + 1

    def _opened(self, number: int) -> ActionPart:
        name = part_name(number)
        try:
            with pa.memory_map(str(within(self.folder, name))) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
            columns = {name: _matrix(batch.column(name)) for name in batch.schema.names}
            metadata = batch.schema.metadata or {}
            names = tuple(metadata[NAMES].decode().split("\n"))
            measured = frozenset(filter(None, metadata[MEASURED].decode().split("\n")))
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise damaged(self.folder, name, error) from error
        return ActionPart(
            names=names,
            slots=slots_of(names, where=str(self.folder / name)),
            values=columns[VALUES],
            valid=columns[VALID].view(bool),
            state=columns.get(STATE),
            measured=measured,
        )


def _matrix(column: pa.FixedSizeListArray) -> npt.NDArray[Any]:
    flat = column.flatten().to_numpy(zero_copy_only=True)
    return np.asarray(flat.reshape(len(column), -1))


def open_actions(
    manifest: Manifest,
    *,
    cache: Path | None = None,
    with_state: bool = False,
    num_processes: int = 1,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> ActionStore:
    """The store of all rows of a manifest, every split; made when it is not there.

    Raises:
        ConfigError: see `build_actions` and `build_once`.
    """
    name = f"actions-{_key(manifest, with_state=with_state)}"
    folder = (cache or default_cache(manifest.corpus)) / name

    def make(aside: Path) -> None:
        build_actions(
            manifest.corpus.resolve(),
            manifest.rows,
            aside,
            with_state=with_state,
            num_processes=num_processes,
            progress=progress,
        )

    build_once(folder, make)
    return ActionStore(folder)


def _key(manifest: Manifest, *, with_state: bool) -> str:
    """Of the rows that there are now: what was forgotten since is in no store."""
    parts = (str(STORE_VERSION), REPRESENTATION, rows_sha256(manifest.rows), str(with_state))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
