"""Where the parts of an ARCTIC sequence lie, and what its name says.

    raw_seqs/<subject>/<sequence>.mano.npy           hands.py
    raw_seqs/<subject>/<sequence>.egocam.dist.npy    camera.py
    {cropped_images,images}/<subject>/<sequence>/0/<picture>.jpg    view 0 is the head camera
    meta/misc.json                                   of each subject the number of picture that is row 0, and sizes
<sequence> = <object>_<grab|use>_<nn>[_retake[n]]. Sources: `zc-alexfan/arctic:{docs/data/data_doc.md,scripts_data/
unzip_download.py,bash/assets/urls/images.txt}` (doc, code).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from schemas.fact import Certainty, Fact, fact

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
