"""What a run will do: every episode of a source in a stable order, less what the corpus already holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adapters.base import SourceInfo
from adapters.registry import adapter_for
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.ledger import History, read_history
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.staging import digest_of, options_digest, work_digest
from ingest.corpus.tombstones import tombstones
from ingest.executors.node_proof import sampled_files, spread
from ingest.pipeline.assets import MANO, NO_ASSETS, Assets, robot_for
from ingest.raw_data.bucket_source import BucketSource
from ingest.recipe import Recipe
from schemas.episode import EpisodeRef
from schemas.errors import Code, ConfigError, SourceError, system_error_text
from schemas.paths import check_local

BATCH = 200_000  # episodes looked up at a time: a look-up reads the uids of all that are committed
SAMPLED_EPISODES = 32  # of a plan, whose files every node must see


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the caller asked for."""

    source: str
    root: Path
    options: Mapping[str, str]
    recipe: Recipe
    limit: int | None = None
    select: str | None = None  # glob on the episode id
    retry_crash_looping: bool = False
    restore: bool = False  # bring back what was forgotten
    has_moved: bool = False  # the raw data lies elsewhere than when earlier runs read it
    assets: Assets = NO_ASSETS
    uri: str = ""  # where the raw data lies, if `root` is a copy of it on this machine
    bucket: BucketSource | None = None  # whose objects are fetched into `root` when they are opened

    @property
    def place(self) -> str:
        """The address of the raw data that the corpus records."""
        return self.uri or str(self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The work of one run. discovered = todo + done + stale + crash-looping + forgotten."""

    info: SourceInfo
    adapter_version: int
    options_digest: str
    assets: Assets
    digest: str
    todo: tuple[EpisodeRef, ...]
    done: int = 0  # committed by earlier runs under the same digest
    stale: int = 0  # committed under another recipe or adapter version: kept as they are
    poisoned: tuple[tuple[EpisodeRef, str, str], ...] = ()  # took a worker with them before
    forgotten: tuple[EpisodeRef, ...] = ()  # erased by `eicorpus forget`: left out
    other_roots: tuple[str, ...] = ()  # where earlier runs found a set of this name

    @property
    def discovered(self) -> int:
        waiting = sum(ref.stands_for for ref in self.todo)
        left_out = (*(ref for ref, _, _ in self.poisoned), *self.forgotten)
        return waiting + self.done + self.stale + sum(ref.stands_for for ref in left_out)

    @property
    def known_broken(self) -> int:
        return sum(ref.stands_for for ref in self.todo if ref.problem is not None)

    @property
    def hours(self) -> float:
        """Hours of recording to work on, as far as the source's metadata tells."""
        return sum(ref.duration_hint_s for ref in self.todo) / 3600

    @property
    def num_bytes(self) -> int:
        return sum(ref.bytes_hint for ref in self.todo)


def survey(request: Request) -> tuple[SourceInfo, int]:
    """What is at the root, and the adapter's version.

    Raises:
        ConfigError: no such folder, not this source, an unknown option, or a URL where an option is a path.
    """
    if not request.root.exists():
        raise ConfigError(
            "no such file or folder",
            remedy="check the path of the raw data",
            where=str(request.root),
        )
    adapter = adapter_for(request.source)
    for name in set(getattr(adapter, "path_options", ())) & request.options.keys():
        check_local(Path(request.options[name]), f"--option {name}")
    with _unusable_set(request.root):
        return adapter.survey(request.root, request.options), adapter.version


def discover(request: Request, info: SourceInfo) -> list[EpisodeRef]:
    """Every episode that the request selects, in the adapter's order.

    Raises:
        ConfigError: nothing matches, or the set cannot be listed.
    """
    return list(_discovered(request, info))


def _discovered(request: Request, info: SourceInfo) -> Iterator[EpisodeRef]:
    """`discover`, one at a time."""
    adapter = adapter_for(request.source)
    seen: set[str] = set()
    num_selected = 0
    with _unusable_set(request.root):
        for ref_found in adapter.discover(request.root, info):
            ref = _renamed(ref_found, seen) if ref_found.episode_id in seen else ref_found
            seen.add(ref.episode_id)
            if request.select is None or fnmatchcase(ref.episode_id, request.select):
                num_selected += 1
                yield ref
            if request.limit is not None and num_selected >= request.limit:
                break
    if not num_selected:
        none = (
            f"no episode matches {request.select!r}"
            if request.select
            else "the raw data contains no episode"
        )
        raise ConfigError(
            none,
            remedy="check the path and --select; `eicorpus list sources` lists the sources",
            where=str(request.root),
        )


@contextmanager
def _unusable_set(root: Path) -> Iterator[None]:
    """What an adapter raises of the set as a whole stops the run before any work; of an episode, `load` raises it.

    Raises:
        ConfigError: with the code of the SourceError, where it was one.
    """
    try:
        yield
    except SourceError as error:
        message = f"the dataset cannot be read: {error}"
        raise ConfigError(
            message, remedy="download this file again, or exclude its dataset", where=str(root)
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(root))}", where=str(root)
        ) from error


