"""Where the parts of an ARCTIC sequence are, what its name says, and its published split.

Where the parts of an ARCTIC sequence lie, and what its name says.

    raw_seqs/<subject>/<sequence>.mano.npy           capture.py
    raw_seqs/<subject>/<sequence>.egocam.dist.npy    capture.py
    {cropped_images,images}/<subject>/<sequence>/0/<picture>.jpg    view 0 is the head camera
    meta/misc.json                                   of each subject the number of picture that is row 0, and sizes
<sequence> = <object>_<grab|use>_<nn>[_retake[n]]. Sources: `zc-alexfan/arctic:{docs/data/data_doc.md,scripts_data/
unzip_download.py,bash/assets/urls/images.txt}` (doc, code).

Which split ARCTIC publishes a sequence in.

    splits_json/protocol_{p1,p2}.json    {"train": ["s01/box_grab_01", ...], "val": [...], "test": [...]}
p1 is the benchmark of the fixed cameras, p2 that of the head camera. A training run may see the pictures and hands of either, so a sequence
takes the strictest of both. Source: `zc-alexfan/arctic:{src/arctic/split.py,docs/data/processing.md}` (code, doc).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from adapters.containers.json_rows import members
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists
from schemas.source_split import SPLITS, strictest

# -- tree ----------------------------------------------------------------------------------------------------------

RAW, MISC = "raw_seqs", "meta/misc.json"
MANO, EGOCAM = ".mano.npy", ".egocam.dist.npy"
SEQUENCE = re.compile(r"s[0-9]{2}/([a-z]+)_(grab|use)_[0-9]{2}(_retake[0-9]*)?")
# Names of objects that are two words.
WORDS = {
    "capsulemachine": "capsule machine",
    "espressomachine": "espresso machine",
    "waffleiron": "waffle iron",
}


def sequences(root: Path) -> Iterator[str]:
    """`<subject>/<sequence>` of everything with hands or a head camera, in no order."""
    names = {
        path.relative_to(root / RAW).as_posix().removesuffix(suffix)
        for suffix in (MANO, EGOCAM)
        for path in (root / RAW).glob(f"s*/*{suffix}")
    }
    yield from (name for name in names if SEQUENCE.fullmatch(name))


def text_of(name: str) -> str:
    """ "use the espresso machine": made of the sequence's name, the only words there are."""
    match = SEQUENCE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a sequence of ARCTIC")
    return f"{match[2]} the {WORDS.get(match[1], match[1])}"


def name_facts(name: str) -> Iterator[Fact]:
    """The object, as named; whether it was recorded again."""
    match = SEQUENCE.fullmatch(name)
    assert match is not None
    yield fact("object", match[1], Certainty.DOCUMENTED, "the sequence's name")
    yield fact(
        "task_text", "made of the sequence's name", Certainty.INFERRED, "no text is released"
    )


# -- splits --------------------------------------------------------------------------------------------------------

PROTOCOLS = ("splits_json/protocol_p1.json", "splits_json/protocol_p2.json")


def has_splits(root: Path) -> bool:
    return any(path_exists(root / name) for name in PROTOCOLS)


def source_splits(root: Path) -> dict[str, str]:
    """Split by `<subject>/<sequence>`; a sequence that no protocol lists is not in it.

    Raises:
        ConfigError: a file that is no JSON.
    """
    splits: dict[str, str] = {}
    for path in (root / name for name in PROTOCOLS if path_exists(root / name)):
        for where, sequence in members(path, inside=SPLITS):
            if len(where) == 2 and isinstance(sequence, str):
                splits[sequence] = strictest((splits.get(sequence, ""), where[0]))
    return splits
