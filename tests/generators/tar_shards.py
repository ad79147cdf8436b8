"""Videos as bytes, and tar files that hold them."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene
from jobs.demo.raw.video_files import write_scene


def scene_bytes(scene: Scene | HandScene, suffix: str = ".mp4", **how: Any) -> bytes:
    """The same as the bytes of a file."""
    with tempfile.TemporaryDirectory() as folder:
        return write_scene(Path(folder) / f"v{suffix}", scene, **how).read_bytes()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
