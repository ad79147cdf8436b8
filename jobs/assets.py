"""Options that name the user's own files beside the data, shared by the commands that process episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.pipeline.assets import Assets
from schemas.errors import ConfigError

MANO_ENV = "EICORPUS_MANO_DIR"
ManoDir = Annotated[
    Path | None,
    typer.Option(
        "--mano-dir", envvar=MANO_ENV, help="Folder with MANO_LEFT.pkl and MANO_RIGHT.pkl."
    ),
]
ManoDevice = Annotated[
    str, typer.Option("--mano-device", help="Device of the hand model: cpu or cuda.")
]
UrdfFile = Annotated[
    Path | None,
    typer.Option("--urdf", help="Robot URDF; computes poses of sources that store only joints."),
]
CameraPoses = Annotated[
    Path | None,
    typer.Option("--camera-poses", help="Folder with camera poses of ViPE, MegaSAM or HaWoR."),
]


def assets_from(
    mano_dir: Path | None, mano_device: str, urdf: Path | None, camera_poses: Path | None
) -> Assets:
    """The assets named on the command line, as absolute paths.

    Raises:
        ConfigError: one of them is not there.
    """
    for path, what in (
        (mano_dir, "--mano-dir"),
        (urdf, "--urdf"),
        (camera_poses, "--camera-poses"),
    ):
        if path is not None and not path.exists():
            raise ConfigError(f"{what}: no such file or folder", where=str(path))
    return Assets(
        mano_dir=None if mano_dir is None else str(mano_dir.absolute()),
        mano_device=mano_device,
        urdf=None if urdf is None else str(urdf.absolute()),
        camera_poses=None if camera_poses is None else str(camera_poses.absolute()),
    )
