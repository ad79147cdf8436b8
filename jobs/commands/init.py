"""`eicorpus init FOLDER…`: a corpus spec to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.build.init_spec import probe, spec_text
from jobs.ui.options import AsJson
from jobs.ui.output import answer_json, progress_of, stderr
from schemas.errors import ConfigError, system_error_text


def command(
    folder: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folder of raw data, or a folder of such folders."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the spec to this new file. Default: standard output."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a corpus spec for folders of raw data, with comments. Its paths start at the folder of --out FILE, or at the current folder."""
    if out is not None and out.exists():
        raise ConfigError("the file is there already", remedy="choose another name", where=str(out))
    with progress_of("detecting the sources"):
        probed = probe(folder)
    text = spec_text(probed, Path.cwd() if out is None else out.absolute().parent)
    if out is not None:
        _write(out, text)
    if as_json:
        sources = [
            {"folder": str(each.folder), "candidates": [m.source for m in each.candidates]}
            for each in probed
        ]
        answer_json({"spec": text, "sources": sources})
    elif out is None:
        sys.stdout.write(text)
    else:
        stderr.print(f"wrote {out}", markup=False, highlight=False)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        message = f"cannot be written: {system_error_text(error, str(path))}"
        remedy = "check the folder and its permissions"
        raise ConfigError(message, remedy=remedy, where=str(path)) from error
