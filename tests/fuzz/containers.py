"""The smallest reader of each container family: what a mutation costs is one file opened and read, not a whole set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from adapters.containers.array_files import npy_array
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.lerobot_meta import read_parquet
from adapters.containers.lmdb_store import check_lmdb, open_lmdb
from adapters.containers.restricted_pickle import load_npy_object, load_pickle_file, loads
from adapters.containers.rosbag1 import open_bag
from adapters.containers.tar_shard import tar_members
from adapters.containers.tf_example import parse_example
from adapters.containers.tfrecord import read_record, walk
from adapters.containers.video_probe import frame_times_ns
from adapters.containers.xlsx import sheet_rows
from adapters.containers.zarr_array import zarr_array
from adapters.containers.zarr_store import ZarrStore
from schemas.errors import SourceError

MOST_ROWS = 64  # of one array or table
MOST_MESSAGES = 200  # of one bag, deserialised
LMDB_KEYS = ("T_world_base", "actions.gripper.pose", "images.rgb.head/0007", "json_data")
Reader = Callable[[Path], None]


def read_hdf5(path: Path) -> None:
    """Every dataset; a refusal of one does not hide the others."""
    with Hdf5File(path) as file:
        for key in Hdf5File.keys(file):
            for read in (file.shape, file.array, file.blobs):
                try:
                    read(key)
                except SourceError:
                    continue


def read_tfrecord(path: Path) -> None:
    for record in walk(path):
        if record.problem is not None:
            continue
        try:
            features = parse_example(read_record(path, record.offset, record.num_bytes))
        except SourceError:
            continue
        for feature in features.values():
            for read in (feature.blobs, feature.floats, feature.ints):
                try:
                    read()
                except SourceError:
                    continue


def read_tar(path: Path) -> None:
    for member in tar_members(path):
        assert 0 <= member.start <= member.end


def read_video(path: Path) -> None:
    frame_times_ns(path)


def read_pickle(path: Path) -> None:
    if path.suffix != ".npy":
        load_pickle_file(path)
        return
    for read in (load_npy_object, lambda p: npy_array(p, p.name)):
        try:
            read(path)
        except SourceError:
            continue


def read_bag(path: Path) -> None:
    with open_bag(path, path.name) as bag:
        for number, _ in enumerate(bag.messages(bag.topics)):
            if number == MOST_MESSAGES:
                return


def read_lmdb(path: Path) -> None:
    if path.name != "data.mdb":
        return
    folder = check_lmdb(path.parents[1], path.parent.name)
    with open_lmdb(folder, path.parent.name) as reader:
        for key in LMDB_KEYS:
            try:
                loads(reader.get(key, limit=1 << 20), where=key)
            except SourceError:
                continue


def read_xlsx(path: Path) -> None:
    for sheet in ("Single-Hand", "Double-Hand"):  # of taste_rob, the only set with one
        for _ in sheet_rows(path, sheet):
            pass


def read_table(path: Path) -> None:
    read_parquet(path, path.name).to_pylist()


def read_zarr(path: Path) -> None:
    """The rows of one chunk, or the first ones of every array of a zip."""
    if path.name.endswith(".zip"):
        store = ZarrStore(path=path, where=path.name)
        for key in ("data/camera0_rgb", "data/robot0_eef_pos", "meta/episode_ends"):
            try:
                array = zarr_array(store, key)
                array.read(0, min(array.shape[0], MOST_ROWS))
            except SourceError:
                continue
        return
    root = next(p for p in path.parents if p.name.endswith(".zarr"))
    key = path.parent.relative_to(root).as_posix()
    array = zarr_array(ZarrStore(path=root, where=root.name), key)
    number = path.name.split(".")[0]
    start = int(number) * array.chunks[0] if number.isdigit() else 0
    stop = min(array.shape[0], start + min(array.chunks[0], MOST_ROWS))
    if math.prod(array.shape[1:]) < 1 << 24 and start < stop:
        array.read(start, stop)


READERS: dict[str, Reader] = {
    **dict.fromkeys((".hdf5", ".h5"), read_hdf5),
    **dict.fromkeys((".mp4", ".webm"), read_video),
    **dict.fromkeys((".pickle", ".pkl", ".npy"), read_pickle),
    ".parquet": read_table,
    ".tar": read_tar,
    ".bag": read_bag,
    ".mdb": read_lmdb,
    ".xlsx": read_xlsx,
}
SHARD = re.compile(r"-of-\d{5}$")


def reader_of(path: Path) -> Reader | None:
    """None for a file that no container's reader opens, as a text or a picture: an adapter reads those."""
    if SHARD.search(path.name):
        return read_tfrecord
    if path.name.endswith(".zarr.zip") or any(p.name.endswith(".zarr") for p in path.parents):
        return read_zarr
    return READERS.get(path.suffix)
