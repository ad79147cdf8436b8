"""Which checkpoint of a run was best on held-out samples: `RUN/checkpoints/best.json` names it, and it is not removed."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.invalid import reason
from schemas.json_text import DOCUMENT, read_json
from schemas.regular_file import path_exists
from training.durable import write_durably

BEST_FILE = "best.json"


class Best(BaseModel):
    """`loss`: the held-out loss after `step` steps, of the averaged weights where there are any."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: int
    loss: float


def load_best(folder: Path) -> Best | None:
    """Of a folder of checkpoints.

    Raises:
        ConfigError: it is damaged.
    """
    path = folder / BEST_FILE
    try:
        return Best.model_validate(read_json(path, limits=DOCUMENT)) if path_exists(path) else None
    except (SourceError, DocumentError, ValidationError) as error:
        repair = "remove it; the next evaluation writes it again"
        raise ConfigError(
            f"damaged ({reason(error, Best)})", remedy=repair, where=str(path)
        ) from error


def write_best(folder: Path, best: Best) -> None:
    """After its checkpoint is on disk, and before that of the one before goes."""
    write_durably(folder / BEST_FILE, best.model_dump_json())
