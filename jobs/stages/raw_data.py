"""Raw data of `ingest` and `doctor`: a local path, or a URI whose objects a local tree stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.storage.store_uri import OBJECT_SCHEMES, scheme_of
from jobs.ui.options import CACHE_GB, cache_folder, uri_of
from jobs.ui.output import progress_of, size_text, stderr
from schemas.errors import ConfigError, InvariantError
from schemas.paths import check_local

if TYPE_CHECKING:
    from ingest.raw_data.bucket_source import BucketSource

GB = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCache:
    """Where objects of buckets are kept on this machine, and how much of them."""

    folder: Path = field(default_factory=cache_folder)
    gb: float = CACHE_GB


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """Where adapters read. `uri` is "" for a local path; `bucket` fetches objects when they are opened."""

    root: Path
    uri: str = ""
    bucket: BucketSource | None = None


@contextmanager
def raw_data(place: str, cache_dir: Path, cache_gb: float) -> Iterator[RawData]:
    """`listed_raw` and `reading_raw`."""
    raw = listed_raw(place, cache_dir, cache_gb)
    with reading_raw(raw):
        yield raw


@contextmanager
def reading_raw(raw: RawData) -> Iterator[None]:
    """While the block runs, files of the raw data can be opened."""
    if raw.bucket is None:
        yield
        return
    from ingest.raw_data.bucket_source import reading

    with reading(raw.bucket):
        yield


def listed_raw(place: str, cache_dir: Path, cache_gb: float) -> RawData:
    """The raw data at a path or URI. Shows progress on standard error.

    Raises:
        ConfigError: an unknown kind of URI, or nothing is there.
        TransientError: the store or the disk fails.
    """
    scheme = scheme_of(place)
    if not scheme:
        return RawData(root=Path(place).absolute())
    if scheme == "hf":
        uri = uri_of(place)
        return RawData(root=_downloaded(uri, cache_dir), uri=uri)
    if scheme in OBJECT_SCHEMES and scheme != "memory":
        from ingest.raw_data.bucket_source import fetch_metadata, listed

        uri = uri_of(place).rstrip("/")
        with progress_of("listing the bucket"):
            bucket = listed(uri, cache_dir, int(cache_gb * GB))
        size = size_text(bucket.num_bytes)
        line = f"{uri}: {bucket.num_objects:,} objects, {size}; cache: {cache_dir}"
        stderr.print(line, markup=False, highlight=False, soft_wrap=True)
        if bucket.metadata:
            with progress_of("metadata files", len(bucket.metadata)) as progress:
                fetch_metadata(bucket, progress)
        return RawData(root=Path(bucket.source.root), uri=uri, bucket=bucket.source)
    check_local(Path(place), "PATH")
    raise InvariantError(f"{place} is no local path")


def _downloaded(uri: str, cache_dir: Path) -> Path:
    """A dataset repository of the Hugging Face Hub, whole: huggingface_hub fetches files and no parts of them."""
    from ingest.export.hub import hub_at
    from ingest.storage.lock_file import held_alone

    hub = hub_at(uri)
    with progress_of("listing the repository"):
        stored = hub.look()
    if stored is None or not stored.files:
        raise ConfigError(
            "nothing is there, or you have no access",
            remedy="correct the name, or run `hf auth login`",
            where=uri,
        )
    owner, name = hub.address.removeprefix("hf://datasets/").partition("@")[0].split("/")
    folder = cache_dir / "hf" / f"{owner}--{name}" / stored.revision / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"the cache cannot be written: {error.strerror}"
        raise ConfigError(problem, remedy="use another --cache-dir", where=str(folder)) from error
    with held_alone(folder.parent / "lock", wait_s=3600):
        missing = hub.differing(stored, sorted(stored.files), folder)
        if missing:
            size = size_text(sum(stored.files[each] for each in missing))
            stderr.print(f"{uri}: {size} into {folder}", markup=False, highlight=False)
            with progress_of("files", len(missing)) as progress:
                hub.download(stored, missing[:-1], missing[-1], folder, progress)
    return folder
