"""`meta/info.json` of a dataset of a corpus, as every command but `verify` reads it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ingest.storage.local import LocalStorage
from ingest.storage.store import get_json
from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.invalid import invalid
from schemas.lerobot import INFO_LIMITS, Info

INFO = "meta/info.json"


def read_info(corpus: Path, dataset_path: str) -> Info:
    """What a dataset says of itself.

    Raises:
        ConfigError: it says nothing, or something else than LeRobot's keys.
    """
    key = f"{dataset_path}/{INFO}"
    path = corpus / key
    try:
        return Info.model_validate(get_json(LocalStorage(corpus), key, limits=INFO_LIMITS))
    except ValidationError as error:
        raise ConfigError(
            invalid(error), remedy="run `eicorpus verify`", where=str(path)
        ) from error
    except (SourceError, DocumentError) as error:
        problem = f"cannot be read ({error})"
        raise ConfigError(
            problem, remedy=f"run `eicorpus verify {corpus}`", where=str(path)
        ) from error
