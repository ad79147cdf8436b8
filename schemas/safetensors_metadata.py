"""What a safetensors file of ours says of itself: one page of JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from schemas.errors import ConfigError
from schemas.invalid import reason
from schemas.json_text import parse_json

METADATA = "eicorpus"  # the one key of a file's metadata
Page = TypeVar("Page", bound=BaseModel)


def metadata_of(page: BaseModel) -> dict[str, str]:
    """As safetensors keeps it: text by text."""
    return {METADATA: json.dumps(page.model_dump(mode="json"), sort_keys=True)}


def page_of(
    metadata: Mapping[str, str] | None,
    kind: type[Page],
    *,
    version: tuple[str, int],
    what: str,
    repair: str,
    where: str,
) -> Page:
    """
    Args:
        version: the key of the page's version, and the highest that is read. what: the file is, in words. repair: the command that makes it.

    Raises:
        ConfigError: it says nothing that is understood, or is of a newer version.
    """
    key, highest = version
    try:
        raw: Any = parse_json((metadata or {})[METADATA])
        if (stored := int(raw[key])) > highest:
            message = f"{what} of version {stored}, this eicorpus reads up to {highest}"
            raise ConfigError(f"{message}; install a newer eicorpus", where=where)
        return kind.model_validate(raw)
    except (KeyError, TypeError, ValueError) as error:
        message = f"no {what} of eicorpus ({reason(error, kind)}); run `{repair}` again"
        raise ConfigError(message, where=where) from error
