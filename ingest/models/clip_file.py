"""Reads the files of latents that LingBot-VA trains from, without a network and without trusting them: tensors, numbers and texts, nothing else."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.regular_file import check_regular

MOST_BYTES = 1 << 31  # of one clip of one camera: at 256 x 320 and 30 s it has 6 MB
_DAMAGE = (OSError, ValueError, RuntimeError, KeyError, EOFError, TypeError, IndexError)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClip:
    """What a file says of itself. `text_shape`: of `text_emb`, where it has one."""

    shape: tuple[int, ...]  # of `latent`
    dtype: str
    is_finite: bool
    num_frames: int
    height: int
    width: int
    frame_ids: tuple[int, ...]
    text_shape: tuple[int, ...] | None


def stored_clip(path: Path) -> StoredClip:
    """
    Raises:
        ConfigError: damaged, a key is missing, or one has another kind of value.
        SourceError: no plain file.
    """
    content, torch = _loaded(path), _torch()
    try:
        latent, text = content["latent"], content.get("text_emb")
        sides = [content[f"latent_{name}"] for name in ("num_frames", "height", "width")]
        ids = content["frame_ids"]
        ids = ids.tolist() if torch.is_tensor(ids) else list(ids)
        if not all(type(n) is int and n > 0 for n in sides):
            raise ValueError(f"latent_num_frames, height and width are {sides}")
        if not all(type(n) is int and abs(n) < 1 << 40 for n in ids):
            raise ValueError("frame_ids are no whole numbers")
        return StoredClip(
            shape=tuple(latent.shape),
            dtype=str(latent.dtype).removeprefix("torch."),
            is_finite=bool(torch.isfinite(latent).all()),
            num_frames=sides[0],
            height=sides[1],
            width=sides[2],
            frame_ids=tuple(ids),
            text_shape=None if text is None else tuple(text.shape),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"a key is missing: {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(what, where=str(path)) from error


def stored_shape(path: Path) -> tuple[int, ...] | None:
    """Of a file with one tensor; None where it has something else.

    Raises:
        ConfigError: damaged.
        SourceError: no plain file.
    """
    content, torch = _loaded(path), _torch()
    return tuple(content.shape) if torch.is_tensor(content) else None


def _torch() -> Any:
    """
    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        remedy = "run pip install 'eicorpus[lingbot]'"
        raise ConfigError("torch is not installed", remedy=remedy) from error


def _loaded(path: Path) -> Any:
    torch = _torch()
    num_bytes = check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:  # compressed members could unpack to any size
            stored = all(each.compress_type == zipfile.ZIP_STORED for each in archive.infolist())
        if not stored or num_bytes > MOST_BYTES:
            raise ValueError("compressed, or larger than any clip")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGE, zipfile.BadZipFile, OverflowError) as error:
        raise ConfigError(f"no file of tensors ({error})", where=str(path)) from error
    except (
        torch.serialization.pickle.UnpicklingError
    ) as error:  # of torch's reader of tensors alone
        raise ConfigError("more than tensors, numbers and texts", where=str(path)) from error
