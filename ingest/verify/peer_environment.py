"""The environment of the reference reader: LeRobot 0.3.3 in a virtual environment of its own.

LeRobot 0.3.3 cannot share an environment with eicorpus: its `datasets`, `huggingface_hub` and `numpy` are older. The environment
takes about one minute and 1.4 GB with a CPU build of torch. The scripts that it runs are package data of `ingest.verify`
(`lerobot_reader/`), so an installed wheel has them too.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

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