def _renamed(ref: EpisodeRef, seen: set[str]) -> EpisodeRef:
    """A second episode of one name, quarantined under a name of its own, because the id is ambiguous."""
    number = next(n for n in range(2, len(seen) + 3) if f"{ref.episode_id}#{n}" not in seen)
    problem = f"duplicate episode id {ref.episode_id!r}; give each episode a unique id"
    name = f"{ref.episode_id}#{number}"
    return replace(ref, episode_id=name, problem=(Code.BAD_ANNOTATION.value, problem))


def _check_urdf(request: Request, refs: list[EpisodeRef]) -> None:
    """A URDF of another robot is the caller's mistake: found out on the first episode that loads, before any work.

    Raises:
        ConfigError: the URDF is not of this body.
    """
    if request.assets.urdf is None:
        return
    adapter = adapter_for(request.source)
    for ref in [ref for ref in refs if ref.problem is None][:3]:
        try:
            episode = adapter.load(ref)
        except (SourceError, OSError):
            continue  # counted when its turn comes
        robot_for(request.assets, episode.embodiment)
        return


def assets_of(request: Request) -> tuple[Assets, dict[str, str]]:
    """The user's own files that this source is made from, and what they are by content.

    Raises:
        ConfigError: one that is needed is not named, or one cannot be used.
    """
    adapter = adapter_for(request.source)
    needs = set(getattr(adapter, "needs", ()))
    if request.recipe.hands.fit_mano:
        needs.add(MANO)
    assets = request.assets.used_by(needs, getattr(adapter, "uses", ()))
    return assets, assets.content_digests(needs, request.recipe.hands)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """What a corpus holds of a set: what is committed, what was forgotten, by uid, and where it was read.

    Columns, not objects: a million episodes take 40 MB.
    """

    uids: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))  # [n] committed
    digest_number: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    digests: Sequence[str] = ()  # work digests by their number
    forgotten: frozenset[str] = frozenset()
    history: History = field(default_factory=History)
    roots: frozenset[str] = frozenset()

    def committed(self, uids: Sequence[str]) -> list[str | None]:
        """Of each uid the digest of the work that was committed; None where nothing was."""
        at = pc.index_in(pa.array(uids, pa.string()), value_set=self.uids).to_pylist()
        return [None if i is None else self.digests[self.digest_number[i]] for i in at]


_DIGEST_COLUMNS = ["recipe_digest", "adapter_version", "options_digest"]


def _known(corpus: CorpusLayout, current: Snapshot, info: SourceInfo) -> _Known:
    here = (pc.field("source") == info.source) & (pc.field("dataset") == info.dataset)
    rows = current.read(corpus.root, "episodes", ["uid", *_DIGEST_COLUMNS], only=here)
    sources = current.read(corpus.root, "sources", ["root"], only=here)
    number, digests = _numbered_digests(rows)
    return _Known(
        uids=rows["uid"].combine_chunks(),
        digest_number=number,
        digests=digests,
        forgotten=frozenset(row.uid for row in tombstones(corpus.root, current)),
        history=read_history(corpus.ledger),
        roots=frozenset(sources["root"].to_pylist()),
    )


