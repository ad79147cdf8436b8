"""SOURCE of `ingest` and `doctor`: as named, or detected from the raw data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join

from adapters.detect import GENERAL, matches
from adapters.registry import dataset_owner, resolved
from jobs.ui.options import DETECT
from jobs.ui.output import progress_of, stderr
from schemas.errors import ConfigError


def source_at(
    source: str, path: Path, options: Mapping[str, str], command: str, *more: str, uri: str = ""
) -> str:
    """The source in the form that workers understand.

    Args:
        uri: what the user named, where `path` is a local copy of it.
        command: "ingest" or "doctor"; with `more`, its other words, for the commands in messages.

    Raises:
        ConfigError: no source or several match the data, or the name is that of a dataset of a source.
    """
    if source == DETECT:
        return _detected(path, options, command, more, uri or str(path))
    if owner := dataset_owner(source):
        name, datasets = owner
        line = join(["eicorpus", command, name, uri or str(path), *more])
        message = f"{source!r} is not a source; {name} reads the dataset {' or '.join(datasets)}"
        raise ConfigError(message, remedy=f"run {line}")
    return resolved(source, Path.cwd())


def _detected(
    path: Path, options: Mapping[str, str], command: str, more: Sequence[str], place: str
) -> str:
    if not path.exists():
        raise ConfigError("no such file or folder", remedy="correct the path", where=place)
    with progress_of("detecting the source"):
        candidates = matches(path.absolute(), options)
    if not candidates:
        message = "no source matches this data"
        raise ConfigError(
            message,
            remedy="name one (`eicorpus list sources`), or write an adapter (docs/how-to/add-a-source.md)",
            where=place,
        )
    if len(candidates) > 1:
        lines = [
            f"  {join(['eicorpus', command, each.source, place, *more])}  # {each.container}"
            for each in candidates
        ]
        message = f"{len(candidates)} sources match this data; name one:"
        raise ConfigError("\n".join([message, *lines]), where=place)
    (match,) = candidates
    certainty = (
        f"unsure: any {match.container} matches"
        if match.source in GENERAL
        else "sure: no other source matches"
    )
    stderr.print(
        f"source: {match.source}, dataset {match.dataset}, {match.container} ({certainty})",
        markup=False,
        highlight=False,
    )
    return match.source
