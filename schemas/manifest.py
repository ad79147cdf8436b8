"""What a training run saw, exactly: one row for each segment and one page about them. What a trainer reads, and nothing else.

`manifests/<name>/manifest.parquet` holds the rows, sorted by uid and start; `manifest.json` says from what and by which rules they were
chosen, how many hours of what there are, and how to normalise the trained representation (`schemas/trained_action.py`).

`weight` is the chance that a draw is from this segment; inside a segment every timestep is as likely as the next. It sums to 1
over each split. `rows_sha256` is of the rows' content, not of Parquet bytes, which change with the writer's version; `page_sha256`
is of the page, without itself.

A manifest of a corpus spec (`eicorpus build`) has versions, each named by the digest of its content: `manifests/<name>/<version>/` holds the two
files, and `manifests/<name>/newest.json` names the newest. Opened by its name alone, the newest version is read.

`eicorpus forget` takes rows out of manifests, the one way in which one changes: `redaction.json` says how many of which place, and what
digest the others have.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.catalog import MOST_FRAMES
from schemas.errors import ConfigError, SourceError
from schemas.invalid import invalid, reason
from schemas.json_text import JsonLimits, read_json
from schemas.latents import TEXT_CAMERA, latent_file
from schemas.parquet_file import columns_sha256, read_table
from schemas.paths import within

VERSION_NAME = re.compile(r"[0-9a-f]{16}")
VERSION = 2  # a reader refuses a higher one; 2 has latents in packs
FOLDER = "manifests"
ROWS_FILE, FACTS_FILE = "manifest.parquet", "manifest.json"
ERASED_FILE = "erased.json"  # beside the manifests: places whose episode was forgotten since (`eicorpus forget`)
PAGE_DIGEST = "page_sha256"  # key of `manifest.json`: the digest of all others
NEWEST_FILE = "newest.json"  # beside the versions of a manifest: {"version": ...}
REDACTION_FILE = "redaction.json"  # beside the rows: which of them an erasure took out
NEWEST_LIMITS = JsonLimits(max_bytes=1 << 12, max_elements=10)
# Normalisation of hundreds of embodiments, thousands of groups, whole policies and mixtures.
FACTS_LIMITS = JsonLimits(max_bytes=32 << 20, max_elements=1 << 20)
# `erased.json` and `redaction.json`: a million places of four elements and 100 bytes.
ERASED_LIMITS = JsonLimits(max_bytes=128 << 20, max_elements=1 << 22)

LATENT = pa.struct(
    [
        ("camera", pa.string()),
        ("encoder_id", pa.string()),
        ("path", pa.string()),  # relative to the corpus
        ("sha256", pa.string()),
        (
            "pack_offset",
            pa.int64(),
        ),  # of its first byte in the pack `path`; NULL: `path` is the file
        ("num_bytes", pa.int64()),  # of a member of a pack; NULL: all of the file
    ]
)
ROW_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("start", pa.int64()),  # timesteps [start, end) of the episode
        ("end", pa.int64()),
        ("source", pa.string()),
        ("embodiment", pa.string()),
        ("dataset_path", pa.string()),  # relative to the corpus
        ("episode_index", pa.int64()),
        ("tier", pa.string()),  # high | low | actionless
        ("tasks", pa.list_(pa.string())),  # what it may supervise: schemas/supervision.py
        ("reasons", pa.list_(pa.string())),  # of the tier
        ("split", pa.string()),  # train | val | test
        ("weight", pa.float64()),
        ("text", pa.string()),  # the instruction
        ("caption_id", pa.string()),  # NULL: the text is the source's own
        ("latents", pa.list_(LATENT)),
        ("licence_class", pa.string()),
        ("content_sha256", pa.string()),  # of the episode, as it was committed
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """One file of latents of the episode."""

    camera: str
    encoder_id: str
    path: str
    sha256: str
    pack_offset: int | None = None
    num_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One segment. Fields as in ROW_SCHEMA."""

    uid: str
    start: int
    end: int
    source: str
    embodiment: str
    dataset_path: str
    episode_index: int
    tier: str
    tasks: tuple[str, ...]
    reasons: tuple[str, ...]
    split: str
    weight: float
    text: str
    caption_id: str | None
    latents: tuple[Latent, ...]
    licence_class: str
    content_sha256: str


