"""Instructions of one RLDS episode: UTF-8 text, or zero-padded Unicode code points, one per step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adapters.containers.rlds_steps import Steps
from adapters.oxe.registry import OxeSet
from schemas.episode import Instruction
from schemas.errors import Code, SourceError


def instructions_of(
    steps: Steps, entry: OxeSet, t_ns: npt.NDArray[np.int64]
) -> tuple[Instruction, ...]:
    """The task texts, alternatives included; a text that changes on the way is a subtask over its own steps.

    Raises:
        SourceError: FRAME_COUNT, or BAD_ANNOTATION for bytes that are no text.
    """
    if entry.instruction is None:
        return ()
    out: list[Instruction] = []
    for key in entry.instruction.keys:
        if steps.has(key):
            texts = _points(steps, key) if entry.instruction.is_code_points else steps.texts(key)
            out += [i for i in _runs(texts, t_ns) if i not in out]
    return tuple(out)


def _runs(texts: list[str], t_ns: npt.NDArray[np.int64]) -> list[Instruction]:
    starts = [k for k in range(len(texts)) if k == 0 or texts[k] != texts[k - 1]]
    if len(starts) == 1:
        return [Instruction(text=texts[0])] if texts[0].strip() else []
    ends = [*(int(t_ns[k]) for k in starts[1:]), None]
    return [
        Instruction(text=texts[k], start_ns=int(t_ns[k]), end_ns=end, kind="subtask")
        for k, end in zip(starts, ends, strict=True)
        if texts[k].strip()
    ]


def _points(steps: Steps, key: str) -> list[str]:
    points = steps.numbers(key).reshape(steps.num_steps, -1)
    if (
        points.dtype.kind not in "iu"
        or points.min(initial=0) < 0
        or points.max(initial=0) > 0x10FFFF
    ):
        problem = f"{points.dtype} values up to {points.max(initial=0)} are not Unicode code points"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=key)
    return ["".join(map(chr, row[row != 0])) for row in points]
