"""Files of the user's beside the data: a licensed hand model, a robot's URDF, camera poses that another program estimated.

They are named once for a run, opened in each worker when an episode first needs one, and what they say is part of what an
episode was made from: their content, not their place, enters the digest under which it counts as done.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ingest.recipe import HandSettings
from ingest.transforms.forward_kinematics import Robot
from ingest.transforms.hand_model import HandFit, HandModel
from schemas.errors import ConfigError, PipelineError, system_error_text
from schemas.geometry import Array
from schemas.hand import Mask
from schemas.hand_track import ManoPose
from schemas.kinematics import all_kinematics
from schemas.regular_file import blocks_of_regular

MANO = "mano"  # in an adapter's `needs`: its hands are MANO parameters and nothing else
MANO_TERMS = (
    "MANO is licensed (https://mano.is.tue.mpg.de): register, download MANO_RIGHT.pkl and MANO_LEFT.pkl, and pass their "
    "folder with --mano-dir or EICORPUS_MANO_DIR"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """Paths, or None. `mano_dir` holds MANO_LEFT.pkl and MANO_RIGHT.pkl; `mano_device` is where torch runs it."""

    mano_dir: str | None = None
    mano_device: str = "cpu"
    urdf: str | None = None
    camera_poses: str | None = None

    def used_by(self, needs: Container[str], uses: Container[str]) -> Assets:
        """Without the hand model where a source neither needs nor uses it: what it cannot change is not part of its work."""
        is_wanted = MANO in needs or MANO in uses
        return self if is_wanted else replace(self, mano_dir=None)

    def content_digests(self, needs: Container[str], settings: HandSettings) -> dict[str, str]:
        """What of these an episode is made from, by content; `used_by` comes first. The model is opened once, to see that it can be.

        Raises:
            ConfigError: a needed one is not named, cannot be read, or is no hand model.
        """
        out = {}
        if self.mano_dir is not None or MANO in needs:
            out["asset.mano"] = _content(_mano_files(self.mano_dir))
            _opened(str(self.mano_dir), settings.fingertips, self.mano_device)
        if self.urdf is not None:
            out["asset.urdf"] = _content([Path(self.urdf)])
        if self.camera_poses is not None:
            out["asset.camera_poses"] = _listing(Path(self.camera_poses))
        return out


NO_ASSETS = Assets()


def _mano_files(folder: str | None) -> list[Path]:
    if folder is None:
        raise ConfigError("this source stores hands as MANO parameters only", remedy=MANO_TERMS)
    files = [Path(folder) / f"MANO_{side}.pkl" for side in ("LEFT", "RIGHT")]
    if missing := [f.name for f in files if not f.is_file()]:
        raise ConfigError(
            f"the folder has no {' and no '.join(missing)}", remedy=MANO_TERMS, where=folder
        )
    return files


def _content(files: Iterable[Path]) -> str:
    try:
        sha256 = hashlib.sha256()
        for block in (block for each in files for block in blocks_of_regular(each)):
            sha256.update(block)
        return sha256.hexdigest()
    except (OSError, PipelineError) as error:
        raise ConfigError(f"cannot be read: {system_error_text(error)}") from error


def _listing(folder: Path) -> str:
    """Names and the checksums that each archive carries: there may be a pose file for each of a million videos."""
    if not folder.is_dir():
        raise ConfigError(
            "no such folder of camera poses", remedy="correct --camera-poses", where=str(folder)
        )
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*.npz") if f.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()} {_checksums(file)}\n".encode())
    return digest.hexdigest()


def _checksums(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            return " ".join(f"{m.filename} {m.file_size} {m.CRC:08x}" for m in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        return f"{type(error).__name__} {file.stat().st_size}"  # its episode will say more


@dataclass(frozen=True, slots=True)
class _LazyMano:
    """Opened when a hand first needs it: torch is heavy, and most sources never ask."""

    mano_dir: str
    fingertips: str
    device: str

    def joints21_and_wrist(self, side: str, mano: ManoPose) -> tuple[Array, Array]:
        model = _opened(self.mano_dir, self.fingertips, self.device)
        return model.joints21_and_wrist(side, mano)

    def fit(self, side: str, points: Array, has: Mask) -> HandFit:
        return _opened(self.mano_dir, self.fingertips, self.device).fit(side, points, has)


@lru_cache(maxsize=2)
def _opened(mano_dir: str, fingertips: str, device: str) -> HandModel:
    from ingest.models.mano import ManoHands  # torch only where it is used

    return ManoHands.open(Path(mano_dir), fingertips=fingertips, device=device)


@lru_cache(maxsize=4)
def _robot(urdf: str, embodiment: str) -> Robot:
    return Robot.open(Path(urdf), embodiment)


def robot_for(assets: Assets, embodiment: str) -> Robot | None:
    """The named URDF as this body's, or None: no URDF named, or a body whose joints are not stored.

    Raises:
        ConfigError: the URDF is not of this body.
    """
    if assets.urdf is None or embodiment not in all_kinematics():
        return None
    return _robot(assets.urdf, embodiment)


def hand_model_for(assets: Assets, settings: HandSettings) -> HandModel | None:
    """MANO as this recipe wants it, or None when the user named no folder."""
    if assets.mano_dir is None:
        return None
    return _LazyMano(assets.mano_dir, settings.fingertips, assets.mano_device)
