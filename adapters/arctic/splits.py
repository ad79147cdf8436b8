"""Which split ARCTIC publishes a sequence in.

    splits_json/protocol_{p1,p2}.json    {"train": ["s01/box_grab_01", ...], "val": [...], "test": [...]}
p1 is the benchmark of the fixed cameras, p2 that of the head camera. A training run may see the pictures and hands of either, so a sequence
takes the strictest of both. Source: `zc-alexfan/arctic:{src/arctic/split.py,docs/data/processing.md}` (code, doc).
"""

from __future__ import annotations

from pathlib import Path

from adapters.containers.json_stream import members
from schemas.regular_file import is_there
from schemas.source_split import SPLITS, strictest

PROTOCOLS = ("splits_json/protocol_p1.json", "splits_json/protocol_p2.json")


def has_splits(root: Path) -> bool:
    return any(is_there(root / name) for name in PROTOCOLS)


def source_splits(root: Path) -> dict[str, str]:
    """Split by `<subject>/<sequence>`; a sequence that no protocol lists is not in it.

    Raises:
        ConfigError: a file that is no JSON.
    """
    splits: dict[str, str] = {}
    for path in (root / name for name in PROTOCOLS if is_there(root / name)):
        for where, sequence in members(path, inside=SPLITS):
            if len(where) == 2 and isinstance(sequence, str):
                splits[sequence] = strictest((splits.get(sequence, ""), where[0]))
    return splits
