"""What the attributes of an EgoDex file say: the task in words, and where it was recorded."""

from __future__ import annotations

from adapters.containers.hdf5 import Hdf5File
from schemas.episode import Instruction
from schemas.fact import Certainty, Fact, fact

SECOND = "2"  # of a task that is done and undone: the second text is this recording's
LONGEST_TEXT = 2_000


def instruction_of(file: Hdf5File, task: str) -> Instruction:
    """`llm_description2` where `which_llm_description` says 2, else `llm_description`, else the name of the task.

    The rule is that of `HongzheBi/H_RDT:datasets/pretrain/egodex_dataset.py`.
    """
    key = "llm_description2" if text_of(file, "which_llm_description") == SECOND else ""
    words = text_of(file, key or "llm_description") or text_of(file, "task") or task
    return Instruction(text=words.replace("_", " ") if words == task else words)


def setting_facts(file: Hdf5File) -> tuple[Fact, ...]:
    """What the file says of the table, the posture and the hand in use, in its own words."""
    environment = text_of(file, "environment")
    source = "attribute environment"
    return (fact("environment", environment, Certainty.DOCUMENTED, source),) if environment else ()


def text_of(file: Hdf5File, name: str) -> str:
    """An attribute of the file as stripped text; "" when it is absent, empty or not one text."""
    if not file.has_attribute("", name):
        return ""
    value = file.attribute("", name)
    if isinstance(value, str):
        return value.strip()[:LONGEST_TEXT]
    return str(value) if getattr(value, "shape", None) == () else ""
