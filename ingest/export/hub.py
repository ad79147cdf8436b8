"""Where a corpus or an export is copied to and from: a dataset repository of the Hugging Face Hub, or a folder of this machine.

Both copy what is missing, and the file that makes the copy readable (`corpus.json`, `eicorpus_export.json`) last. A copy that was
stopped goes on, and cannot be read before it is whole. Names of files at the other end are not trusted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from importlib import import_module
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from ingest.storage.local import LocalStorage, within
from schemas.errors import ConfigError, PipelineError, TransientError

CARD = "README.md"
OF_HUB = frozenset({CARD, ".gitattributes"})  # files of a repository that are not of the corpus
STATE = ".cache"  # of huggingface_hub, in a folder that it downloads to
AGAIN = "run the same command again to resume"
_REPOSITORY = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?:@([^@\s]+))?/?")
Progress = Callable[[int], None]  # takes the files that were copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What lies at the other end. `files`: bytes by path. `revision`: the commit, "" of a folder."""

    files: Mapping[str, int]
    is_private: bool
    revision: str = ""


class Hub(Protocol):
    """One place at the other end."""

    address: str

    def look(self) -> Stored | None:
        """What is there; None for nothing.

        Raises:
            ConfigError: it cannot be read with these rights.
            TransientError: it does not respond.
        """
        ...

    def create(self, *, is_private: bool) -> None:
        """Make the place. Raises as `look`."""
        ...

    def upload(self, folder: Path, names: Sequence[str], progress: Progress) -> None:
        """Copy files of a folder to it. Raises as `look`."""
        ...

    def finish(self, folder: Path, marker: str, card: str, deleted: Sequence[str]) -> None:
        """Copy the marker, with the card where the place shows one, and delete files. Raises as `look`."""
        ...

    def download(
        self, stored: Stored, names: Sequence[str], marker: str, folder: Path, progress: Progress
    ) -> None:
        """Copy files of it to a folder, the marker last. Raises as `look`."""
        ...

    def read(self, stored: Stored, name: str) -> bytes:
        """One file of it. Raises as `look`."""
        ...

    def differing(self, stored: Stored, names: Sequence[str], folder: Path) -> list[str]:
        """Files that a folder lacks or has with another content, as far as the place tells without sending them."""
        ...


def hub_at(address: str) -> HuggingFaceHub | LocalFolder:
    """The place of an address.

    Raises:
        ConfigError: neither hf://datasets/OWNER/NAME[@REVISION] nor file:///DIR.
    """
    if repository := _REPOSITORY.fullmatch(address):
        return HuggingFaceHub(repository[1], repository[2])
    parts = urlsplit(address)
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return LocalFolder(Path(unquote(parts.path)))
    problem = "expected hf://datasets/OWNER/NAME or file:///DIR"
    raise ConfigError(f"{address!r} is no address; {problem}")


# --- a folder of this machine -------------------------------------------------------------------------------------------


class LocalFolder:
    """A folder: a disk that travels, or a mounted share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.address = self.folder.as_uri()

    def look(self) -> Stored | None:
        files = files_below(self.folder)
        return Stored(files=files, is_private=True) if files else None

    def create(self, *, is_private: bool) -> None:
        with _of_disk(str(self.folder)):
            LocalStorage(self.folder).make_dir(self.folder)

    def upload(self, folder: Path, names: Sequence[str], progress: Progress) -> None:
        _copy(folder, self.folder, names, progress)

    def finish(self, folder: Path, marker: str, card: str, deleted: Sequence[str]) -> None:
        disk = LocalStorage(self.folder)
        with _of_disk(str(self.folder)):
            for name in deleted:
                disk.delete(name)
            disk.sync()
        _copy(folder, self.folder, [marker])

    def download(
        self, stored: Stored, names: Sequence[str], marker: str, folder: Path, progress: Progress
    ) -> None:
        _copy(self.folder, folder, names, progress)
        _copy(self.folder, folder, [marker])

    def read(self, stored: Stored, name: str) -> bytes:
        with _of_disk(name):
            return LocalStorage(self.folder).get(name, max_bytes=stored.files[name])

    def differing(self, stored: Stored, names: Sequence[str], folder: Path) -> list[str]:
        own, other = LocalStorage(self.folder), LocalStorage(folder.absolute())
        with _of_disk(str(folder)):
            return [name for name in names if not _is_same(own, other, name)]


def files_below(folder: Path) -> dict[str, int]:
    """Bytes of all files below a folder by their paths; of a folder that is not there none.

    Raises:
        OutsideCorpus: a link or something else that is no plain file or folder is there.
        ConfigError: the folder is a file.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise ConfigError("is not a folder", where=str(folder))
    return {name: within(folder, name).stat().st_size for name in LocalStorage(folder).list("")}


