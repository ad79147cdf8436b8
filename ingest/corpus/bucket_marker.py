"""`corpus.json` of a corpus in a bucket: reading it, and making it where no other job was first."""

from __future__ import annotations

from contextlib import suppress

from ingest.corpus.layout import MARKER, MARKER_LIMITS
from ingest.corpus.shared_store import MOST_TRIES, SharedStore
from schemas.errors import Code, ConfigError, SourceError, UnknownOutcome
from schemas.json_text import parse_json


def marker_of(store: SharedStore) -> bytes | None:
    try:
        return store.get(MARKER, max_bytes=MARKER_LIMITS.max_bytes)
    except SourceError as error:
        if error.code is not Code.MISSING_FILE:
            raise
        return None


def refuse_others(store: SharedStore, uri: str) -> None:
    """
    Raises:
        ConfigError: objects that are no corpus are at this address.
    """
    others = [key for key in store.list("") if not key.startswith(".")]  # `.probe-…` of another job
    if others and store.size(MARKER) is None:
        raise ConfigError(
            f"objects are here, such as {others[0]}, and no {MARKER}",
            remedy="choose an address below which nothing is",
            where=uri,
        )


def marker_made(store: SharedStore, uri: str, own: bytes) -> bytes:
    """`corpus.json` of the bucket: `own`, or that of another job that was first."""
    for _ in range(MOST_TRIES):
        marker = marker_of(store)
        if marker is not None:
            return marker
        refuse_others(store, uri)
        with suppress(UnknownOutcome):
            store.create(MARKER, own)
    raise UnknownOutcome(
        "the store does not say whether the corpus was made",
        remedy="run the same command again when the store answers",
        where=uri,
    )


def uid_in(marker: bytes) -> str:
    try:
        return str(parse_json(marker, limits=MARKER_LIMITS)["uid"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot be read: {error!r}", where=MARKER) from error
