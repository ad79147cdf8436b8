"""Makes a store of trained actions: every segment of a manifest once, from the episodes' Parquet, in parts by several processes.

`<cache>/actions-<key>/` holds `part-00000.arrow` ... and `index.npy`. A part is one uncompressed Arrow record batch of up to 256 episodes of
one data set: that bounds memory, and a reader maps it without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigError
from schemas.trained_action import trained_action
from training.data.action_layout import slots_of
from training.data.recording import (
    data_path,
    feature_names,
    measured_slices,
    read_features,
    state_vector,
)

INDEX_FILE = "index.npy"
INDEX = np.dtype([("part", np.int32), ("offset", np.int64)])  # of each row of the manifest
PART_EPISODES = 256
FEW_EPISODES = 200  # fewer take less time than processes need to start
VALUES, VALID, STATE = "values", "valid", "state"
NAMES, MEASURED = b"names", b"measured"  # metadata of a part: one a line


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWork:
    """Some segments of one data set. `spans`: (episode_index, start, end, row of the manifest), those of an episode together."""

    corpus: Path
    dataset_path: str
    spans: tuple[tuple[int, int, int, int], ...]
    target: Path
    with_state: bool


def part_name(number: int) -> str:
    return f"part-{number:05d}.arrow"


def build_actions(
    corpus: Path,
    rows: pa.Table,
    folder: Path,
    *,
    with_state: bool,
    num_processes: int,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> None:
    """Write the store of `rows` (ROW_SCHEMA) into an empty folder.

    Raises:
        ConfigError: an episode's numbers are missing or damaged, naming the file.
    """
    works, index = _planned(corpus, rows, folder, with_state=with_state)
    for done, _ in enumerate(_run(works, num_processes), start=1):
        progress(done, len(works))
    np.save(folder / INDEX_FILE, index)


def _planned(
    corpus: Path, rows: pa.Table, folder: Path, *, with_state: bool
) -> tuple[list[PartWork], npt.NDArray[np.void]]:
    """The parts, and where each row of the manifest will lie."""
    index = np.zeros(len(rows), dtype=INDEX)
    index["part"] = -1
    works: list[PartWork] = []
    # By body too: statistics are of bodies, so a part must be of one.
    keys = pc.binary_join_element_wise(rows["dataset_path"], rows["embodiment"], "\n")
    keys = keys.combine_chunks().dictionary_encode()
    columns = [rows[name].to_numpy() for name in ("episode_index", "start", "end")]
    codes = keys.indices.to_numpy()
    for code, key in enumerate(keys.dictionary.to_pylist()):
        path = key.partition("\n")[0]
        names = feature_names(corpus, path)
        if not names:
            continue
        at = np.flatnonzero(codes == code)
        at = at[np.lexsort((columns[1][at], columns[0][at]))]
        episode, start, end = (column[at] for column in columns)
        block = np.cumsum(np.diff(episode, prepend=episode[:1]) != 0) // PART_EPISODES
        for of_block in np.split(np.arange(len(at)), np.flatnonzero(np.diff(block)) + 1):
            index["part"][at[of_block]] = len(works)
            lengths = end[of_block] - start[of_block]
            index["offset"][at[of_block]] = np.cumsum(lengths) - lengths
            spans = zip(*(x[of_block].tolist() for x in (episode, start, end, at)), strict=True)
            works.append(
                PartWork(
                    corpus=corpus,
                    dataset_path=path,
                    spans=tuple(spans),
                    target=folder / part_name(len(works)),
                    with_state=with_state,
                )
            )
    return works, index


def _run(works: Sequence[PartWork], num_processes: int) -> Iterator[None]:
    num_episodes = sum(len({span[0] for span in work.spans}) for work in works)
    if num_processes < 2 or num_episodes < FEW_EPISODES:
        yield from map(write_part, works)
        return
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write_part, works)


def write_part(work: PartWork) -> None:
    """The worker body: derive every segment, and write them one after the other.

    Raises:
        ConfigError: see `build_actions`.
    """
    names = feature_names(work.corpus, work.dataset_path)
    pieces: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]] = []
    states: list[npt.NDArray[np.float32]] = []
    element_names: tuple[str, ...] = ()
    measured: frozenset[str] = frozenset()
    path, features = "", {}
    for episode_index, start, end, row in work.spans:
        if path != (path := data_path(work.dataset_path, episode_index)):
            features = read_features(work.corpus, path, names)
        if len(features["action"].values) < end:
            problem = f"{len(features['action'].values)} rows; row {row} of the manifest ends at timestep {end}"  # fmt: skip
            raise ConfigError(problem, remedy=f"run `eicorpus verify {work.corpus}`", where=path)
        cut = {name: type(f)(values=f.values[start:end], names=f.names) for name, f in features.items()}  # fmt: skip
        action, action_valid, state, state_valid = (cut[name] for name in names)
        found_action = trained_action(
            action=action, action_valid=action_valid, state=state, state_valid=state_valid
        )
        element_names = found_action.names
        pieces.append((found_action.values.astype(np.float32), found_action.valid.astype(np.uint8)))
        measured |= measured_slices(state_valid)
        if work.with_state:
            states.append(state_vector(state, state_valid))
    slots_of(element_names, where=work.dataset_path)  # refused now, not in the run
    lines = {NAMES: "\n".join(element_names), MEASURED: "\n".join(sorted(measured))}
    _write(work.target, lines, pieces, states)


def _write(
    target: Path,
    metadata: dict[bytes, str],
    pieces: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]],
    states: list[npt.NDArray[np.float32]],
) -> None:
    columns = {
        VALUES: np.concatenate([values for values, _ in pieces]),
        VALID: np.concatenate([valid for _, valid in pieces]),
    }
    if states:
        columns[STATE] = np.concatenate(states)
    arrays = [_fixed(column) for column in columns.values()]
    schema = pa.schema(
        [pa.field(name, array.type) for name, array in zip(columns, arrays, strict=True)],
        metadata=metadata,
    )
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))


def _fixed(column: npt.NDArray[np.generic]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), column.shape[1])
