"""What a user asks to be read of an Ego-Exo4D download: which annotations, which standing cameras, which hand labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.ego_exo4d.pose_files import KINDS as HAND_KINDS
from schemas.errors import ConfigError
from schemas.regular_file import is_there

WINDOWS = "windows"
KINDS = ("keystep", "atomic_descriptions", WINDOWS)
OPTIONS = ("annotations", "cameras", "hands")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`hands`: kinds of hand labels, the first that a take has counts; none for no hands."""

    root: Path
    files: tuple[tuple[str, Path], ...]  # (kind, file)
    has_windows: bool
    exo: tuple[str, ...]
    hands: tuple[str, ...]


def chosen_from(root: Path, options: Mapping[str, str]) -> Choice:
    """ConfigError: no takes.json at `root`, or an option that does not hold."""
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigError(f"unknown options {unknown}; expected {', '.join(OPTIONS)}")
    if not is_there(root / "takes.json"):
        raise ConfigError("not an Ego-Exo4D download: takes.json is missing", where=str(root))
    asked = options.get("annotations", ",".join(KINDS)).split(",")
    if wrong := sorted(set(asked) - set(KINDS)):
        raise ConfigError(f"annotations: {wrong}; expected one of {', '.join(KINDS)}")
    paths = [(k, root / "annotations" / f"{k}_{s}.json") for k in KINDS for s in ("train", "val")]
    files = tuple((kind, path) for kind, path in paths if kind in asked and is_there(path))
    if missing := sorted(
        set(asked) - {WINDOWS} - set(dict(files)) if "annotations" in options else ()
    ):
        raise ConfigError(f"no file in annotations/ for {missing}", where=str(root))
    exo = tuple(name for name in options.get("cameras", "").split(",") if name)
    hands = options.get("hands", ",".join(HAND_KINDS))
    kinds = () if hands == "none" else tuple(hands.split(","))
    if wrong := sorted(set(kinds) - set(HAND_KINDS)):
        raise ConfigError(f"option hands={wrong}: expected none or {', '.join(HAND_KINDS)}")
    return Choice(root=root, files=files, has_windows=WINDOWS in asked, exo=exo, hands=kinds)