def _copy(
    source: Path, target: Path, names: Iterable[str], progress: Progress = lambda files: None
) -> None:
    """Copy files that the target lacks or has with another content. Each appears whole."""
    own, other = LocalStorage(source.absolute()), LocalStorage(target.absolute())
    for done, name in enumerate(names, 1):
        with _of_disk(name), own.reading(own.local_path(name)) as file:
            place = other.local_path(name)
            if not _is_same(own, other, name):
                other.make_dir(place.parent)
                with other.atomic_writer(place) as out:
                    for block in _blocks(file):
                        out.write(block)
        progress(done)
    with _of_disk(str(target)):
        other.sync()


def _is_same(own: LocalStorage, other: LocalStorage, name: str) -> bool:
    source, copied = own.local_path(name), other.local_path(name)
    if not copied.is_file() or source.stat().st_size != copied.stat().st_size:
        return False
    return _sha256(own, source) == _sha256(other, copied)


def _sha256(disk: LocalStorage, place: Path) -> bytes:
    digest = hashlib.sha256()
    with disk.reading(place) as file:
        for block in _blocks(file):
            digest.update(block)
    return digest.digest()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(1 << 20):
        yield block


@contextmanager
def _of_disk(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(
            f"copying failed: {error.strerror}", remedy=f"check the disk, then {AGAIN}", where=where
        ) from error


# --- the Hugging Face Hub -----------------------------------------------------------------------------------------------


class HuggingFaceHub:
    """A dataset repository. `endpoint`: of another server than the one that HF_ENDPOINT names."""

    def __init__(self, name: str, revision: str | None = None, endpoint: str | None = None) -> None:
        self.name, self.revision, self._endpoint = name, revision, endpoint
        self.address = f"hf://datasets/{name}" + (f"@{revision}" if revision else "")
        self._of = {"repo_id": name, "repo_type": "dataset"}

    def look(self) -> Stored | None:
        with self._translated() as (hub, errors):
            try:
                info = hub.repo_info(**self._of, revision=self.revision)
            except errors.GatedRepoError:
                raise
            except errors.RepositoryNotFoundError:
                return None
            listed = hub.list_repo_tree(**self._of, revision=info.sha, recursive=True)
            files = {e.path: e.size for e in listed if hasattr(e, "size")}  # a folder has no size
        return Stored(files=files, is_private=bool(info.private), revision=info.sha)

    def create(self, *, is_private: bool) -> None:
        with self._translated() as (hub, _):
            hub.create_repo(**self._of, private=is_private, exist_ok=True)

    def upload(self, folder: Path, names: Sequence[str], progress: Progress) -> None:
        """huggingface_hub shows its own progress. Its `upload_folder` commits in batches, resumes, and writes nothing to the folder."""
        others = [*patterns_without(files_below(folder), names), ".*", "*/.*"]
        with self._translated() as (hub, _):
            hub.upload_folder(**self._of, folder_path=folder, ignore_patterns=others)

    def finish(self, folder: Path, marker: str, card: str, deleted: Sequence[str]) -> None:
        with self._translated() as (hub, _):
            of_hub: Any = import_module("huggingface_hub")
            added = {CARD: card.encode(), marker: within(folder, marker)}
            changes = [
                *(of_hub.CommitOperationDelete(path_in_repo=name) for name in deleted),
                *(
                    of_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data)
                    for name, data in added.items()
                ),
            ]
            hub.create_commit(**self._of, operations=changes, commit_message="eicorpus push")

    def download(
        self, stored: Stored, names: Sequence[str], marker: str, folder: Path, progress: Progress
    ) -> None:
        """huggingface_hub shows its own progress."""
        for part in (names, [marker]):
            for name in part:
                within(folder, name)
            with self._translated() as (hub, _):
                hub.snapshot_download(
                    **self._of,
                    revision=stored.revision,
                    local_dir=folder,
                    ignore_patterns=patterns_without(stored.files, part),
                )
        LocalStorage(folder.absolute()).remove_tree(folder.absolute() / STATE)

    def read(self, stored: Stored, name: str) -> bytes:
        with self._translated() as (hub, _), TemporaryDirectory() as folder:
            hub.hf_hub_download(
                **self._of, filename=name, revision=stored.revision, local_dir=folder
            )
            return LocalStorage(Path(folder)).get(name, max_bytes=stored.files[name])

    def differing(self, stored: Stored, names: Sequence[str], folder: Path) -> list[str]:
        """By size alone."""
        sizes = files_below(folder)
        return [name for name in names if sizes.get(name) != stored.files[name]]

    @contextmanager
    def _translated(self) -> Iterator[tuple[Any, Any]]:
        """The client of the Hub and its errors. Those that leave the block become ours."""
        try:
            hub: Any = import_module("huggingface_hub")
            errors: Any = import_module("huggingface_hub.errors")
        except ImportError as error:
            raise ConfigError(
                "huggingface_hub is not installed", remedy="pip install 'eicorpus[train]'"
            ) from error
        kinds = errors.HfHubHTTPError.__mro__  # httpx, httpx2 or requests, by the hub's version
        of_http = next(kind for kind in kinds if kind.__name__ == "HTTPError")
        failures = (of_http, errors.XetDownloadError, OSError, RuntimeError, ValueError)
        try:
            yield hub.HfApi(endpoint=self._endpoint, library_name="eicorpus"), errors
        except PipelineError:
            raise
        except failures as error:
            raise self._error_of(error, errors) from error

    def _error_of(self, error: Exception, errors: Any) -> PipelineError:
        """What a failure of the Hub means for the user."""
        cause = error
        if isinstance(error, errors.LocalEntryNotFoundError):  # it hides why nothing was downloaded
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        text = f"{type(cause).__name__}: {str(cause).splitlines()[0][:200] if str(cause) else ''}"
        status = getattr(getattr(cause, "response", None), "status_code", 0)
        login = "run `hf auth login`, with a token that may use this repository"
        if isinstance(cause, errors.RevisionNotFoundError):
            return ConfigError("no such revision", remedy="correct it", where=self.address)
        if isinstance(cause, errors.RepositoryNotFoundError):
            problem = "no such dataset repository, or it is private or gated for you"
            return ConfigError(problem, remedy=f"correct the name, or {login}", where=self.address)
        if status in (401, 403) or isinstance(cause, errors.LocalTokenNotFoundError):
            return ConfigError(f"no access ({text})", remedy=login, where=self.address)
        if isinstance(cause, ValueError) or (400 <= status < 500 and status not in (408, 429)):
            return ConfigError(f"the Hub refuses ({text})", where=self.address)
        return TransientError(f"the Hub fails ({text})", remedy=AGAIN, where=self.address)


def patterns_without(files: Iterable[str], names: Iterable[str]) -> list[str]:
    """Patterns of fnmatch for all `files` but `names`; one for a folder of which nothing is named.

    The Hub compares each file with each pattern, so they have to be few.
    """
    kept = set(names)
    folders = {str(above) for name in kept for above in PurePosixPath(name).parents}
    patterns = set()
    for name in set(files) - kept:
        above = [str(p) for p in reversed(PurePosixPath(name).parents) if str(p) not in folders]
        patterns.add(f"{escape(above[0])}/*" if above and above[0] != "." else escape(name))
    return sorted(patterns)
