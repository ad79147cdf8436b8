"""Raw data of `ingest` and `doctor`: a local path, or a URI whose objects a local tree stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.storage.store_uri import OBJECT_SCHEMES, scheme_of
from jobs.ui.output import progress_of, size_text, stderr
from schemas.errors import ConfigError
from schemas.paths import check_local

if TYPE_CHECKING:
    from ingest.raw_data.bucket_source import BucketSource

GB = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """Where adapters read. `uri` is "" for a local path; `bucket` fetches objects when they are opened."""

    root: Path
    uri: str = ""
    bucket: BucketSource | None = None


@contextmanager
def raw_data(place: str, cache_dir: Path, cache_gb: float) -> Iterator[RawData]:
    """The raw data at a path or URI, readable while the block runs. Shows progress on standard error.

    Raises:
        ConfigError: an unknown kind of URI, or nothing is there.
        TransientError: the store or the disk fails.
    """
    scheme = scheme_of(place)
    if not scheme:
        yield RawData(root=Path(place).absolute())
    elif scheme == "hf":
        uri = _with_two_slashes(place)
        yield RawData(root=_downloaded(uri, cache_dir), uri=uri)
    elif scheme in OBJECT_SCHEMES and scheme != "memory":
        from ingest.raw_data.bucket_source import fetch_metadata, listed, reading

        uri = _with_two_slashes(place).rstrip("/")
        with progress_of("listing the bucket"):
            bucket = listed(uri, cache_dir, int(cache_gb * GB))
        size = size_text(bucket.num_bytes)
        line = f"{uri}: {bucket.num_objects:,} objects, {size}; cache: {cache_dir}"
        stderr.print(line, markup=False, highlight=False, soft_wrap=True)
        if bucket.metadata:
            with progress_of("metadata files", len(bucket.metadata)) as progress:
                fetch_metadata(bucket, progress)
        with reading(bucket.source):
            yield RawData(root=Path(bucket.source.root), uri=uri, bucket=bucket.source)
    else:
        check_local(Path(place), "PATH")


def _with_two_slashes(place: str) -> str:
    scheme, _, rest = place.partition(":")
    return f"{scheme.lower()}://{rest.lstrip('/')}"


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
