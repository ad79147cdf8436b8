"""What a cache was derived from, and the name of its folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus, uid_of
from ingest.corpus.snapshot import Snapshot
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError

VERSION = 4  # of the files that cache_build.py writes: another number is another cache
MAX_SNAPSHOT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """What a cache was derived from."""

    corpus_uid: str
    snapshot: int
    snapshot_sha256: str  # of its file: a corpus that was made anew starts to count again
    policy: str  # of the tiers that hold; "" before any
    policy_digest: str

    @property
    def folder(self) -> str:
        own = "\n".join([self.corpus_uid, self.snapshot_sha256, self.policy_digest, str(VERSION)])
        return f"{self.snapshot:08d}-{hashlib.sha256(own.encode()).hexdigest()[:16]}"


def key_of(corpus: Path, current: Snapshot) -> CacheKey:
    """
    Raises:
        ConfigError: the marker or a part of the catalog cannot be read, or a policy lacks a value.
        SourceError: the file of the snapshot is gone.
    """
    runs = current.read(corpus, "policies", ["policy", "policy_digest", "snapshot"]).to_pylist()
    if any(value is None for run in runs for value in run.values()):
        raise ConfigError(
            "a row of the table policies lacks a value",
            remedy="run eicorpus verify",
            where="policies",
        )
    latest: dict[str, str] = max(runs, key=lambda run: run["snapshot"], default={})
    digest = ""
    if current.number:
        key = snapshot.key_of(current.number)
        text = LocalStorage(corpus).get(key, max_bytes=MAX_SNAPSHOT_BYTES)
        digest = hashlib.sha256(text).hexdigest()
    return CacheKey(
        corpus_uid=uid_of(open_corpus(corpus)),
        snapshot=current.number,
        snapshot_sha256=digest,
        policy=latest.get("policy", ""),
        policy_digest=latest.get("policy_digest", ""),
    )