def _numbered_digests(rows: pa.Table) -> tuple[npt.NDArray[np.int32], list[str]]:
    """[n] the number of each row's work digest, and the digests: few, however many rows there are."""
    whole = pa.StructArray.from_arrays(
        [rows[name].combine_chunks() for name in _DIGEST_COLUMNS], names=_DIGEST_COLUMNS
    )
    number = np.zeros(len(rows), dtype=np.int64)
    for name in _DIGEST_COLUMNS:  # Arrow does not encode structs
        coded = whole.field(name).dictionary_encode("encode")
        number = number * (len(coded.dictionary) + 1) + coded.indices.to_numpy()
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    digests = [
        digest_of(row["recipe_digest"], row["adapter_version"], row["options_digest"] or "")
        for row in whole.take(pa.array(first)).to_pylist()
    ]
    return number.astype(np.int32), digests


def files_of(request: Request, todo: Sequence[EpisodeRef]) -> list[Path]:
    """Files that a worker will need, sampled: below the root, of episodes spread over the plan, and of what the options name.

    Objects of a bucket are left out: each machine lists them and compares the list with that of the driver.
    """
    refs = () if request.bucket else spread(todo, SAMPLED_EPISODES)
    named = [Path(ref.root, value) for ref in refs for value in _texts(ref.locator)]
    assets = (request.assets.mano_dir, request.assets.urdf, request.assets.camera_poses)
    others = [Path(value) for value in (*request.options.values(), *assets) if value]
    existing = [path for path in (*named, *others) if path.exists()]
    roots = () if request.bucket else (request.root,)
    return [file for path in (*roots, *existing) for file in sampled_files(path)]


def _texts(value: Any) -> Iterator[str]:
    """Every text in a locator that could be a path."""
    if isinstance(value, str):
        if value and "\0" not in value and len(value) < 1024:
            yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _texts(each)


def _batched(refs: Iterator[EpisodeRef]) -> Iterator[list[EpisodeRef]]:
    while batch := list(islice(refs, BATCH)):
        yield batch


def make_plan(request: Request, corpus: CorpusLayout | None, current: Snapshot) -> Plan:
    """Survey, discover, and leave out what earlier runs finished; `corpus` None plans for an empty one."""
    info, version = survey(request)
    assets, digests = assets_of(request)
    options = options_digest({**request.options, **digests})
    digest = work_digest(request.recipe, version, options)
    known = _Known() if corpus is None else _known(corpus, current, info)
    todo, poisoned, forgotten = [], [], []
    done = stale = 0
    for number, refs in enumerate(_batched(_discovered(request, info))):
        if not number:
            _check_urdf(request, refs)
        uids = [ref.uid for ref in refs]
        for ref, uid, before in zip(refs, uids, known.committed(uids), strict=True):
            if before is not None:
                done += before == digest
                stale += before != digest
            elif uid in known.forgotten and not request.restore:
                forgotten.append(ref)
            elif uid in known.history.poisoned and not request.retry_crash_looping:
                poisoned.append((ref, *known.history.poisoned[uid]))
            else:
                todo.append(ref)
    others = tuple(sorted(known.roots - {request.place}))
    if others and done + stale and not request.has_moved:
        problem = (
            f"{done + stale} episodes with these ids were ingested from {' and '.join(others)}"
        )
        raise ConfigError(
            problem,
            remedy="add --moved if the data was moved; for a different dataset add --option name=... if the source has that option",
            where=request.place,
        )
    return Plan(
        info=info,
        adapter_version=version,
        options_digest=options,
        assets=assets,
        digest=digest,
        todo=tuple(todo),
        done=done,
        stale=stale,
        poisoned=tuple(poisoned),
        forgotten=tuple(forgotten),
        other_roots=others,
    )
