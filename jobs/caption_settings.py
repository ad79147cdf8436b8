"""What `eicorpus caption` was told: a YAML file, options over it, and a key out of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from ingest.curation.caption.settings import CaptionSettings
from jobs.ingest import one_line
from schemas.errors import ConfigError


def settings_from(
    recipe: Path | None, given: Mapping[str, object], endpoint: str | None = None
) -> CaptionSettings:
    """The YAML file, and over it the options that are not None.

    Raises:
        ConfigError: no such file, no YAML, or a field that does not exist or fit.
    """
    where = str(recipe or "options")
    try:
        raw = yaml.safe_load(text_of(recipe)) or {} if recipe else {}
    except yaml.YAMLError as error:
        raise ConfigError(f"no YAML: {error}", where=where) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("endpoint", {}), dict):
        raise ConfigError("expected fields, and below endpoint fields too", where=where)
    raw |= {name: value for name, value in given.items() if value is not None}
    if endpoint is not None:
        raw["endpoint"] = {**raw.get("endpoint", {}), "url": endpoint}
    try:
        return CaptionSettings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"no caption settings: {one_line(error)}", where=where) from error


def text_of(path: Path) -> str:
    """A file that the user named; raises ConfigError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error


def key_of(settings: CaptionSettings) -> str:
    """The secret, out of the variable that the recipe names and nowhere else; raises ConfigError when it is not set."""
    name = settings.endpoint.api_key_env
    if name is None or settings.backend != "openai":
        return ""
    key = os.environ.get(name, "")
    if not key:
        raise ConfigError(f"the environment has no {name}", where="endpoint.api_key_env")
    return key
