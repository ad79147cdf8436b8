"""Everything an episode was instructed to do, as its mapping declares it.

Instructions of a LeRobot episode: integer columns that refer to the task table, row by row.

The rows decide. tasks.jsonl and episodes.jsonl may name different tasks (RoboCOIN), or hold integers where texts belong
(Humanoid Everyday); what they say is compared, and a contradiction becomes a fact.

All instructions of an episode: the task table, label columns and skills, as its mapping declares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.lerobot_episodes import read_tasks
from adapters.containers.lerobot_meta import Modality
from adapters.containers.lerobot_table import TableRows
from adapters.lerobot.labels import labelled, skills_of
from adapters.lerobot.places import SetMeta
from schemas.episode import Instruction
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact

# -- instructions --------------------------------------------------------------------------------------------------

DEFAULT = "task_index"
_LABEL_TYPES = ("validity",)  # annotation.<source>.<type>: a label of quality, not a text to follow


def instruction_columns(declared: tuple[str, ...], modality: Modality) -> tuple[str, ...]:
    """Columns that may point into the task table, best first: as declared, else modality.json, else task_index."""
    if declared:
        return (*declared, DEFAULT)
    annotated = [
        pointer.original_key or f"annotation.{key}"
        for key, pointer in modality.annotation.items()
        if not set(key.split(".")[1:2]) & set(_LABEL_TYPES)
    ]
    return (*annotated, DEFAULT)


def instructions_of(
    rows: TableRows,
    t_ns: npt.NDArray[np.int64],
    columns: tuple[str, ...],
    tasks: Mapping[int, str],
    stated: tuple[str | int, ...],
) -> tuple[tuple[Instruction, ...], tuple[Fact, ...]]:
    """The task texts over time, exactly as written, and what contradicts them.

    Args:
        rows: N rows; t_ns: [N] their times.
        columns: as from `instruction_columns`; those that the rows lack are passed over. task_index is used only when
            none of the others is there.
        tasks: task table; stated: what the episode table says.

    Raises:
        SourceError: BAD_ANNOTATION, a row points to a task that is not in the table.
    """
    present = [c for c in columns if rows.has(c)]
    chosen = [c for c in present if c != DEFAULT or c in columns[:-1]] or present
    texts = tuple(str(tasks.get(s, s)) if isinstance(s, int) else s for s in stated)
    if not chosen or not tasks:
        return _stated_only(texts)
    out: list[Instruction] = []
    for column in dict.fromkeys(chosen):
        out += _runs(rows, column, t_ns, tasks)
    texts_of_rows = {i.text for i in out}
    if texts and not texts_of_rows & set(texts):
        value = f"rows say {sorted(texts_of_rows)}; the episode table says {sorted(set(texts))}"
        return tuple(dict.fromkeys(out)), (_fact("contradiction, the rows are used", value),)
    return tuple(dict.fromkeys(out)), ()


def _runs(
    rows: TableRows, column: str, t_ns: npt.NDArray[np.int64], tasks: Mapping[int, str]
) -> list[Instruction]:
    """One instruction per run of equal indices; a single run is the task of the whole episode."""
    index = rows.integers(column)
    if unknown := sorted(set(np.unique(index).tolist()) - set(tasks)):
        problem = (
            f"task indices {unknown[:5]} are not in the task table, which has {len(tasks)} entries"
        )
        raise SourceError(Code.BAD_ANNOTATION, problem, where=f"{rows.where}:{column}")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(index)) + 1])
    kind = "task" if len(starts) == 1 else "subtask"
    ends = [*(int(t_ns[s]) for s in starts[1:]), None]
    return [
        Instruction(text=tasks[int(index[s])], start_ns=int(t_ns[s]), end_ns=end, kind=kind)
        for s, end in zip(starts, ends, strict=True)
        if tasks[int(index[s])].strip()
    ]


def _stated_only(texts: tuple[str, ...]) -> tuple[tuple[Instruction, ...], tuple[Fact, ...]]:
    """With no index in the rows the episode table is all there is, and only one text can be placed in time."""
    texts = tuple(t for t in texts if t.strip())
    if len(texts) == 1:
        return (Instruction(text=texts[0]),), ()
    if not texts:
        return (), ()
    value = f"the rows point to no task and the episode table has {len(texts)}: {list(texts)[:3]}"
    return (), (_fact("left out", value),)


def _fact(value: str, source: str) -> Fact:
    return Fact(
        name="task_text",
        value=value,
        certainty=Certainty.VERIFIED,
        source=source,
        is_for_actions=False,
    )


# -- texts ---------------------------------------------------------------------------------------------------------


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
