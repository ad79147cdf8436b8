"""Which latent files a corpus lacks or has for another video, what they cost, and where each one goes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pyarrow.compute as pc

from ingest.catalog.catalog import Catalog
from ingest.corpus.commit import datasets_without_episodes
from ingest.corpus.layout import CorpusLayout, video_file
from ingest.corpus.snapshot import Snapshot
from schemas.committed_rows import LatentRow
from schemas.errors import ConfigError
from schemas.latent_header import span_of
from schemas.latent_pack import MAX_FILES, member_name, pack_file
from schemas.latents import LatentFacts, is_of_actions, latent_file
from schemas.text_features import is_of_text

_KEY = ["uid", "camera"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderState:
    """In files, one for each camera of each episode, of latent actions for each episode. `missing`: videos or episodes without latents of this encoder."""

    encoder_id: str
    up_to_date: int
    other_video: int
    orphaned: int  # of an episode or a camera that is not in the corpus any more
    missing: int

    @property
    def stale(self) -> int:
        return self.other_video + self.orphaned

    @property
    def reason(self) -> str:
        counts = {
            "of a video that changed since": self.other_video,
            "of an episode that was removed": self.orphaned,
        }
        return "; ".join(f"{count} {what}" for what, count in counts.items() if count)


def encoder_states(corpus: Path, current: Snapshot) -> Iterator[EncoderState]:
    """By encoder id; text features are made of more than a video and not looked at."""
    only = pc.field("kind") == "video"
    videos = pl.DataFrame(current.read(corpus, "artifacts", [*_KEY, "sha256"], only=only))
    uids = pl.DataFrame(current.read(corpus, "episodes", ["uid"]))
    videos = videos.unique(_KEY, keep="last").join(uids, on="uid", how="semi")
    rows = pl.DataFrame(
        current.read(corpus, "latents", [*_KEY, "encoder_id", "video_sha256", "run_id"])
    ).sort("run_id", maintain_order=True)
    for encoder_id in sorted(set(rows["encoder_id"])):
        if is_of_text(encoder_id):
            continue
        of_encoder = rows.filter(pl.col("encoder_id") == encoder_id).unique(_KEY, keep="last")
        both = of_encoder.join(videos, on=_KEY, how="left")
        is_same = (both["video_sha256"] == both["sha256"]).fill_null(value=False)
        num_erased = both["sha256"].null_count()
        # latent actions lie under one camera of each episode
        num_wanted = videos["uid"].n_unique() if is_of_actions(encoder_id) else len(videos)
        yield EncoderState(
            encoder_id=encoder_id,
            up_to_date=int(is_same.sum()),
            other_video=len(both) - int(is_same.sum()) - num_erased,
            orphaned=num_erased,
            missing=num_wanted - (len(both) - num_erased),
        )


_EPISODES = ["uid", "dataset_path", "episode_index", "length", "cameras"]
_ROWS = ["uid", "camera", "encoder_id", "path", "num_bytes", "video_sha256", "run_id"]
_ROWS += ["pack_offset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLatentFile:
    """One camera of one episode: what is read and where its latents go. Small enough to travel."""

    corpus: str
    uid: str
    camera: str
    dataset_path: str
    episode_index: int
    length: int  # timesteps
    rate_hz: float
    video_num_bytes: int
    video_sha256: str

    @property
    def video(self) -> str:
        """Its video, relative to the corpus."""
        key = f"observation.images.{self.camera}"
        return f"{self.dataset_path}/{video_file(self.episode_index, key)}"

    def target(self, encoder_id: str) -> str:
        """Its file of latents, relative to the corpus."""
        return f"{self.dataset_path}/{latent_file(encoder_id, self.camera, self.episode_index)}"

    def num_pictures(self, grid_stride: int) -> int:
        return -(-self.length // grid_stride)

    def row(
        self,
        facts: LatentFacts,
        *,
        num_bytes: int,
        sha256: str,
        pack: str = "",
        pack_offset: int | None = None,
    ) -> LatentRow:
        """The catalog row without its run. `num_bytes` and `sha256` are of the file whose header is `facts`; `pack_offset` is its offset in `pack`."""
        return LatentRow(
            uid=self.uid,
            camera=self.camera,
            encoder_id=facts.encoder_id,
            path=pack or self.target(facts.encoder_id),
            num_frames=facts.num_frames,
            dtype=facts.dtype,
            sha256=sha256,
            video_sha256=self.video_sha256,
            num_bytes=num_bytes,
            run_id="",
            pack_offset=pack_offset,
        )

    @property
    def member(self) -> str:
        """Its name in a pack."""
        return member_name(self.episode_index, self.camera)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How files are put into packs: each but the last of a dataset has at least `pack_bytes`. `picture_bytes`: of one picture."""

    encoder_id: str
    pack_bytes: int
    picture_bytes: int
    grid_stride: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentUnit:
    """Files that are encoded in one go and committed together: those of a pack, or one of its own (`pack` ""). `pack` is relative to the corpus."""

    files: tuple[PlannedLatentFile, ...]
    pack: str = ""

    @staticmethod
    def packed(files: tuple[PlannedLatentFile, ...], encoder_id: str, run_id: str) -> LatentUnit:
        """The same files give the same name. What a killed run left is removed by recovery. `run_id` is "" where one machine at a time
        encodes.
        """
        names = [run_id, encoder_id, *(f"{f.uid} {f.camera} {f.video_sha256}" for f in files)]
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return LatentUnit(
            files=files, pack=f"{files[0].dataset_path}/{pack_file(encoder_id, digest)}"
        )

    def again(self) -> LatentUnit:
        """The same under another name: who makes this one may be out of reach and not at an end."""
        if not self.pack:
            return self
        folder, _, name = self.pack.rpartition("/")
        digest = hashlib.sha256(f"again {name}".encode()).hexdigest()
        return replace(self, pack=f"{folder}/{digest[:16]}.tar")


