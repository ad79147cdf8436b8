"""Runs of timesteps and the text of each."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.transforms.resample import runs, segment_rows, span, task_of_timesteps
from schemas.episode import Instruction

MS = 1_000_000
AT = np.arange(5, dtype=np.int64) * 100 * MS  # 0, 100, ... 400 ms


def said(text: str, start_ms: int, end_ms: int | None, kind: str = "subtask") -> Instruction:
    end = None if end_ms is None else end_ms * MS
    return Instruction(text=text, start_ns=start_ms * MS, end_ns=end, kind=kind)


@pytest.mark.parametrize(
    ("mask", "want"),
    [
        ("", []),
        ("...", []),
        ("###", [(0, 3)]),
        ("#..#", [(0, 1), (3, 4)]),
        (".##.#.", [(1, 3), (4, 5)]),
    ],
)
def test_runs_by_hand(mask: str, want: list[tuple[int, int]]) -> None:
    assert runs(np.array([c == "#" for c in mask], dtype=bool)) == want


@given(st.lists(st.booleans(), max_size=30))
def test_runs_are_maximal_and_complete(mask: list[bool]) -> None:
    found = runs(np.array(mask, dtype=bool))
    covered = [k for start, end in found for k in range(start, end)]
    assert covered == [k for k, is_set in enumerate(mask) if is_set]
    assert all(b > a for a, b in found)
    assert all(start > end for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "want"),
    [
        (0, None, (0, 5)),
        (100, 300, (1, 3)),  # half-open: 300 ms is no longer it
        (101, 301, (2, 4)),
        (401, 500, (5, 5)),
        (110, 190, (2, 2)),  # between two timesteps
        (-50, 50, (0, 1)),
    ],
)
def test_spans_by_hand(start_ms: int, end_ms: int | None, want: tuple[int, int]) -> None:
    assert span(said("x", start_ms, end_ms), AT) == want


def test_a_subtask_speaks_before_the_task() -> None:
    whole = Instruction(text="whole")
    texts = task_of_timesteps((said("part", 100, 300), whole), AT)
    assert texts == ["whole", "part", "part", "whole", "whole"]


def test_the_later_of_overlapping_subtasks_speaks() -> None:
    texts = task_of_timesteps((said("late", 200, 400), said("early", 0, 300)), AT)
    assert texts == ["early", "early", "late", "late", ""]


def test_a_summary_is_no_task() -> None:
    assert task_of_timesteps((said("C tidies", 0, None, "summary"),), AT) == [""] * 5
    assert task_of_timesteps((), AT) == [""] * 5


def test_rows_by_hand() -> None:
    valid = np.array([True, True, False, True, True])
    instructions = (
        Instruction(text="whole"),
        said("part", 100, 300),
        said("in between", 110, 190),  # no timestep: no row
        said("C tidies", 0, 200, "summary"),
    )
    rows = segment_rows("u", valid, instructions, AT, 10.0)
    assert [(r.kind, r.start, r.end, r.text) for r in rows] == [
        ("valid_run", 0, 2, ""),
        ("valid_run", 3, 5, ""),
        ("task", 0, 5, "whole"),
        ("subtask", 1, 3, "part"),
        ("summary", 0, 2, "C tidies"),
    ]
    assert [r.segment_index for r in rows] == [0, 1, 2, 3, 4]
    assert (rows[1].start_s, rows[1].end_s) == (0.3, 0.5)
