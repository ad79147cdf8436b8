"""Raw data under mutation: one file of a generated set is damaged in its place, and the adapter looks at the set again."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adapters.registry import adapter_for
from jobs.demo.raw import Written
from schemas.episode import EpisodeRef
from schemas.errors import ConfigError, SourceError
from tests import generators
from tests.adapters.hostile_files import Seen, faults, kind_of, look_at_pictures, seen_of
from tests.fuzz.containers import reader_of
from tests.fuzz.corpora import run
from tests.fuzz.mutations import Outcome, mutated

LARGEST_BYTES = 4 << 20  # of a file that is mutated
# Every source by the container that most of its data is in; all kinds of its files are mutated, texts and pictures too.
FAMILIES: dict[str, tuple[str, ...]] = {
    "hdf5": (
        *("agibot_world", "aloha", "droid", "egodex", "metaworld_hdf5", "robomimic", "robomind"),
        "robotwin",
    ),
    "rlds": ("oxe",),
    "lerobot": (
        *("behavior_1k", "galaxea", "humanoid_everyday_lerobot", "interndata_a1", "lerobot"),
        *("robocasa_gr1", "robocoin"),
    ),
    "mp4": ("aria", "egome", "ssv2", "video_folder"),
    "tar": ("egocentric_10k", "hot3d_clips"),
    "zarr": ("umi",),
    "annotations": (
        *("ego4d", "ego_exo4d", "epic_kitchens", "holoassist", "hot3d", "humanoid_everyday"),
    ),
    "pickle": ("arctic", "hoi4d", "oakink2", "rh20t", "rh20t_human", "taco", "vitra"),
    "rosbag": ("let_kuavo",),
    "lmdb": ("interndata_a1_raw",),
    "xlsx": ("taste_rob",),
}
# One mutation in so many is followed by
INGEST_SHARE = 100  # `ingest` and `verify`,
WHOLE_SHARE = 10  # the whole set: survey, discovery, every load, every video,
LOAD_SHARE = 3  # or an episode that reads the file.


@dataclass(frozen=True)
class RawSet:
    """A healthy set, what comes of it, and the files that are mutated."""

    source: str
    written: Written
    well: Seen
    names: Mapping[str, tuple[str, ...]]  # kind of a file -> the files of that kind
    refs: Mapping[str, EpisodeRef]  # of its healthy episodes
    readers: Mapping[str, str]  # path of a file -> an episode that reads it

    def drawn(self, rng: random.Random) -> str:
        """Every kind of file is chosen as often, however many of it there are."""
        return rng.choice(self.names[rng.choice(sorted(self.names))])


def raw_sets(family: str, folder: Path) -> list[RawSet]:
    return [raw_set(source, folder / source) for source in FAMILIES[family]]


def raw_set(source: str, folder: Path) -> RawSet:
    written = generators.write(source, folder / "raw")
    names: dict[str, list[str]] = {}
    for path in sorted(p for p in written.root.rglob("*") if p.is_file()):
        if path.stat().st_size <= LARGEST_BYTES:
            name = path.relative_to(written.root).as_posix()
            names.setdefault(kind_of(name), []).append(name)
    adapter = adapter_for(source)
    well = seen_of(adapter, written)
    assert not well.refused
    info = adapter.survey(written.root, written.options)
    return RawSet(
        source=source,
        written=written,
        well=well,
        names={kind: tuple(same) for kind, same in names.items()},
        refs={ref.episode_id: ref for ref in adapter.discover(written.root, info)},
        readers={f.path: i for i, e in well.episodes.items() for f in e.raw_files},
    )


def try_raw(sets: list[RawSet], rng: random.Random) -> Outcome:
    """The set is as before afterwards."""
    one = rng.choice(sets)
    name = one.drawn(rng)
    path, kept = one.written.root / name, one.written.root.parent / "kept"
    data = path.read_bytes()
    others = [(one.written.root / one.drawn(rng)).read_bytes()]
    os.rename(path, kept)
    try:
        path.write_bytes(mutated(data, name, others, rng))
        check = _check(one, name, rng)
        return Outcome(one.source, name, check, CHECKS[check](one, name))
    finally:
        os.replace(kept, path)


def _check(one: RawSet, name: str, rng: random.Random) -> str:
    """How far a mutated file is followed is drawn with it. What no container's reader opens goes to the adapter."""
    if rng.randrange(INGEST_SHARE) == 0:
        return "ingest"
    if rng.randrange(WHOLE_SHARE) == 0:
        return "set"
    has_reader = reader_of(one.written.root / name) is not None
    if name in one.readers and (not has_reader or rng.randrange(LOAD_SHARE) == 0):
        return "load"
    return "reader" if has_reader else "discovery"


def _discovered(one: RawSet, name: str) -> list[str]:
    adapter, root = adapter_for(one.source), one.written.root
    with suppress(SourceError, ConfigError):
        for _ in adapter.discover(root, adapter.survey(root, one.written.options)):
            pass
    return []


def _loaded(one: RawSet, name: str) -> list[str]:
    with suppress(SourceError, ConfigError):
        look_at_pictures(adapter_for(one.source).load(one.refs[one.readers[name]]))
    return []


def _read(one: RawSet, name: str) -> list[str]:
    path = one.written.root / name
    read = reader_of(path)
    assert read
    with suppress(SourceError, ConfigError):
        read(path)
    return []


def _whole(one: RawSet, name: str) -> list[str]:
    return faults(one.well, seen_of(adapter_for(one.source), one.written), name, "mutated")


def _ingested(one: RawSet, name: str) -> list[str]:
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


CHECKS: dict[str, Callable[[RawSet, str], list[str]]] = {
    "reader": _read,
    "discovery": _discovered,
    "load": _loaded,
    "set": _whole,
    "ingest": _ingested,
}
