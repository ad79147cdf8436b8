"""The work of `eicorpus pull`: a corpus or an export from the Hugging Face Hub, or from another folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus.layout import LOCK, MARKER, CorpusLayout, writer_lock
from ingest.export.datasets.record import CORPUS, ORIGIN
from ingest.export.datasets.run import PAGE, read_page
from ingest.export.hub import STATE, Hub, LocalFolder, Stored, files_below
from ingest.storage.local import LocalStorage
from jobs.stages.hub import findings_of, is_of_corpus, is_of_export
from jobs.stages.verify import run_verify
from jobs.ui.output import outside, progress_of
from schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull did, or would do. `findings`: what is wrong with the files; None before they are there."""

    kind: str
    num_files: int
    num_bytes: int
    revision: str
    findings: Sequence[str] | None


def run_pull(hub: Hub, folder: Path, threads: int, *, dry_run: bool = False) -> Pulled:
    """Copy a corpus or an export to a folder, or go on with it, and verify it. Shows progress on standard error.

    A folder that holds the whole copy is verified, and nothing is written. One that holds the same corpus or export, and lacks files or has
    damaged ones, gets them; it is no corpus and no export until they are there.

    Raises:
        ConfigError: no corpus or export is there, a path of it leads out of the folder, or the folder holds something else.
        TransientError: the other end does not respond, or the disk is full; run again to resume.
    """
    _check_place(hub, folder)
    stored = hub.look()
    if stored is None:
        raise ConfigError(
            "nothing is there, or you have no access",
            remedy="correct the name, or run `hf auth login`",
            where=hub.address,
        )
    marker = next((name for name in (MARKER, PAGE) if name in stored.files), "")
    if not marker:
        problem = f"neither a corpus nor an export: no {MARKER} and no {PAGE}"
        remedy = "finish `eicorpus push` to it, or correct the name"
        raise ConfigError(problem, remedy=remedy, where=hub.address)
    is_corpus = marker == MARKER
    files = {
        name: size
        for name, size in stored.files.items()
        if (is_of_corpus(name) if is_corpus else is_of_export(name))
    }
    has_copy = _check_content(hub, stored, files, marker, folder)
    findings = None
    if not dry_run:
        findings = _pulled(hub, stored, files, marker, folder, threads, has_copy=has_copy)
    return Pulled(
        kind=_kind(marker),
        num_files=len(files),
        num_bytes=sum(files.values()),
        revision=stored.revision,
        findings=findings,
    )


def _kind(marker: str) -> str:
    return CORPUS if marker == MARKER else "export"


def _pulled(
    hub: Hub,
    stored: Stored,
    files: Mapping[str, int],
    marker: str,
    folder: Path,
    threads: int,
    *,
    has_copy: bool,
) -> list[str]:
    """What is wrong with the copy once it is whole."""
    names = sorted(set(files) - {marker})
    if not has_copy:
        _download(hub, stored, names, marker, folder)
        return _findings_in(folder, marker, threads)
    differing = hub.differing(stored, names, folder)
    if not differing and not _findings_in(folder, marker, threads):
        return []
    corpus, disk = CorpusLayout(folder), LocalStorage(folder.absolute())
    with writer_lock(corpus) if marker == MARKER else nullcontext():
        disk.delete(marker)
        disk.sync()
        _download(hub, stored, differing or names, marker, folder)
    return _findings_in(folder, marker, threads)


def _download(hub: Hub, stored: Stored, names: Sequence[str], marker: str, folder: Path) -> None:
    with progress_of("files", len(names)) as progress:
        hub.download(stored, names, marker, folder, progress)


def _findings_in(folder: Path, marker: str, threads: int) -> list[str]:
    if marker == PAGE:
        return findings_of(folder, read_page(folder))
    return [f"{each.path}: {each.message}" for each in run_verify(folder, threads).findings]


def _check_place(hub: Hub, folder: Path) -> None:
    """
    Raises:
        ConfigError: the folder is in a corpus, or in the folder that is copied.
    """
    if isinstance(hub, LocalFolder):
        outside(hub.folder, folder, "DIR")
    for above in folder.resolve().parents:
        if (above / MARKER).is_file():
            raise ConfigError(
                f"{above} is a corpus",
                remedy="choose a new folder outside of it",
                where=str(folder),
            )


def _check_content(
    hub: Hub, stored: Stored, files: Mapping[str, int], marker: str, folder: Path
) -> bool:
    """Whether the folder holds this corpus or export already, whole or damaged. It may hold a begun copy.

    Raises:
        ConfigError: it holds another corpus or export, or files that are not of this one.
    """
    present, disk = files_below(folder), LocalStorage(folder.absolute())
    markers = [name for name in (MARKER, PAGE) if name in present]
    for name in markers:
        is_same = name == marker and present[name] == stored.files[name]
        if not is_same or disk.get(name, max_bytes=present[name]) != hub.read(stored, name):
            raise ConfigError(
                f"the folder is another {_kind(name)} than that of {hub.address}",
                remedy="choose an empty or a new folder",
                where=str(folder),
            )
    known = {*files, LOCK, ORIGIN}
    others = [n for n in present if n not in known and not n.startswith(f"{STATE}/")]
    if others:
        raise ConfigError(
            f"the folder holds other files, such as {others[0]}",
            remedy="choose an empty or a new folder",
            where=str(folder),
        )
    return bool(markers)
