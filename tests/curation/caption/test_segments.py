"""What of an episode gets a caption of its own."""

from __future__ import annotations

from typing import Any

from ingest.curation.captions.protocol import Segment
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.work import segments_of


def told(kind: str, start: int, end: int, text: str = "") -> dict[str, Any]:
    return {"kind": kind, "start": start, "end": end, "text": text}


def spans(length: int, *rows: dict[str, Any]) -> list[tuple[int, int, tuple[str, ...]]]:
    found = segments_of({"uid": "u", "length": length}, rows, 10.0, CaptionSettings())
    assert all(isinstance(one, Segment) for one in found)
    return [(one.start, one.end, one.texts) for one in found]


def test_texts_make_segments_and_the_rest_goes_into_windows() -> None:
    assert spans(20) == [(0, 20, ())]
    assert spans(9) == []  # shorter than a second, and nothing is said
    assert spans(9, told("task", 0, 9, "take cup")) == [(0, 9, ("take cup",))]
    assert spans(300) == [(0, 100, ()), (100, 200, ()), (200, 300, ())]  # 12 s at most
    assert spans(120) == [(0, 120, ())]
    odd = (told("task", 5, 5, "x"), told("task", -9, -1, "x"), told("task", 20, 900, "take cup"))
    assert spans(30, *odd) == [(0, 20, ()), (20, 30, ("take cup",))]
    rows = (
        told("valid_run", 0, 60),
        told("task", 0, 60, "grab cup"),
        told("task", 0, 60, "take cup"),
        told("task", 0, 60, "take cup"),
        told("subtask", 10, 20, "none"),
        told("summary", 0, 80, "a kitchen"),
    )
    assert spans(80, *rows) == [
        (0, 60, ("grab cup", "take cup")),
        (10, 20, ()),
        (60, 80, ()),
    ]
