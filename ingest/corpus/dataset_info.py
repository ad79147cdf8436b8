"""`meta/info.json` of a dataset of a corpus, as every command but `verify` reads it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.invalid import invalid
from schemas.json_text import read_json
from schemas.lerobot import INFO_LIMITS, Info
from schemas.paths import within

INFO = "meta/info.json"


def read_info(corpus: Path, dataset_path: str) -> Info:
    """What a dataset says of itself.

    Raises:
        ConfigError: it says nothing, or something else than LeRobot's keys.
    """
    path = within(corpus, f"{dataset_path}/{INFO}")
    try:
        return Info.model_validate(read_json(path, limits=INFO_LIMITS))
    except ValidationError as error:
        raise ConfigError(
            invalid(error), remedy="run `eicorpus verify`", where=str(path)
        ) from error
    except (SourceError, DocumentError) as error:
        problem = f"cannot be read ({error})"
        raise ConfigError(
            problem, remedy=f"run `eicorpus verify {corpus}`", where=str(path)
        ) from error