class _Page(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicyFacts(_Page):
    """The tier policy as it was: its whole text, so that the file is not needed."""

    name: str
    digest: str
    text: str


class SplitFacts(_Page):
    """By which group the rows were dealt, at which shares of the groups; whether a source's own val and test were kept."""

    by: str
    val: float
    test: float
    keeps_source_splits: bool = True


class SourceSplitCount(_Page):
    """Of the split that a source publishes ("" none), what is in one split of the manifest."""

    source_split: str
    split: str
    episodes: int
    segments: int
    hours: float


class MixtureGroup(_Page):
    """One line of the table of effective epochs: `hours` there are, `share` of the draws, and how often that reads each hour."""

    group: dict[str, str]
    hours: float
    share: float
    epochs: float
    rule: str


class MixtureFacts(_Page):
    """The mixture's text (empty without one), and what came of it over the hours that a training run draws."""

    text: str
    digest: str
    by: tuple[str, ...]
    draw_hours: float
    groups: tuple[MixtureGroup, ...]


class Normalisation(_Page):
    """Of E elements of the trained representation over one embodiment's train segments that supervise actions.

    `count` is exact; `mean` and `std` (population) are of float64; `q01` and `q99` are the smallest value that so many do not exceed,
    from a histogram: off by at most `quantile_error` times sqrt(x^2 + 1e-8). None where count is 0.
    """

    names: tuple[str, ...]
    count: tuple[int, ...]
    mean: tuple[float | None, ...]
    std: tuple[float | None, ...]
    q01: tuple[float | None, ...]
    q99: tuple[float | None, ...]
    min: tuple[float | None, ...]
    max: tuple[float | None, ...]
    segments: int

    def array(self, field: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[E] one of the statistics, NaN where there is none."""
        return np.array(getattr(self, field), dtype=np.float64)


class Statistics(_Page):
    """Normalisation of each embodiment, and what of."""

    representation: str
    quantile_error: float
    embodiments: dict[str, Normalisation]


class ManifestFacts(_Page):
    """`manifest.json`."""

    manifest_version: int
    name: str
    corpus_uid: str
    snapshot: int
    where: str
    text_policy: str  # source | caption | best
    policy: PolicyFacts
    split: SplitFacts
    mixture: MixtureFacts
    num_rows: int
    num_episodes: int
    num_serving_nothing: int = 0  # segments that were left out because they may supervise no task
    source_splits: tuple[SourceSplitCount, ...] = ()  # nothing where no source publishes splits
    hours: dict[str, dict[str, float]]
    reviews_sha256: str = ""  # of the reviews in force at the snapshot; "" without any
    rows_sha256: str
    statistics: Statistics | None


class ErasedRows(_Page):
    """So many rows of this place were taken out."""

    dataset_path: str
    episode_index: int
    num_rows: int


class Redaction(_Page):
    """`redaction.json`. `rows_sha256`: what the rows left had for a digest after each erasure; the name of the manifest stays the
    digest that it was published with."""

    rows_sha256: tuple[str, ...] = ()
    erased: tuple[ErasedRows, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """A manifest that is what it says it is. `corpus` is where its paths start.

    Rows of episodes that were forgotten since are not there; `num_erased` of them, so that weights sum to less than 1.
    """

    corpus: Path
    facts: ManifestFacts
    rows: pa.Table  # ROW_SCHEMA
    num_erased: int = 0

    @staticmethod
    def load(folder: Path | str) -> Manifest:
        """Read `CORPUS/manifests/NAME`; raises as the function `load`."""
        return load(Path(folder))

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def row(self, index: int) -> ManifestRow:
        """One segment."""
        return next(_rows_of(self.rows.slice(index, 1)))

    def of_split(self, split: str) -> Manifest:
        """The rows of one split only."""
        kept = self.rows.filter(pc.equal(self.rows["split"], split))
        return Manifest(corpus=self.corpus, facts=self.facts, rows=kept)


def load(folder: Path) -> Manifest:
    """Read `CORPUS/manifests/<name>` and check it against its own digest.

    Raises:
        ConfigError: no manifest there, one of a newer version, or a page or rows that are not those it was published with.
        OutsideCorpus: it is a link, or has one.
    """
    folder = newest_version(Path(os.path.abspath(folder)))
    manifests = _manifests_of(folder)
    within(manifests.parent, folder.relative_to(manifests.parent).as_posix())
    facts = load_facts(folder)
    rows = load_rows(folder)
    redaction = load_redaction(folder)
    if (digest := rows_sha256(rows)) not in {facts.rows_sha256, *redaction.rows_sha256}:
        message = (
            f"the rows have digest {digest}; the manifest was published with {facts.rows_sha256}"
        )
        raise ConfigError(message, remedy=how_to_mend(folder), where=str(folder))
    if wrong := odd_num_rows(facts, rows.num_rows, redaction):
        raise ConfigError(wrong, remedy=how_to_mend(folder), where=str(folder))
    _check_numbers(rows, folder)
    left = _without_erased(rows, manifests)
    num_erased = facts.num_rows - left.num_rows
    return Manifest(corpus=manifests.parent, facts=facts, rows=left, num_erased=num_erased)


def _check_numbers(rows: pa.Table, folder: Path) -> None:
    """An untrusted number never sizes an allocation.

    Raises:
        ConfigError: a segment begins or ends where no episode does.
    """
    for name, most in (("start", MOST_FRAMES), ("end", MOST_FRAMES), ("episode_index", None)):
        least, largest = (pc.min_max(rows[name])[key].as_py() for key in ("min", "max"))
        if least is not None and (least < 0 or (most is not None and largest > most)):
            bad = least if least < 0 else largest
            problem = f"column {name} contains {bad}, which is out of range"
            raise ConfigError(problem, remedy=how_to_mend(folder), where=str(folder))


def _without_erased(rows: pa.Table, manifests: Path) -> pa.Table:
    """By place, not by uid: a forgotten episode that was restored has another place."""
    path = within(manifests, ERASED_FILE)
    if not path.is_file():
        return rows
    try:
        listed = read_json(path, limits=ERASED_LIMITS)["erased"]
        places = {(str(place["dataset_path"]), int(place["episode_index"])) for place in listed}
    except (SourceError, ValueError, KeyError, TypeError) as error:
        message = f"damaged ({error!r})"
        raise ConfigError(
            message,
            remedy="remove it and run `eicorpus gc`, which writes it again",
            where=str(path),
        ) from error
    pairs = zip(rows["dataset_path"].to_pylist(), rows["episode_index"].to_pylist(), strict=True)
    return rows.filter(pa.array([pair not in places for pair in pairs], pa.bool_()))


def odd_num_rows(facts: ManifestFacts, num_rows: int, redaction: Redaction) -> str:
    """What is wrong with the number of rows, or nothing: as published, or less by no more than was taken out."""
    most_out = sum(each.num_rows for each in redaction.erased)
    if facts.num_rows - most_out <= num_rows <= facts.num_rows:
        return ""
    taken = f", of which {most_out} were removed" if most_out else ""
    return f"num_rows in {FACTS_FILE} is {facts.num_rows}{taken}; the file has {num_rows} rows"


def newest_version(folder: Path) -> Path:
    """The newest version of a manifest that has versions; `folder` itself for any other, and for a version.

    Raises:
        ConfigError: the file that names the newest version is damaged, or names none.
    """
    path = within(folder, NEWEST_FILE)
    if not path.is_file():
        return folder
    try:
        version = str(read_json(path, limits=NEWEST_LIMITS)["version"])
    except (SourceError, ValueError, KeyError, TypeError) as error:
        remedy = "run `eicorpus build` with the spec of this corpus"
        raise ConfigError(f"damaged ({error!r})", remedy=remedy, where=str(path)) from error
    if not VERSION_NAME.fullmatch(version):
        raise ConfigError(f"{version!r} is not the name of a version", where=str(path))
    return within(folder, version)


def is_version(folder: Path) -> bool:
    """Whether a folder is a version of a manifest: manifests/NAME/VERSION."""
    return (
        folder.parent.name != FOLDER
        and folder.parent.parent.name == FOLDER
        and VERSION_NAME.fullmatch(folder.name) is not None
    )


def _manifests_of(folder: Path) -> Path:
    """The folder of all manifests of the corpus that a manifest or a version of one is in."""
    return folder.parent.parent if is_version(folder) else folder.parent


def how_to_mend(folder: Path) -> str:
    """What a person does about a manifest that was changed."""
    if is_version(folder):
        return (
            "restore it, or remove its folder and run `eicorpus build` with the spec of this corpus"
        )
    again = f"eicorpus manifest build {folder.name}"
    return f"restore it, or remove its folder and run `{again}` with the options it was built with"


def load_facts(folder: Path) -> ManifestFacts:
    """`manifest.json` alone; the rows are not looked at.

    Raises:
        ConfigError: it is missing, damaged, of a newer version, or not as it was published.
    """
    facts, wrong = read_page(folder)
    if wrong:
        where = str(folder / FACTS_FILE)
        raise ConfigError(wrong, remedy=how_to_mend(folder), where=where)
    return facts


def read_page(folder: Path) -> tuple[ManifestFacts, str]:
    """`manifest.json`, and what its digest says against it: nothing for a page as it was published.

    Raises:
        ConfigError: it is missing, damaged, or of a newer version.
    """
    path = within(folder, FACTS_FILE)
    if not path.is_file():
        actual = f"no {FACTS_FILE}; expected a folder made by `eicorpus manifest build`"
        raise ConfigError(
            actual,
            remedy="pass CORPUS/manifests/NAME, or build the manifest with `eicorpus manifest build`",
            where=str(folder),
        )
    try:
        raw = read_json(path, limits=FACTS_LIMITS)
        version = int(raw["manifest_version"])
    except (SourceError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"damaged ({error!r})", remedy="build it again", where=str(path)
        ) from error
    if version > VERSION:
        actual = f"manifest version {version}; this eicorpus reads up to version {VERSION}"
        raise ConfigError(actual, remedy="install a newer eicorpus", where=str(path))
    stated = raw.pop(PAGE_DIGEST, None)
    actual = page_sha256(raw)
    wrong = f"the digest of the page is {actual}; the manifest was published with {stated}"
    if stated is None:
        wrong = f"the page has no {PAGE_DIGEST}: it was edited, or an older eicorpus wrote it"
    try:
        return ManifestFacts.model_validate(raw), "" if stated == actual else wrong
    except ValidationError as error:
        raise ConfigError(
            f"damaged ({invalid(error)})", remedy="build it again", where=str(path)
        ) from error


def page_of(facts: ManifestFacts) -> dict[str, Any]:
    """The content of `manifest.json`: the facts, and the digest of them last."""
    page = facts.model_dump(mode="json")
    return {**page, PAGE_DIGEST: page_sha256(page)}


def page_sha256(page: Mapping[str, Any]) -> str:
    """sha256 of the facts of a page as JSON without layout, keys sorted: a different layout changes nothing."""
    content = json.dumps(page, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


def load_redaction(folder: Path) -> Redaction:
    """What was taken out of a manifest since it was published; nothing where no erasure was.

    Raises:
        ConfigError: the file is damaged.
    """
    path = within(folder, REDACTION_FILE)
    if not path.is_file():
        return Redaction()
    try:
        return Redaction.model_validate(read_json(path, limits=ERASED_LIMITS))
    except (SourceError, ValueError) as error:
        message = f"damaged ({reason(error, Redaction)})"
        raise ConfigError(
            message, remedy="restore it, or build the manifest again", where=str(path)
        ) from error


def load_rows(folder: Path, names: Sequence[str] = tuple(ROW_SCHEMA.names)) -> pa.Table:
    """The rows, unchecked but for their columns.

    Args:
        names: only these columns.

    Raises:
        ConfigError: no whole Parquet file with the columns of a manifest.
    """
    schema = pa.schema([ROW_SCHEMA.field(name) for name in names])
    return read_table(within(folder, ROWS_FILE), names, schema=schema, remedy="build it again")


def version_for(rows: pa.Table) -> int:
    """The least version whose readers understand these rows."""
    offsets = pc.struct_field(rows["latents"].combine_chunks().flatten(), "pack_offset")
    return VERSION if offsets.null_count < len(offsets) else 1


def has_latents(rows: pa.Table) -> bool:
    """Whether any row names a file of latents of a camera; those without a camera are features of texts."""
    cameras = pc.struct_field(rows["latents"].combine_chunks().flatten(), "camera")
    return bool(pc.any(pc.not_equal(cameras, "")).as_py())


def rows_at(table: pa.Table, index: npt.NDArray[np.int64]) -> list[ManifestRow]:
    """Some rows, in the order asked for."""
    return list(_rows_of(table.take(pa.array(index))))


def _rows_of(table: pa.Table) -> Iterator[ManifestRow]:
    for row in table.to_pylist():
        plural = {name: tuple(row[name]) for name in ("tasks", "reasons")}
        latents = tuple(Latent(**latent) for latent in row["latents"])
        yield ManifestRow(**{**row, **plural, "latents": latents})


def rows_sha256(table: pa.Table) -> str:
    """sha256 of the content of rows in ROW_SCHEMA, whatever chunks, offsets or machine hold them.

    Latents count by what they are, not by where they lie: those in a pack as if each file had its own name, as in version 1.
    """
    rows = table.select(ROW_SCHEMA.names).cast(ROW_SCHEMA)
    at = ROW_SCHEMA.names.index("latents")
    alone = pa.field("latents", pa.list_(_ALONE))
    return columns_sha256(rows.set_column(at, alone, _latents_alone(rows)))


_ALONE = pa.struct([LATENT.field(name) for name in ("camera", "encoder_id", "path", "sha256")])


def _latents_alone(rows: pa.Table) -> pa.Array:
    """[S] lists of _ALONE."""
    lists = rows["latents"].combine_chunks()
    flat = lists.flatten()
    columns = [pc.struct_field(flat, field.name) for field in _ALONE]
    packed = np.flatnonzero(pc.is_valid(pc.struct_field(flat, "pack_offset")).to_numpy(False))  # noqa: FBT003
    if len(packed):
        columns[2] = _paths_alone(rows, lists, columns, packed)
    structs = pa.StructArray.from_arrays(columns, fields=list(_ALONE))
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = pc.is_null(lists) if lists.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), structs, mask=mask)


def _paths_alone(
    rows: pa.Table, lists: pa.Array, columns: Sequence[pa.Array], packed: npt.NDArray[np.int64]
) -> pa.Array:
    """The paths, of members of packs those that they would have alone."""
    row = pc.list_parent_indices(lists).to_numpy()[packed]
    datasets = rows["dataset_path"].take(pa.array(row)).to_pylist()
    numbers = rows["episode_index"].take(pa.array(row)).to_pylist()
    cameras, encoders = (columns[n].take(pa.array(packed)).to_pylist() for n in (0, 1))
    named = [
        f"{of}/{latent_file(encoder, camera or TEXT_CAMERA, number)}"
        for of, number, camera, encoder in zip(datasets, numbers, cameras, encoders, strict=True)
    ]
    is_packed = np.zeros(len(columns[2]), dtype=bool)
    is_packed[packed] = True
    return pc.replace_with_mask(columns[2], pa.array(is_packed), pa.array(named, pa.string()))
