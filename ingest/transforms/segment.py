"""Runs of timesteps: where a mask holds, and where an instruction holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ingest.transforms.resample import Mask
from ingest.transforms.time_grid import Instants
from schemas.episode import Instruction


def runs(mask: Mask) -> list[tuple[int, int]]:
    """Half-open [start, end) runs of True in `mask` [K]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def span(instruction: Instruction, at: Instants) -> tuple[int, int]:
    """Timesteps [start, end) whose instant lies in the instruction's [start_ns, end_ns)."""
    start = int(np.searchsorted(at, instruction.start_ns, side="left"))
    if instruction.end_ns is None:
        return start, len(at)
    return start, int(np.searchsorted(at, instruction.end_ns, side="left"))


def task_of_timesteps(instructions: tuple[Instruction, ...], at: Instants) -> list[str]:
    """The text that holds at each timestep: a sub-task where one is given, else the whole task, else "".

    Where sub-tasks overlap the one that starts later wins: it is the more specific.
    """
    texts = [""] * len(at)
    order = {"task": 0, "subtask": 1}
    for instruction in sorted(
        (i for i in instructions if i.kind in order), key=lambda i: (order[i.kind], i.start_ns)
    ):
        start, end = span(instruction, at)
        texts[start:end] = [instruction.text] * (max(end, start) - start)
    return texts


def segment_rows(
    valid: Mask, instructions: tuple[Instruction, ...], at: Instants, rate_hz: float
) -> list[dict[str, Any]]:
    """Rows of the `segments` table without uid: the valid runs first, then every instruction that covers a timestep."""
    segments = [("valid_run", start, end, "") for start, end in runs(valid)]
    for instruction in instructions:
        start, end = span(instruction, at)
        if end > start:
            segments.append((instruction.kind, start, end, instruction.text))
    return [
        {
            "segment_index": index,
            "kind": kind,
            "start": start,
            "end": end,
            "start_s": start / rate_hz,
            "end_s": end / rate_hz,
            "text": text,
        }
        for index, (kind, start, end, text) in enumerate(segments)
    ]
