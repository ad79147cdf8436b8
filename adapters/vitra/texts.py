"""What VITRA says about an episode: a text for each hand over frames [start, end) of it, and rewordings of each.

    text {side: [(text, (start, end))]}    text_rephrase {side: [([text, ...], (start, end))]}, entry by entry the same
Where both hands do something at once the two are joined as the authors train on them: "Left hand: ... Right hand: ..."
(`microsoft/VITRA:vitra/datasets/human_dataset.py`, code: half-open ranges too). An empty range says nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.vitra.annotation import VitraAnnotation
from schemas.episode import SIDES, Instruction
from schemas.errors import Code, SourceError

LONGEST_TEXT = 2_000
MAX_ENTRIES = 1_000
Told = Mapping[
    str, Sequence[tuple[str, int, int]]
]  # side -> (text, start, end), frames of the episode


def instructions_of(
    annotation: VitraAnnotation, t_ns: npt.NDArray[np.int64], where: str
) -> tuple[Instruction, ...]:
    """Rewordings first and the text itself last, which is the one that a timestep gets.

    Raises:
        SourceError: BAD_ANNOTATION.
    """
    T = len(annotation.frames)
    texts = _told(annotation.text, T, where)
    reworded = _told_anew(annotation.text_rephrase, T, where)
    out = dict.fromkeys(i for words in (texts, *reworded) for i in _joined(words, T, t_ns))
    return tuple(reversed(out))


def _joined(texts: Told, T: int, t_ns: npt.NDArray[np.int64]) -> Iterator[Instruction]:
    """Stretch by stretch between the ends of all ranges: what is said of the hands then."""
    edges = sorted({0, T, *(at for rows in texts.values() for _, *span in rows for at in span)})
    for start, end in pairwise(edges):
        by_side = {
            side: " ".join(text for text, a, b in texts.get(side, ()) if a <= start and end <= b)
            for side in SIDES
        }
        by_side = {side: text for side, text in by_side.items() if text}
        if by_side:
            yield Instruction(
                text=_both(by_side),
                start_ns=int(t_ns[start]),
                end_ns=int(t_ns[end]) if end < T else None,
                kind="task" if (start, end) == (0, T) else "subtask",
            )


def _both(by_side: Mapping[str, str]) -> str:
    if len(by_side) == 1:
        return next(iter(by_side.values()))
    return " ".join(
        f"{s.capitalize()} hand: {t if t.endswith('.') else t + '.'}" for s, t in by_side.items()
    )


def _told(raw: Any, T: int, where: str) -> Told:
    return {
        side: [(_text(words, where), *span) for words, span in _rows(raw, side, T, where)]
        for side in SIDES
    }


def _told_anew(raw: Any, T: int, where: str) -> Iterator[Told]:
    """The k-th rewording of every entry, for each k; an entry whose rewordings are no list has none."""
    rows = {side: _rows(raw, side, T, where) for side in SIDES}
    lists = [words for entries in rows.values() for words, _ in entries if isinstance(words, list)]
    for k in range(min(max(map(len, lists), default=0), MAX_ENTRIES)):
        yield {
            side: [
                (_text(words[k], where), *span)
                for words, span in entries
                if isinstance(words, list) and k < len(words)
            ]
            for side, entries in rows.items()
        }


def _rows(raw: Any, side: str, T: int, where: str) -> list[tuple[Any, tuple[int, int]]]:
    """(words, (start, end)) of one hand with start < end <= T."""
    if raw is None:
        return []
    rows = raw.get(side, []) if isinstance(raw, dict) else None
    if not isinstance(rows, (list, tuple)) or len(rows) > MAX_ENTRIES:
        problem = f"the texts of the {side} hand are a {type(rows).__name__}; expected a list"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    out = []
    for row in rows:
        match row:
            case (words, (int() | np.integer() as a, int() | np.integer() as b)) if 0 <= a <= b:
                out += [(words, (int(a), min(int(b), T)))] if a < min(b, T) else []
            case _:
                problem = f"{str(row)[:200]}; expected (text, (first frame, end))"
                raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return out


def _text(words: Any, where: str) -> str:
    if not isinstance(words, str):
        problem = f"found a {type(words).__name__}; expected text"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return words.strip()[:LONGEST_TEXT]
