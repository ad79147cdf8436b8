"""The adapter protocol: translate one source into canonical episodes, and nothing else.

An adapter renames, converts units and names frames. It never resamples, filters, writes or retries; those
are stages. It needs no base class, only these names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from schemas.episode import Episode, EpisodeRef, Licence
from schemas.fact import Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What `survey` found at a root: the set, its terms, and what is known about its conventions."""

    source: str
    dataset: str
    licence: Licence
    facts: tuple[Fact, ...] = ()  # after the numeric probe, where the adapter has one
    notes: tuple[str, ...] = ()  # plain sentences for the plan and the sources table
    details: Mapping[str, str] = field(default_factory=dict)


class Adapter(Protocol):
    """Reads one source. The same root and ref always give the same values.

    An adapter whose hands are MANO parameters and nothing else says so with `needs = ("mano",)`: the run then asks for the
    user's model before any work. One that tells hands in another way too, and MANO only here and there, says `uses = ("mano",)`.
    Options that are paths are named in `path_options`: a URL there is refused, as in every other path of the command line.
    """

    name: ClassVar[str]
    version: ClassVar[int]  # raise it whenever `load` would return different values
    container: ClassVar[str]  # for `eicorpus list sources`
    about: ClassVar[str]  # one line for `eicorpus list sources`

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Look at metadata (and, for a probe, at the first few episodes) under `root`.

        Raises:
            ConfigError: `root` is not this source at all, or an option is unknown.
        """
        ...

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Yield every episode in a stable order without opening payloads.

        What is known to be broken is yielded too, with `problem` set, so that it is counted.
        """
        ...

    def load(self, ref: EpisodeRef) -> Episode:
        """Return one episode.

        Raises:
            SourceError: this episode is unusable; its code says why.
        """
        ...
