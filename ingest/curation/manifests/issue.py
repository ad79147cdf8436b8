"""What may be wrong with a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class IssueKind(StrEnum):
    """Closed list: docs/how-to/manifests.md has a row for each."""

    ROWS_CHANGED = "rows_changed"
    PAGE_CHANGED = "page_changed"
    META_CHANGED = "meta_changed"
    OTHER_CORPUS = "other_corpus"
    SNAPSHOT_GONE = "snapshot_gone"
    FORGOTTEN = "forgotten"
    EPISODE_GONE = "episode_gone"
    EPISODE_CHANGED = "episode_changed"
    FILE_MISSING = "file_missing"
    FILE_CHANGED = "file_changed"
    FILE_UNREADABLE = "file_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Issue:
    """One thing that does not hold. `what`: a path relative to the corpus, or a uid."""

    what: str
    fault: IssueKind
    message: str
