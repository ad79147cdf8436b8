"""Episodes of a RoboMIND download by embodiment, and their texts.

Where the episodes of a RoboMIND download are, and of which body each is.

Texts of RoboMIND: one instruction per task, and steps of about ten thousand episodes.

    RoboMIND_v1_2_instr.csv                     (index), task, instruction: several sub-goals in one text, joined by commas
    language_description_annotation_json/*.json  [{"id": ".../<episode>/data", "response": {"task_summary", "steps": [
        {"step_description", "start_frame": "camera_top_0023.jpg", "end_frame"}]}}]
Steps were written by a model over sampled frames; both ends belong to the step, and there are gaps between steps.
Sources: `x-humanoid-robomind.github.io:static` (both files), wrong instructions `Tavish9/any4lerobot:robomind2lerobot/README.md`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, Text, parse
from adapters.containers.listing import entries_named
from adapters.containers.safe_path import inside
from schemas.document import DocumentError
from schemas.episode import Instruction
from schemas.errors import ConfigError, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.json_text import DOCUMENT, parse_json
from schemas.regular_file import read_regular

# -- tree ----------------------------------------------------------------------------------------------------------

END = "/data/trajectory.hdf5"
SUCCESS = "success_episodes"


def files_below(root: Path) -> list[str]:
    """Paths relative to `root`, in no order."""
    names = (path.relative_to(root).as_posix() for path in entries_named(root, "trajectory.hdf5"))
    return [name for name in names if name.endswith(END) and f"/{SUCCESS}/" in f"/{name}"]


def split_folder(name: str) -> str:
    """`train` or `val`: what lies between success_episodes and the episode; "" where the episode lies there itself."""
    below = f"/{name.removesuffix(END)}".rpartition(f"/{SUCCESS}/")[2]
    return below.rpartition("/")[0]


def body_of(root: Path, name: str, options: Mapping[str, str]) -> str:
    """From the option, else from the last folder named h5_<body>, the root itself among them; "" for none."""
    parts = (root.resolve().name, *name.split("/"))
    bodies = [part.removeprefix("h5_") for part in parts if part.startswith("h5_")]
    return options.get("body", bodies[-1] if bodies else "")


# -- language ------------------------------------------------------------------------------------------------------

MAX_BYTES = DOCUMENT.max_bytes  # the largest that is published has a few MiB
MAX_STEPS = 60
FOLDER = "language_description_annotation_json"
LIST = "RoboMIND*_instr.csv"
README = "Tavish9/any4lerobot:robomind2lerobot/README.md"
_FRAME = re.compile(r"[a-z_]+_([0-9]{1,7})\.jpg")

_NONE, _MARKERS, _THEM = "no instruction", "plates or cups not told apart", "'it' for 'them'"
_ONE, _ORDER = "one instruction for two sub-tasks", "sub-goals in the wrong order"
WRONG: Mapping[str, str] = {
    "3_eggplantOven": _ORDER,
    "3_eggplantoven_2": _ORDER,
    "5_eggoven_2": _NONE,
    "10_packplate": _MARKERS,
    "10_packplate_2": _MARKERS,
    "11_brushcup": "there are two cups",
    "12_packcup": _MARKERS,
    "13_packbowl": "bowls not told apart, blue and green exchanged",
    "35_putcarrot": _NONE,
    "36_putpepper": _NONE,
    "37_putegg": _NONE,
    "39_puttomato": _NONE,
    "40_putavocado": _NONE,
    "41_putplum": _NONE,
    "42_putkiwifruite": "a word is misspelt",
    "43_packplate": _THEM,
    "44_putbluebowlongreenplate": _THEM,
    "45_putgreenbowlonblueplate": _ONE,
    "46_putredbowlonwhiteplate": _ONE,
    "48_putpotatogreenplatefromsteam_2": "the last action is of the left arm",
    "52_holdercup": _ORDER,
    "53_stackcup": _ORDER,
}


class _Step(JsonRow):
    step_description: Text
    start_frame: Text
    end_frame: Text


class _Response(JsonRow):
    task_summary: Text = ""
    steps: Annotated[tuple[_Step, ...], Field(max_length=MAX_STEPS)] = ()


class _Annotated(JsonRow):
    id: Text
    response: _Response


def read_list(root: Path) -> dict[str, str]:
    """Task -> instruction, from the lists at the root or one folder below; the last wins, empty when there is none.

    Raises:
        ConfigError: a list without the columns task and instruction.
    """
    texts: dict[str, str] = {}
    for path in sorted([*root.glob(LIST), *root.glob(f"*/{LIST}")]):
        rows = csv.DictReader(io.StringIO(_text(root, path), newline=""))
        if not {"task", "instruction"} <= set(rows.fieldnames or ()):
            raise ConfigError(
                f"columns {rows.fieldnames}; expected task, instruction", where=path.name
            )
        texts |= {row["task"]: " ".join((row["instruction"] or "").split()) for row in rows}
    return texts


def read_steps(root: Path) -> dict[tuple[str, str], str]:
    """(task, episode) -> its response as compact JSON, small enough to travel with a ref.

    Raises:
        ConfigError: a file that is no JSON list. Rows that do not fit are passed over: others must not suffer.
    """
    texts: dict[tuple[str, str], str] = {}
    for path in sorted([*root.glob(f"{FOLDER}/*.json"), *root.glob(f"*/{FOLDER}/*.json")]):
        try:
            rows = parse_json(_text(root, path), allow_nan=True)
        except DocumentError as error:
            raise ConfigError(str(error), where=path.name) from error
        if not isinstance(rows, list):
            raise ConfigError("expected a list", where=path.name)
        for row in (parse(_Annotated, raw) for raw in rows):
            parts = [] if isinstance(row, Broken) else row.id.strip("/").split("/")
            if (
                not isinstance(row, Broken) and len(parts) >= 6
            ):  # h5_x/task/success_episodes/train/episode/data
                text = json.dumps(row.response.model_dump(), separators=(",", ":"))
                if len(text) < 8000:
                    texts[parts[-5], parts[-2]] = text
    return texts


def instructions_of(
    locator: Mapping[str, Any], t_ns: npt.NDArray[np.int64]
) -> tuple[list[Instruction], list[Fact]]:
    """The task's text over the whole episode unless it is known to be wrong, the summary, and the steps by row."""
    out: list[Instruction] = []
    facts: list[Fact] = []
    if why := WRONG.get(locator["task"]):
        facts.append(fact("instruction", f"left out: {why}", Certainty.THIRD_PARTY, README))
    elif locator.get("instruction"):
        out.append(Instruction(text=locator["instruction"]))
    response = _Response.model_validate(parse_json(locator.get("steps", "{}")))
    if response.task_summary.strip():
        out.append(Instruction(text=response.task_summary.strip(), kind="summary"))
    steps = list(_placed(response.steps, t_ns))
    if lost := len(response.steps) - len(steps):
        value = f"{lost} of {len(response.steps)} left out: not rows of this episode, or no text"
        facts.append(fact("steps", value, Certainty.VERIFIED, FOLDER))
    return out + steps, facts


def _placed(steps: tuple[_Step, ...], t_ns: npt.NDArray[np.int64]) -> Iterator[Instruction]:
    """Steps whose frames are rows, in order, and which say something."""
    for step in steps:
        text = " ".join(step.step_description.split())
        ends = [_FRAME.fullmatch(f) for f in (step.start_frame, step.end_frame)]
        first, last = (int(m[1]) if m else -1 for m in ends)
        if text and 0 <= first <= last < len(t_ns):
            end_ns = int(t_ns[last + 1]) if last + 1 < len(t_ns) else None
            yield Instruction(text=text, start_ns=int(t_ns[first]), end_ns=end_ns, kind="subtask")


def _text(root: Path, path: Path) -> str:
    try:
        path = inside(root, path.relative_to(root).as_posix())
        return read_regular(path, max_bytes=MAX_BYTES).decode("utf-8-sig")
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=path.name) from error
