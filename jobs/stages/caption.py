"""The work of `eicorpus caption`: captions for segments that have none of a backend."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.curation.captions.backends import backend_for
from ingest.curation.captions.cache import Cache
from ingest.curation.captions.protocol import Backend
from ingest.curation.captions.run import CaptionTally, caption_corpus
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.work import work_of
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.stages.failures import retry_message
from jobs.ui.output import progress_of
from schemas.errors import ConfigError
from schemas.invalid import invalid
from schemas.yaml_text import read_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionResult:
    """What a run did. `total`: segments without a caption before it. `failure`: why it exits with 1."""

    backend: str
    model: str
    tally: CaptionTally
    total: int
    snapshot: int
    elapsed_s: float

    @property
    def failure(self) -> str:
        tally = self.tally
        if tally.stopped:
            return f"stopped: {tally.stopped}"
        reached = tally.captioned + tally.skipped + tally.failed
        return retry_message(tally.failed, reached, "segments")


def settings_from(
    config: Path | None, options: Mapping[str, object], endpoint: str | None = None
) -> CaptionSettings:
    """The YAML file, and over it the options that are not None.

    Raises:
        ConfigError: no such file, no YAML, or a field that does not exist or fit.
    """
    where = str(config or "options")
    raw = read_yaml(config) or {} if config else {}
    if not isinstance(raw, dict) or not isinstance(raw.get("endpoint", {}), dict):
        raise ConfigError(
            "expected a mapping of settings, and a mapping at `endpoint`", where=where
        )
    raw |= {name: value for name, value in options.items() if value is not None}
    if endpoint is not None:
        raw["endpoint"] = {**raw.get("endpoint", {}), "url": endpoint}
    try:
        return CaptionSettings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            f"invalid caption settings: {invalid(error, CaptionSettings)}", where=where
        ) from error


def caption_backend(corpus: CorpusLayout, settings: CaptionSettings) -> Backend:
    """
    Raises:
        ConfigError: something that the backend needs is not set.
    """
    cache = Cache.of(corpus, LocalStorage(corpus.root))
    return backend_for(settings, key=_key_of(settings), cache=cache)


def num_uncaptioned(
    corpus: CorpusLayout, current: Snapshot, backend: Backend, settings: CaptionSettings
) -> int:
    """Segments that `run_caption` would caption."""
    return sum(1 for _ in work_of(corpus, current, backend, settings))


def run_caption(
    corpus: CorpusLayout, backend: Backend, settings: CaptionSettings, limit: int | None = None
) -> CaptionResult:
    """Caption at most `limit` segments. Shows progress on standard error."""
    started_s, disk = time.monotonic(), LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        total = num_uncaptioned(corpus, current, backend, settings)
        # stop there: after the last segment without a caption there may be a million with one
        most = total if limit is None else min(limit, total)
        with progress_of("caption", most) as advance:
            tally, current = caption_corpus(
                corpus,
                current,
                backend,
                settings,
                run_id=new_run_id(),
                disk=disk,
                limit=most,
                progress=lambda tally: advance(tally.reached),
            )
    return CaptionResult(
        backend=backend.id,
        model=backend.model,
        tally=tally,
        total=total,
        snapshot=current.number,
        elapsed_s=time.monotonic() - started_s,
    )


def _key_of(settings: CaptionSettings) -> str:
    """The API key, only from the variable that the settings name; raises ConfigError if it is not set."""
    name = settings.endpoint.api_key_env
    if name is None or settings.backend != "openai":
        return ""
    key = os.environ.get(name, "")
    if not key:
        raise ConfigError(
            f"the environment variable {name} is not set",
            remedy=f"set it to the API key: export {name}=KEY",
            where="endpoint.api_key_env",
        )
    return key
