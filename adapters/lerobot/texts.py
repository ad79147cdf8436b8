"""All instructions of an episode: the task table, label columns and skills, as its mapping declares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.lerobot_episodes import read_tasks
from adapters.containers.lerobot_table import TableRows
from adapters.lerobot.instructions import instruction_columns, instructions_of
from adapters.lerobot.labels import labelled, skills_of
from adapters.lerobot.places import SetMeta
from schemas.episode import Instruction
from schemas.fact import Fact


def extra_columns(meta: SetMeta) -> tuple[str, ...]:
    """The columns beside states and actions that declared texts and intrinsics are in."""
    labels = [label.column for label in meta.mapping.labels] if meta.mapping else []
    cameras = [i.column for i in meta.mapping.intrinsics if i.column] if meta.mapping else []
    instruction_columns = () if annotation_columns(meta) else _index_columns(meta)
    return (*instruction_columns, *labels, *cameras)


def annotation_columns(meta: SetMeta) -> tuple[str, ...]:
    """Columns that modality.json lists as annotations: a text only where integers are stored, which point into the task table."""
    mapping = meta.mapping
    if mapping and (mapping.instructions or mapping.text_from == "episodes"):
        return ()
    return _index_columns(meta)


def texts_of(
    rows: TableRows,
    t_ns: npt.NDArray[np.int64],
    root: Path,
    meta: SetMeta,
    stated: tuple[str | int, ...],
    skills: str | None,
) -> tuple[tuple[Instruction, ...], tuple[Fact, ...]]:
    """The instructions of an episode and the facts about them.

    Args:
        stated: what the episode table says; skills: the annotation file of the episode, relative to the root, or None.

    Raises:
        SourceError: as `instructions_of`, `labelled` and `skills_of`.
    """
    mapping = meta.mapping
    tasks = read_tasks(root, meta.info.major or 2, mapping.task_text if mapping else "task")
    instructions, facts = instructions_of(rows, t_ns, _index_columns(meta), tasks, stated)
    if mapping is None:
        return instructions, facts
    more, more_facts = labelled(rows, t_ns, root, mapping)
    done, done_facts = skills_of(skills, t_ns, root) if skills else ([], [])
    kept = [i for i in (*instructions, *more, *done) if i.text not in mapping.no_text]
    return tuple(kept), (*facts, *more_facts, *done_facts)


def _index_columns(meta: SetMeta) -> tuple[str, ...]:
    mapping = meta.mapping
    if mapping and mapping.text_from == "episodes":
        return ()
    return instruction_columns(mapping.instructions if mapping else (), meta.modality)
