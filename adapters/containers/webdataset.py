"""WebDataset shards: files of one sample lie next to each other in a tar and share the name up to the first dot.

Source: webdataset/webdataset:webdataset/tariterators.py `base_plus_ext` (code).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adapters.containers.tar_shard import TarMember, tar_members
from schemas.errors import SourceError

_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The members of one sample by lower-case extension, or one member that cannot be used."""

    key: str
    files: Mapping[str, TarMember] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


def samples(shard: Path) -> Iterator[Sample]:
    """Every sample in order of its first member; then every unusable member, each as a sample of its own.

    A shard that breaks off gives its whole members, then one sample named "" with problem `truncated`; one that is no
    tar gives only that sample, with the code of `tar_members`.
    """
    members: dict[str, dict[str, TarMember]] = {}
    broken: list[TarMember] = []
    try:
        for member in tar_members(shard):
            match = _NAME.fullmatch(member.name)
            if member.problem:
                broken.append(member)
            elif match:
                members.setdefault(match[1], {})[match[2].lower()] = member
    except SourceError as error:
        broken.append(TarMember(name="", problem=(error.code.value, error.message)))
    for key, files in members.items():
        yield Sample(key=key, files=files)
    for member in broken:
        yield Sample(key=member.name, problem=member.problem)
