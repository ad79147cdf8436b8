"""Which sources can read a folder. Adapters decide: `survey` refuses another layout, and `load` another content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from adapters.base import Adapter, SourceInfo
from adapters.registry import ADAPTERS, adapter_for
from schemas.episode import EpisodeRef
from schemas.errors import PipelineError

# These read a file format of any origin. Any other source that matches is more specific; the first is more specific than the second.
GENERAL = ("lerobot", "video_folder")
TRIED_EPISODES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A source that can read the data at a root."""

    source: str
    dataset: str
    container: str


def matches(root: Path, options: Mapping[str, str], *, must_load: bool = False) -> list[Match]:
    """The sources that fit best. Adapters of other packages are left out.

    Args:
        must_load: leave out sources that load none of the first episodes. Without it episodes are loaded only where several layouts fit.
    """
    surveys = (_surveyed(name, root, options) for name in sorted(ADAPTERS))
    fitting = [pair for pair in surveys if pair is not None]
    specific = [pair for pair in fitting if pair[0].name not in GENERAL]
    if must_load:
        fitting = [pair for pair in fitting if _reads(*pair, root)]
        specific = [pair for pair in specific if pair in fitting]
    elif len(specific) > 1:
        by_refs = sorted(specific, key=lambda pair: not _first_refs(pair[0], pair[1], root))
        specific = [pair for pair in specific if _reads(*pair, root)] or by_refs
    best = specific or sorted(fitting, key=lambda pair: GENERAL.index(pair[0].name))[:1]
    return [
        Match(source=adapter.name, dataset=info.dataset, container=adapter.container)
        for adapter, info in best
    ]


def _surveyed(
    name: str, root: Path, options: Mapping[str, str]
) -> tuple[Adapter, SourceInfo] | None:
    """None where the layout is another one, or the adapter needs a package that is not installed."""
    try:
        adapter = adapter_for(name)
        return adapter, adapter.survey(root, options)
    except (PipelineError, OSError):
        return None


def _reads(adapter: Adapter, info: SourceInfo, root: Path) -> bool:
    """Whether one of the first episodes can be loaded."""
    refs = _first_refs(adapter, info, root)
    return any(ref.problem is None and _loads(adapter, ref) for ref in refs)


def _first_refs(adapter: Adapter, info: SourceInfo, root: Path) -> list[EpisodeRef]:
    try:
        return list(islice(adapter.discover(root, info), TRIED_EPISODES))
    except (PipelineError, OSError):
        return []


def _loads(adapter: Adapter, ref: EpisodeRef) -> bool:
    try:
        adapter.load(ref)
    except (PipelineError, OSError):
        return False
    return True
