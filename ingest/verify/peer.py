"""The reference reader: LeRobot 0.3.3 in a virtual environment of its own reads every dataset and compares it with the catalog."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ingest.storage.local import within
from ingest.verify.finding import CheckCode, Finding, finding
from schemas.errors import ConfigError
from schemas.invalid import reason
from schemas.json_text import parse_json

SCRIPTS = Path(__file__).resolve().parent / "lerobot_reader"
CHECK = SCRIPTS / "check.py"
_REQUIREMENTS = SCRIPTS / "requirements.txt"
_WITHOUT_DEPENDENCIES = SCRIPTS / "requirements-nodeps.txt"
_STAMP = "ready"


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, whether or not it exists."""
    return folder / "bin" / "python"


def is_built(folder: Path) -> bool:
    """Whether `folder` holds an environment made whole from the present requirement files and this Python."""
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text() == _requirements_digest()


def build(folder: Path) -> None:
    """Make the environment from nothing, replacing what is in `folder`. The stamp is written last.

    Raises:
        subprocess.CalledProcessError: pip could not install a package. Its own message is on standard error.
    """
    venv.create(folder, clear=True, with_pip=True)
    install = [str(python_of(folder)), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "-r", str(_REQUIREMENTS)], check=True)
    subprocess.run([*install, "--no-deps", "-r", str(_WITHOUT_DEPENDENCIES)], check=True)
    (folder / _STAMP).write_text(_requirements_digest())


def _requirements_digest() -> str:
    files = _REQUIREMENTS.read_bytes() + _WITHOUT_DEPENDENCIES.read_bytes()
    return hashlib.sha256(files + sys.version.encode()).hexdigest()


DATASETS_A_PROCESS = 50  # starting it takes seconds; the length of a command line is bounded
_SAID_CHARACTERS = 500  # of its standard error, when it dies


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where the other environment is.

    Raises:
        ConfigError: it is not there.
    """

    python: Path
    script: Path

    def __post_init__(self) -> None:
        for path in (self.python, self.script):
            if not path.is_file():
                message = "no such file; run `eicorpus peer` to install the reference reader"
                raise ConfigError(
                    f"{message}, or set EICORPUS_PEER_PYTHON to its Python", where=str(path)
                )


class Report(BaseModel):
    """One line of the peer's output."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    dataset: str
    episodes: int
    frames: int
    ok: bool
    problems: list[str]
    reader: str = ""


def peer_reports(
    corpus: Path,
    datasets: Sequence[str],
    peer: Peer,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[str, Report | Finding]]:
    """Read each dataset (a path relative to the corpus) with the peer. A Finding where it could not answer.

    Args:
        progress: called with the number of datasets that are done.
    """
    readable = [path for path in datasets if within(corpus, f"{path}/meta/info.json").is_file()]
    for path in sorted(set(datasets) - set(readable)):
        yield (
            path,
            finding(CheckCode.PEER, path, "no meta/info.json", "a dataset that LeRobot opens"),
        )
    done, left = len(datasets) - len(readable), iter(readable)
    while batch := list(islice(left, DATASETS_A_PROCESS)):
        for answer in _answers(corpus, batch, peer):
            done += 1
            progress(done)
            yield answer


def _answers(
    corpus: Path, datasets: Sequence[str], peer: Peer
) -> Iterator[tuple[str, Report | Finding]]:
    """One process for some datasets. When it ends too early the rest are findings with its last words."""
    # -E: our PYTHONPATH is not for it.
    root = corpus.resolve()
    folders = [within(root, path) for path in datasets]
    command = [str(part) for part in (peer.python, "-E", peer.script, *folders)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None  # asked for above
        left = iter(datasets)
        try:
            for line, path in zip(process.stdout, left, strict=False):
                yield path, _report(path, line)
            process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        errors.seek(max(errors.seek(0, os.SEEK_END) - 4 * _SAID_CHARACTERS, 0))
        last = (
            errors.read(4 * _SAID_CHARACTERS).decode("utf-8", "replace").strip()[-_SAID_CHARACTERS:]
        )
    for path in left:
        what = f"no result, exit status {process.returncode}: {last}"
        yield path, finding(CheckCode.PEER, path, what, "one JSON object")


def _report(path: str, line: str) -> Report | Finding:
    try:
        return Report.model_validate(parse_json(line))
    except ValueError as error:
        what = f"{line[:200]!r} ({reason(error)})"
        return finding(CheckCode.PEER, path, what, "the reference reader's JSON object")


def findings_of(path: str, answer: Report | Finding) -> list[Finding]:
    """What the peer found wrong with one dataset."""
    if isinstance(answer, Finding):
        return [answer]
    problems = answer.problems or ([] if answer.ok else ["`ok` is false without a problem"])
    return [
        finding(CheckCode.PEER, path, problem, "the content of the files") for problem in problems
    ]
