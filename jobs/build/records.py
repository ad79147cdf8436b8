"""What the last build of each target read and gave: `CORPUS/build/TARGET.json`. It holds digests and counts, nothing of an episode.

The catalog is the truth about a corpus. A record only spares a build the work of finding out again what it was made from, so a
record that is damaged or gone costs one more run of its target, which then finds nothing to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ingest.corpus.layout import BUILD, CorpusLayout, build_lock
from ingest.storage.local import HALF_SUFFIX, LocalStorage
from ingest.storage.store import get_json
from schemas.errors import PipelineError
from schemas.json_text import JsonLimits

LIMITS = JsonLimits(max_bytes=1 << 16, max_elements=1000)


class StageCounts(BaseModel):
    """total = up_to_date + done + left_out + failed + left."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    total: int = 0
    up_to_date: int = 0
    done: int = 0
    left_out: int = 0
    failed: int = 0
    left: int = 0

    @property
    def adds_up(self) -> bool:
        parts = self.up_to_date + self.done + self.left_out + self.failed + self.left
        return self.total == parts


class TargetRecord(BaseModel):
    """One target. `made_from`: what its result depends on, by name; `result`: what identifies the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    target: str
    made_from: dict[str, str] = {}
    result: dict[str, str] = {}
    counts: StageCounts = StageCounts()
    # Of all builds that did something, for estimates.
    num_done: int = 0
    elapsed_s: float = 0.0


class Records:
    """The records of a corpus; of none where there is no corpus yet."""

    def __init__(self, corpus: CorpusLayout | None) -> None:
        self._corpus = corpus

    def read(self, target: str) -> TargetRecord | None:
        """The record of a target; None where there is none that can be read."""
        if self._corpus is None:
            return None
        disk = LocalStorage(self._corpus.root)
        try:
            page = get_json(disk, f"{BUILD}/{target}.json", limits=LIMITS)
            record = TargetRecord.model_validate(page)
        except (PipelineError, ValidationError, ValueError, TypeError):
            return None
        return record if record.target == target else None

    def write(
        self,
        target: str,
        *,
        made_from: Mapping[str, str],
        result: Mapping[str, str],
        counts: StageCounts,
        elapsed_s: float,
    ) -> None:
        """After the result is in the corpus, and on its disk."""
        assert self._corpus is not None
        before = self.read(target)
        did = counts.done > 0
        record = TargetRecord(
            target=target,
            made_from=dict(made_from),
            result=dict(result),
            counts=counts,
            num_done=(before.num_done if before else 0) + counts.done,
            elapsed_s=(before.elapsed_s if before else 0.0) + (elapsed_s if did else 0.0),
        )
        disk = LocalStorage(self._corpus.root)
        content = f"{record.model_dump_json(indent=1)}\n".encode()
        disk.put(f"{BUILD}/{target}.json", content, is_durable=True)


def sha256_of(value: Any) -> str:
    """Of any JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def one_build(corpus: CorpusLayout) -> Iterator[None]:
    """Hold a corpus for one build, and remove what a killed one left.

    Raises:
        ConfigError: another build is running.
    """
    disk, folder = LocalStorage(corpus.root), corpus.root / BUILD
    disk.make_dir(folder)
    with build_lock(corpus):
        for half in folder.glob(f".*{HALF_SUFFIX}"):
            disk.remove(half)
        yield
