"""`eicorpus view CORPUS EPISODE`: an episode in the Rerun viewer, or as an .rrd file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ingest.catalog.catalog import Catalog
from ingest.catalog.episode_lookup import find_uids
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.stored_episode import StoredEpisode
from jobs.rerun_recording import LeftOut, recording_bytes
from jobs.ui.options import EPISODE_HELP, AsJson, CorpusWithFiles, Snapshot
from jobs.ui.output import answer_json, outside, size_text, stdout
from jobs.ui.output_file import Overwrite, check_absent, write_file
from schemas.errors import ConfigError

ENDING = ".rrd"
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def command(
    corpus: CorpusWithFiles,
    episode: Annotated[str, typer.Argument(metavar="EPISODE", help=EPISODE_HELP)],
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Write this .rrd file and open no viewer."),
    ] = None,
    overwrite: Overwrite = False,
    memory_limit_mb: Annotated[
        int,
        typer.Option("--memory-limit-mb", min=256, help="Memory of the viewer in MiB."),
    ] = 4096,
    with_snapshot: Snapshot = None,
    as_json: AsJson = False,
) -> None:
    """Open an episode in Rerun, or save it as a file: videos, cameras, hands, end-effectors, series, segments."""
    root = open_corpus(corpus).root
    if find_spec("rerun") is None:
        raise ConfigError("Rerun is not installed", remedy="run pip install 'eicorpus[rerun]'")
    if save is None:
        _check_display()
    else:
        outside(root, save, "--save")
        _check_ending(save)
        check_absent(save, f"--save {save}", overwrite=overwrite)
    current = snapshot.load(root, with_snapshot)
    (uid,) = find_uids(root, current, [episode])
    with Catalog.open(root, snapshot=current.number or None) as catalog:
        stored = StoredEpisode.read(catalog, uid)
    data, left_out = recording_bytes(stored)
    if save is not None:
        write_file(save, data, f"--save {save}", overwrite=overwrite)
    if as_json:
        answer = {"uid": uid, "snapshot": current.number, "num_bytes": len(data)}
        path = None if save is None else str(save)
        answer_json({**answer, "rrd": path, "left_out": [asdict(each) for each in left_out]})
    else:
        _show(stored, save, len(data), left_out)
    if save is None:
        _open_viewer(uid, data, memory_limit_mb)


def _check_display() -> None:
    """
    Raises:
        ConfigError: there is no display to open a window on.
    """
    if sys.platform == "linux" and not any(os.environ.get(name) for name in DISPLAYS):
        raise ConfigError(
            f"no display: neither {' nor '.join(DISPLAYS)} is set",
            remedy="pass --save FILE.rrd, and open the file with `rerun FILE.rrd` where there is one",
        )


def _check_ending(path: Path) -> None:
    """
    Raises:
        ConfigError: Rerun would not open a file of that name.
    """
    if path.suffix != ENDING:
        raise ConfigError(f"expected a name that ends with {ENDING}", where=f"--save {path}")


def _show(
    episode: StoredEpisode, save: Path | None, num_bytes: int, left_out: Sequence[LeftOut]
) -> None:
    heading = "Rerun viewer" if save is None else str(save)
    summary = f"{episode.length} timesteps, snapshot {episode.snapshot}, {size_text(num_bytes)}"
    stdout.print(f"{heading}: {summary}", highlight=False, markup=False)
    for each in left_out:
        stdout.print(f"left out: {each.what}: {each.reason}", highlight=False, markup=False)


def _open_viewer(uid: str, data: bytes, memory_limit_mb: int) -> None:
    """Wait until the viewer is closed. Its usage statistics are switched off first, for this user.

    Raises:
        ConfigError: the viewer does not start.
    """
    rerun = [sys.executable, "-m", "rerun"]
    with TemporaryDirectory(prefix="eicorpus-view-") as folder:
        path = Path(folder) / f"{uid}{ENDING}"
        path.write_bytes(data)
        subprocess.run([*rerun, "analytics", "disable"], capture_output=True, check=False)
        options = ["--new", "--bind", "127.0.0.1", "--memory-limit", f"{memory_limit_mb}MiB"]
        done = subprocess.run([*rerun, *options, str(path)], check=False)
    if done.returncode:
        raise ConfigError(
            f"the viewer ended with exit code {done.returncode}",
            remedy="pass --save FILE.rrd, and open the file on another machine",
        )
