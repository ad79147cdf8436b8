"""`eicorpus init FOLDER…`: a corpus spec to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.build.init_spec import probe, spec_text
from jobs.ui.options import AsJson
from jobs.ui.output import answer_json, progress_of, stderr
from jobs.ui.output_file import Overwrite, check_absent, write_file


def command(
    folder: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folder of raw data, or a folder of such folders."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the spec to this file. Default: standard output."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Print a corpus spec for folders of raw data, with comments. Its paths start at the folder of --out FILE, or at the current folder."""
    where = f"--out {out}"
    if out is not None:
        check_absent(out, where, overwrite=overwrite)
    with progress_of("detecting the sources"):
        probed = probe(folder)
    text = spec_text(probed, Path.cwd() if out is None else out.absolute().parent)
    if out is not None:
        write_file(out, text.encode(), where, overwrite=overwrite)
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
