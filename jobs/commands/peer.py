"""`eicorpus peer`: installs the reference reader, and finds it for `eicorpus verify --peer`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ingest.verify.peer import CHECK, Peer, build, is_built, python_of
from jobs.ui.options import AsJson
from jobs.ui.output import answer_json, stderr
from schemas.errors import ConfigError, TransientError

PYTHON_VARIABLE = "EICORPUS_PEER_PYTHON"
_CHECKOUT = Path(__file__).absolute().parents[2]


def command(
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to install into. Default: .peer in a source checkout, otherwise the user's cache folder.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Install LeRobot 0.3.3, the reference reader of `verify --peer` (1.4 GB)."""
    target = (folder or default_folder()).absolute()
    is_new = not is_built(target)
    if is_new:
        if target.is_dir() and any(target.iterdir()) and not (target / "pyvenv.cfg").is_file():
            message = "contains files that are not a virtual environment"
            raise ConfigError(message, remedy="choose an empty or new folder", where=str(target))
        stderr.print(
            f"installing into {target} (about a minute, 1.4 GB)", markup=False, soft_wrap=True
        )
        try:
            build(target)
        except subprocess.CalledProcessError as error:
            message = f"pip failed with exit status {error.returncode}; its message is above"
            raise TransientError(message, where=str(target)) from error
    answer = {"python": str(python_of(target)), "is_new": is_new}
    if as_json:
        answer_json(answer)
    else:
        typer.echo(answer["python"])


def default_folder() -> Path:
    """`.peer` of the checkout that these packages run from, else a folder of the user's cache (XDG base directories)."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / ".peer"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "eicorpus" / "peer"


def peer() -> Peer:
    """The reference reader: the interpreter that EICORPUS_PEER_PYTHON names, else that of `default_folder`.

    Raises:
        ConfigError: there is none.
    """
    python = os.environ.get(PYTHON_VARIABLE) or python_of(default_folder())
    return Peer(python=Path(python), script=CHECK)
