"""The backend that the settings ask for. A remote one is never the default, and never without an address."""

from __future__ import annotations

from pathlib import Path

from ingest.curation.captions.cache import Cache
from ingest.curation.captions.chat import Chat, ChatBackend
from ingest.curation.captions.endpoint import endpoint_at
from ingest.curation.captions.offline_backends import ReplayChat, RulesBackend
from ingest.curation.captions.openai_backend import OpenAiChat
from ingest.curation.captions.protocol import Backend
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.transformers_backend import TransformersChat
from schemas.errors import ConfigError


def backend_for(settings: CaptionSettings, *, key: str, cache: Cache) -> Backend:
    """Raises ConfigError: something that the backend needs was not said."""
    if settings.backend == "rules":
        return RulesBackend()
    # a replay is not cached: it is one
    chat = _chat(settings, key)
    extra = settings.endpoint.extra_body if settings.backend == "openai" else None
    kept = None if settings.backend == "replay" else cache
    return ChatBackend(chat, settings.ask, kept, extra=extra)


def _chat(settings: CaptionSettings, key: str) -> Chat:
    if settings.backend == "replay":
        return ReplayChat(Path(_required(settings.replay_file, "--replay FILE", "replay")))
    model = _required(settings.model, "--model", settings.backend)
    if settings.backend == "transformers":
        return TransformersChat(Path(model), settings.device, settings.batch)
    url = _required(settings.endpoint.url, "--endpoint URL", "openai")
    return OpenAiChat(endpoint_at(url, key), model, settings.endpoint)


def _required(value: str | None, option: str, backend: str) -> str:
    if not value:
        raise ConfigError(f"--backend {backend} needs {option}; there is no default")
    return value
