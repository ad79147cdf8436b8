"""What an erasure in a bucket has still to do: `catalog/_erasures/COMMIT/page.json`, from before its entry of the log until all is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.corpus.working_copy import WorkingCopy
from ingest.storage.store import get_json
from schemas.errors import Code, ConfigError, SourceError
from schemas.json_text import JsonLimits

FOLDER = "catalog/_erasures"
PAGE = "page.json"
LIMITS = JsonLimits(max_bytes=1 << 28, max_elements=1 << 22)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePage:
    """`number`: of its entry. `files`: name in the folder -> place. `packs` of latents that have members of the episodes."""

    number: int
    run_id: str
    files: Mapping[str, str]
    packs: Sequence[str]


def begun_erasures(copy: WorkingCopy) -> list[str]:
    """Commit ids of the erasures that have a folder."""
    return sorted({key.split("/")[2] for key in copy.store.list(FOLDER)})


def unfinished_erasures(copy: WorkingCopy) -> list[str]:
    """Runs whose erasure is committed and not done."""
    pages = {each: read_page(copy, each) for each in begun_erasures(copy)}
    entries = {each: copy.log.entry(page.number) for each, page in pages.items() if page}
    return [
        page.run_id
        for each, page in pages.items()
        if page and (entry := entries[each]) and entry.commit_id == each
    ]


def read_page(copy: WorkingCopy, commit_id: str) -> ErasurePage | None:
    """None where there is none.

    Raises:
        ConfigError: it is not what `forget` writes.
    """
    key = f"{FOLDER}/{commit_id}/{PAGE}"
    try:
        raw = get_json(copy.store, key, limits=LIMITS)
        return ErasurePage(
            number=int(raw["number"]),
            run_id=str(raw["run_id"]),
            files={str(name): str(path) for name, path in raw["files"].items()},
            packs=tuple(map(str, raw["packs"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, SourceError) as error:
        if isinstance(error, SourceError) and error.code is Code.MISSING_FILE:
            return None
        raise ConfigError(
            f"the page of an erasure cannot be read ({error})",
            remedy="delete the objects of its folder if you trust the rest of this corpus",
            where=f"{copy.link.uri}/{key}",
        ) from error
