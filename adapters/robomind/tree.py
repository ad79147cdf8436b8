"""Where the episodes of a RoboMIND download are, and of which body each is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.containers.named_entries import entries_named

END = "/data/trajectory.hdf5"
SUCCESS = "success_episodes"


def files_below(root: Path) -> list[str]:
    """Paths relative to `root`, in no order."""
    names = (path.relative_to(root).as_posix() for path in entries_named(root, "trajectory.hdf5"))
    return [name for name in names if name.endswith(END) and f"/{SUCCESS}/" in f"/{name}"]


def split_folder(name: str) -> str:
    """`train` or `val`: what lies between success_episodes and the episode; "" where the episode lies there itself."""
    below = f"/{name.removesuffix(END)}".rpartition(f"/{SUCCESS}/")[2]
    return below.rpartition("/")[0]


def body_of(root: Path, name: str, options: Mapping[str, str]) -> str:
    """From the option, else from the last folder named h5_<body>, the root itself among them; "" for none."""
    parts = (root.resolve().name, *name.split("/"))
    bodies = [part.removeprefix("h5_") for part in parts if part.startswith("h5_")]
    return options.get("body", bodies[-1] if bodies else "")