def units_of(
    files: Iterator[PlannedLatentFile], packing: Packing | None, run_id: str
) -> Iterator[LatentUnit]:
    """Neighbours of one dataset in a pack. The same files and `run_id` give the same packs."""
    if packing is None:
        yield from (LatentUnit(files=(file,)) for file in files)
        return
    group: list[PlannedLatentFile] = []
    fill = _Fill(packing)
    for file in files:
        if fill.begins_a_pack(file.dataset_path, file.num_pictures(packing.grid_stride)) and group:
            yield LatentUnit.packed(tuple(group), packing.encoder_id, run_id)
            group = []
        group.append(file)
    if group:
        yield LatentUnit.packed(tuple(group), packing.encoder_id, run_id)


class _Fill:
    """Where one pack ends and the next begins, file by file."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._dataset_path, self._files, self._bytes = "", 0, 0

    def begins_a_pack(self, dataset_path: str, num_pictures: int) -> bool:
        """Whether the next file is the first of a pack."""
        is_full = self._bytes >= self._packing.pack_bytes or self._files == MAX_FILES
        is_first = not self._files or is_full or dataset_path != self._dataset_path
        if is_first:
            self._dataset_path, self._files, self._bytes = dataset_path, 0, 0
        self._files += 1
        self._bytes += num_pictures * self._packing.picture_bytes
        return is_first


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentTodo:
    """`due` has a row for each file to make: the fields of PlannedLatentFile but `corpus`, sorted by dataset, episode and camera."""

    corpus: CorpusLayout
    due: pl.DataFrame
    up_to_date: int
    num_episodes: int  # that lack anything

    def __len__(self) -> int:
        return len(self.due)

    def files(self) -> Iterator[PlannedLatentFile]:
        root = str(self.corpus.root.absolute())
        for row in self.due.iter_rows(named=True):
            yield PlannedLatentFile(corpus=root, **row)

    def cameras(self) -> dict[str, int]:
        """Files to make, by camera."""
        counts = self.due.group_by("camera").len().sort("camera")
        return dict(counts.iter_rows())

    def num_units(self, packing: Packing | None) -> int:
        """Packs, or files where each is one of its own: as `units_of` gives them."""
        if packing is None:
            return len(self)
        fill = _Fill(packing)
        columns = self.due.select("dataset_path", -(-pl.col("length") // packing.grid_stride))
        return sum(fill.begins_a_pack(*each) for each in columns.iter_rows())

    def num_pictures(self, grid_stride: int) -> int:
        return int((-(-self.due["length"] // grid_stride)).sum()) if len(self) else 0


def todo_of(
    corpus: CorpusLayout,
    current: Snapshot,
    encoder_id: str,
    *,
    cameras: Collection[str] = (),
    where: str = "",
) -> LatentTodo:
    """What is wanted and not there.

    Args:
        cameras: only these; all without any.
        where: an SQL expression over `episodes`, of a stranger.

    Raises:
        ConfigError: no episode has one of the cameras, or the expression is none; the message says which there are.
    """
    due = _selected(corpus, current, cameras, where)
    fresh = _fresh(corpus, current, encoder_id)
    to_encode = due.join(fresh, on=["uid", "camera", "video_sha256"], how="anti")
    return LatentTodo(
        corpus=corpus,
        due=to_encode.sort("dataset_path", "episode_index", "camera"),
        up_to_date=len(due) - len(to_encode),
        num_episodes=to_encode["uid"].n_unique(),
    )


def _selected(
    corpus: CorpusLayout, current: Snapshot, cameras: Collection[str], where: str
) -> pl.DataFrame:
    """One row for each camera of each episode asked for."""
    episodes = pl.DataFrame(current.read(corpus.root, "episodes", _EPISODES))
    if where.strip():
        chosen = _chosen(corpus, current, where)
        episodes = episodes.join(chosen, on="uid", how="semi")
    rates = {
        path: float(d.fps) for path, d in datasets_without_episodes(corpus.root, current).items()
    }
    each = (
        episodes.explode("cameras", empty_as_null=False, keep_nulls=False)
        .with_columns(camera=pl.col("cameras").struct.field("name"))
        .drop("cameras")
    )
    if unknown := sorted(set(cameras) - set(each["camera"])):
        have = ", ".join(sorted(set(each["camera"]))) or "none"
        raise ConfigError(
            f"no episode has {', '.join(unknown)}; available: {have}", where="--camera"
        )
    if cameras:
        each = each.filter(pl.col("camera").is_in(sorted(cameras)))
    only = pc.field("kind") == "video"
    videos = pl.DataFrame(
        current.read(corpus.root, "artifacts", ["uid", "camera", "num_bytes", "sha256"], only=only)
    ).unique(["uid", "camera"], keep="last", maintain_order=True)
    named = videos.rename({"num_bytes": "video_num_bytes", "sha256": "video_sha256"})
    rate = pl.col("dataset_path").replace_strict(rates, return_dtype=pl.Float64)
    # left: a camera whose video the catalog does not know fails later, and does not vanish here
    return (
        each.with_columns(rate_hz=rate)
        .join(named, on=["uid", "camera"], how="left")
        .with_columns(pl.col("video_num_bytes").fill_null(0), pl.col("video_sha256").fill_null(""))
    )


def _chosen(corpus: CorpusLayout, current: Snapshot, where: str) -> pl.DataFrame:
    """uid of the episodes that the expression holds for."""
    with Catalog.open(corpus.root, snapshot=current.number) as catalog:
        try:
            expression = catalog.expression(where, "episodes")
            # Line breaks around it: a comment in it must not swallow the bracket.
            sql = f"SELECT uid FROM episodes WHERE (\n{expression}\n)"
            return pl.DataFrame(catalog.arrow_of_stranger(sql))
        except ConfigError as error:
            raise ConfigError(error.message, remedy=error.remedy, where="--where") from error


def _fresh(corpus: CorpusLayout, current: Snapshot, encoder_id: str) -> pl.DataFrame:
    """uid, camera and video_sha256 of files that are there as they were written."""
    only = pc.field("encoder_id") == encoder_id
    rows = pl.DataFrame(current.read(corpus.root, "latents", _ROWS, only=only))
    newest = rows.sort("run_id", maintain_order=True).unique(
        ["uid", "camera"], keep="last", maintain_order=True
    )
    lies = lies_there(corpus, newest)
    return newest.filter(lies).select("uid", "camera", "video_sha256")


def lies_there(corpus: CorpusLayout, rows: pl.DataFrame) -> pl.Series:
    """[n] whether the file of each row (path, num_bytes, pack_offset) has the size that it was written with, or its pack has room for it."""
    sizes = {path: _size(corpus.path(path)) for path in rows["path"].unique()}
    fits = []
    for path, num_bytes, pack_offset in rows.select("path", "num_bytes", "pack_offset").iter_rows():
        span = span_of(pack_offset, num_bytes)
        fits.append(sizes[path] == num_bytes if span is None else span.fits(sizes[path]))
    return pl.Series(fits, dtype=pl.Boolean)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
