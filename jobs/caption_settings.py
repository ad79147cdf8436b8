"""Settings of `eicorpus caption`: a YAML file, options that override it, and an API key from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ingest.curation.captions.settings import CaptionSettings
from schemas.errors import ConfigError, SourceError
from schemas.invalid import invalid
from schemas.regular_file import read_regular
from schemas.yaml_text import read_yaml

MAX_TEXT_BYTES = 256 << 20


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


def text_of(path: Path) -> str:
    """A file that the user named; raises ConfigError."""
    try:
        return read_regular(path, max_bytes=MAX_TEXT_BYTES).decode("utf-8")
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error


def key_of(settings: CaptionSettings) -> str:
    """The API key, only from the variable that the settings name; raises ConfigError if it is not set."""
    name = settings.endpoint.api_key_env
    if name is None or settings.backend != "openai":
        return ""
    key = os.environ.get(name, "")
    if not key:
        raise ConfigError(
            f"the environment variable {name} is not set", where="endpoint.api_key_env"
        )
    return key
