"""`eicorpus init FOLDER…`: a corpus spec to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.build.init_spec import probe, spec_text
from jobs.ui.options import AsJson
from jobs.ui.output import answer_json, progress_of


def command(
    folder: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folder of raw data, or a folder of such folders."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print a corpus spec for folders of raw data, with comments. Redirect it to a file."""
    with progress_of("detecting the sources"):
        probed = probe(folder)
    text = spec_text(probed, Path.cwd())
    if as_json:
        sources = [
            {"folder": str(each.folder), "candidates": [m.source for m in each.candidates]}
            for each in probed
        ]
        answer_json({"spec": text, "sources": sources})
    else:
        sys.stdout.write(text)
