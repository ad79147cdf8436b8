"""Which replay buffers a folder holds, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

from adapters.containers.natural_order import natural_key
from adapters.containers.raw_file import raw_file_of, raw_record
from adapters.containers.safe_path import inside
from adapters.containers.zarr_store import SUFFIXES, ZarrStore, is_store, looks_like_store
from schemas.episode import RawFile
from schemas.errors import SourceError


def store_names(root: Path) -> list[str]:
    """Stores at or below `root`, relative, in natural order; a store's own folders are not walked."""
    if is_store(root):
        return ["."]
    store_paths = []
    for folder, names, files in os.walk(root):
        stores = [n for n in names if n.endswith(SUFFIXES) and looks_like_store(Path(folder, n))]
        names[:] = [n for n in names if n not in stores]
        stores += [n for n in files if n.endswith(".zarr.zip")]
        store_paths += [Path(folder, n).relative_to(root).as_posix() for n in stores]
    return sorted(store_paths, key=natural_key)


def store_at(root: Path, name: str) -> ZarrStore:
    return ZarrStore(path=inside(root, name), where=name if name != "." else root.name)


def is_umi(store: ZarrStore) -> bool:
    """A store that does not open counts as UMI: discovery lists it with what is wrong."""
    try:
        return store.get("data/robot0_eef_pos/.zarray") is not None
    except SourceError:
        return True


def store_id(root: Path, name: str) -> str:
    """The store's path without its suffix; a store given directly is known by its own name."""
    text = root.name if name == "." else name
    return text.removesuffix(".zip").removesuffix(".zarr")


def raw_file_of_store(store: ZarrStore, root: Path) -> RawFile:
    """The zip, or for a folder its table of episodes, which changes with every episode added or dropped."""
    if store.path.is_file():
        return raw_file_of(store.path, root)
    data = store.get("meta/episode_ends/0") or b""
    return raw_record(f"{store.where}/meta/episode_ends/0", data)
