"""Raw data under mutation: one file of a generated set is damaged in its place, and the adapter looks at the set again."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adapters.registry import adapter_for
from jobs.demo.raw import Written
from schemas.episode import EpisodeRef
from schemas.errors import ConfigError, SourceError
from tests import generators
from tests.adapters.hostile_files import Seen, faults, look_at_pictures, seen_of
from tests.fuzz.containers import READERS
from tests.fuzz.corpora import run
from tests.fuzz.mutations import mutated

LARGEST_BYTES = 4 << 20  # of a file that is mutated
# Sources and endings of the files of each container family.
FAMILIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hdf5": (("aloha", "robomimic", "metaworld_hdf5", "robotwin"), (".hdf5", ".h5")),
    "rlds": (("oxe",), ("",)),
    "lerobot": (("lerobot", "galaxea"), (".parquet", ".json", ".jsonl")),
    "mp4": (("video_folder", "ssv2"), (".mp4", ".webm")),
    "tar": (("egocentric_10k", "hot3d_clips"), (".tar",)),
    "zarr": (("umi",), ("",)),
    "annotations": (("ego4d", "egome", "epic_kitchens", "ssv2"), (".json", ".csv", ".txt")),
    "pickle": (("hoi4d", "oakink2", "vitra"), (".pickle", ".pkl", ".npy")),
    "rosbag": (("let_kuavo",), (".bag",)),
    "lmdb": (("interndata_a1_raw",), (".mdb", ".pkl")),
    "xlsx": (("taste_rob",), (".xlsx",)),
}


WHOLE_SHARE = 50  # one mutation in so many is seen by the whole set,
LOAD_SHARE = 10  # one in so many by an episode that reads the file,
INGEST_SHARE = 500  # and one in so many by `ingest` and `verify`


@dataclass(frozen=True)
class RawSet:
    """A healthy set, what comes of it, and the files that are mutated."""

    family: str
    source: str
    written: Written
    well: Seen
    names: tuple[str, ...]
    refs: Mapping[str, EpisodeRef]  # of its healthy episodes
    readers: Mapping[str, str]  # path of a file -> an episode that reads it


def raw_sets(family: str, folder: Path) -> list[RawSet]:
    sources, endings = FAMILIES[family]
    found = []
    for source in sources:
        written = generators.write(source, folder / source / "raw")
        files = sorted(p for p in written.root.rglob("*") if p.is_file())
        small = [p for p in files if p.stat().st_size <= LARGEST_BYTES]
        names = tuple(
            p.relative_to(written.root).as_posix() for p in small if p.name.endswith(endings)
        )
        adapter = adapter_for(source)
        well = seen_of(adapter, written)
        assert names, f"{source} has no file of {endings}"
        assert not well.refused
        info = adapter.survey(written.root, written.options)
        found.append(
            RawSet(
                family=family,
                source=source,
                written=written,
                well=well,
                names=names,
                refs={ref.episode_id: ref for ref in adapter.discover(written.root, info)},
                readers={f.path: i for i, e in well.episodes.items() for f in e.raw_files},
            )
        )
    return found


def try_raw(sets: list[RawSet], rng: random.Random) -> tuple[str, list[str]]:
    """(what was changed, what went wrong); the set is as before afterwards."""
    one = rng.choice(sets)
    name = rng.choice(one.names)
    path, kept = one.written.root / name, one.written.root.parent / "kept"
    data = path.read_bytes()
    others = [(one.written.root / rng.choice(one.names)).read_bytes()]
    os.rename(path, kept)
    try:
        path.write_bytes(mutated(data, name, others, rng))
        return f"{one.source}/{name}", _look(one, name, rng)
    finally:
        os.replace(kept, path)


def _look(one: RawSet, name: str, rng: random.Random) -> list[str]:
    """How far a mutated file is followed is drawn with it."""
    if rng.randrange(INGEST_SHARE) == 0:
        return ingested(one)
    if rng.randrange(WHOLE_SHARE) == 0:
        return faults(one.well, seen_of(adapter_for(one.source), one.written), name, "mutated")
    with suppress(SourceError, ConfigError):
        if rng.randrange(LOAD_SHARE) == 0 and name in one.readers:
            look_at_pictures(adapter_for(one.source).load(one.refs[one.readers[name]]))
            return []
        read, endings = READERS.get(one.family, (None, ()))
        if read is not None and name.endswith(endings):
            read(one.written.root / name)
        else:
            adapter = adapter_for(one.source)
            for _ in adapter.discover(
                one.written.root, adapter.survey(one.written.root, one.written.options)
            ):
                pass
    return []


def ingested(one: RawSet) -> list[str]:
    """A run refuses the set (2), or ends (0 or 1) with a corpus that `verify` passes."""
    corpus = one.written.root.parent / "corpus"
    options = [f"--option={key}={value}" for key, value in one.written.options.items()]
    raw = str(one.written.root)
    try:
        code = run(["ingest", one.source, raw, "--out", str(corpus), "--workers", "0", *options])
        if code == 2:
            return []
        if code not in (0, 1):
            return [f"ingest: exit {code}"]
        return [] if run(["verify", str(corpus)]) == 0 else ["verify is not clean after ingest"]
    finally:
        shutil.rmtree(corpus, ignore_errors=True)
