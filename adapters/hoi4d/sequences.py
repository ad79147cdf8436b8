"""HOI4D sequences: where their parts are, their published split, their texts, and the facts about their conventions.

Where the parts of a HOI4D sequence lie: released as four archives, which people unpack beside or into each other.

    <sequence> = ZY*/H*/C*/N*/S*/s*/T*      camera, person, object class, object, room, layout, task
    [HOI4D_release/]<sequence>/align_rgb/image.mp4
    [HOI4D_annotations/]<sequence>/{3Dseg/output.log,action/color.json}
    [handpose/]refinehandpose_{right,left}/<sequence>/<frame>.pickle
    camera_params/ZY*/intrin.npy
    definitions/task/task_definitions.csv, release.txt, testset.txt      of the repository HOI4D-Instructions
Sources: `leolyliu/HOI4D-Instructions:README.md` (the tree, object classes; doc), `RchalYang/EgoVLA_Release:human_plan/
dataset_preprocessing/hoi4d/utils.py` (the archives beside each other; code).

Which split HOI4D publishes a sequence in, by the two lists of the repository HOI4D-Instructions; one sequence a line.

    testset.txt    the test set
    release.txt    what was released while "the rest of the data is temporarily kept as a testset" (README.md): the training set
31 sequences are in both lists (counted in the lists; issue 24 of the repository is open): they are test. Source:
`leolyliu/HOI4D-Instructions:{README.md,release.txt,testset.txt}` (doc; that release.txt is the training set is inferred, also from issue 2).
`prepare_4Dseg/datalists/train_all.txt` is no split: it lists every sequence with a label file (`prepare_datalists.py`).

The words of one HOI4D sequence: the sentence of its task, and the events of its video.

    definitions/task/task_definitions.csv    Category ID, Category, T1 .. T6; "N/A" where there is no such task
    action/color.json                        info.duration, events [{event, startTime, endTime}]; or, in a few sequences,
                                             info.Duration, markResult.marks [{event, hdTimeStart, hdTimeEnd}]
Times are seconds of a video as long as `duration` says. In some sequences that is 10 where the video has 20 s, and the times are
of that clock: two public readers divide by it (third party, not by the authors: UNVERIFIED). Where no duration is given, the times
count as seconds of the video if the last event ends with it, else they are left out. Sources: `leolyliu/HOI4D-Instructions:README.md`
(first layout; doc); the second layout and the 10 s clock: public readers of HOI4D that handle both (third party).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, AliasPath, Field

from adapters.containers.json_rows import Broken, JsonRow, Seconds, Text, parse, parse_rows
from adapters.containers.listing import list_lines
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from schemas.episode import SIDES, Instruction, Licence, RawFile
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.rate import NS_PER_S
from schemas.regular_file import path_exists

# -- tree ----------------------------------------------------------------------------------------------------------

FilesAndFacts = tuple[
    list[RawFile], list[Fact]
]  # what a part was read from, and what is to be known of it

RELEASES = ("HOI4D_release", "")
ANNOTATIONS = ("HOI4D_annotations", "HOI4D_release", "")
HANDS = ("handpose/", "")
PATTERN = "ZY*/H*/C*/N*/S*/s*/T*"
SEQUENCE = re.compile("ZY#/H#/C#/N#/S#/s#/T#".replace("#", "[0-9]{1,16}"))
VIDEO, POSES, ACTIONS = "align_rgb/image.mp4", "3Dseg/output.log", "action/color.json"
TASKS = "definitions/task/task_definitions.csv"
# By class number, C1 to C20; the gaps are the authors'.
OBJECTS = (
    *("", "ToyCar", "Mug", "Laptop", "StorageFurniture", "Bottle", "Safe", "Bowl", "Bucket"),
    *("Scissors", "", "Pliers", "Kettle", "Knife", "TrashCan", "", "", "Lamp", "Stapler", ""),
    "Chair",
)


def sequences(root: Path) -> Iterator[str]:
    """Every sequence folder of the videos, relative to them, in no order."""
    base = next((root / b for b in RELEASES if next((root / b).glob(PATTERN), None)), root)
    for folder in base.glob(PATTERN):
        name = folder.relative_to(base).as_posix()
        if SEQUENCE.fullmatch(name):
            yield name


def part(root: Path, name: str, file: str) -> str:
    """`file` (VIDEO, POSES, ACTIONS) of a sequence relative to `root`, where it is or should be."""
    bases = RELEASES if file == VIDEO else ANNOTATIONS
    candidates = (f"{base}/{name}/{file}".lstrip("/") for base in bases)
    return next((p for p in candidates if path_exists(root / p)), f"{name}/{file}")


def hand_folder(root: Path, name: str, side: str) -> str | None:
    """The folder of one hand's pickles relative to `root`; None when there is none."""
    candidates = (f"{base}refinehandpose_{side}/{name}" for base in HANDS)
    return next((p for p in candidates if (root / p).is_dir()), None)


def has_hands(root: Path) -> bool:
    """Whether the archive of hand poses is here at all."""
    return any((root / f"{base}refinehandpose_{side}").is_dir() for base in HANDS for side in SIDES)


def object_of(name: str) -> str:
    """The object class of a sequence in words: "toy car"; "" for a number without a name."""
    number = int(name.split("/")[2][1:])
    words = OBJECTS[number] if number < len(OBJECTS) else ""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in words).strip()


# -- splits --------------------------------------------------------------------------------------------------------

RELEASED, TEST = "release.txt", "testset.txt"


def listed(root: Path, name: str) -> set[str]:
    """The sequences of one list; none where it is not there.

    Raises:
        ConfigError: it is no text.
    """
    return set(list_lines(root / name)) if path_exists(root / name) else set()


def source_splits(root: Path) -> dict[str, str]:
    """Split by sequence; one that neither list has is not in it."""
    trained = dict.fromkeys(listed(root, RELEASED), "train")
    return trained | dict.fromkeys(listed(root, TEST), "test")


# -- labels --------------------------------------------------------------------------------------------------------

NO_TASK = "N/A"
TILES = 0.1  # of the video's length: how near to its end the last event of an undated file must end
READERS = "public readers of HOI4D that handle it; no real file was at hand"


class Hoi4dEvent(JsonRow):
    """[start_s, end_s) on the clock of the file."""

    event: Text
    start_s: Seconds = Field(validation_alias=AliasChoices("startTime", "hdTimeStart"))
    end_s: Seconds = Field(validation_alias=AliasChoices("endTime", "hdTimeEnd"))


class Hoi4dInfo(JsonRow):
    duration_s: Seconds | None = Field(None, validation_alias=AliasChoices("duration", "Duration"))


class Actions(JsonRow):
    info: Hoi4dInfo = Hoi4dInfo()
    events: list[Any] = Field(
        default_factory=list,
        validation_alias=AliasChoices("events", AliasPath("markResult", "marks")),
    )


def task_of(root: Path, name: str) -> tuple[list[Instruction], FilesAndFacts]:
    """ "Mug: Put it in the drawer": category and sentence of the sequence's C and T.

    Raises:
        SourceError: BAD_ANNOTATION, a table without the columns.
    """
    if not path_exists(root / TASKS):
        return [], ([], [fact("task_text", f"none: no {TASKS}", Certainty.UNKNOWN, "this folder")])
    text, raw = read_sidecar(root, Sidecar(path=TASKS))
    _, _, category, _, _, _, task = name.split("/")
    for row in _tasks(text):
        sentence = row.get(task, NO_TASK)
        if row["Category ID"] == category and sentence not in ("", NO_TASK):
            return [Instruction(text=f"{row['Category']}: {sentence}")], ([raw], [])
    missing = f"none: no {category} {task}"
    return [], ([raw], [fact("task_text", missing, Certainty.UNKNOWN, TASKS)])


def _tasks(text: str) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(text.lstrip("\ufeff").splitlines(), restkey="more", restval=""))
    except csv.Error as error:
        raise SourceError(Code.BAD_ANNOTATION, f"not a table: {error}", where=TASKS) from error
    if missing := [k for k in ("Category ID", "Category") if any(k not in row for row in rows)]:
        problem = f"no column {missing}; expected Category ID, Category, T1 .. T6"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=TASKS)
    return [{k: v.strip() for k, v in row.items() if isinstance(v, str)} for row in rows]


def events_of(root: Path, path: str, length_ns: int) -> tuple[list[Instruction], FilesAndFacts]:
    """The events as subtasks, and how their clock was read; an absent or empty file says nothing.

    Raises:
        SourceError: BAD_ANNOTATION, no JSON object or not one of the two layouts.
    """
    if not path_exists(root / path):
        return [], ([], [fact("events", f"none: no {path}", Certainty.UNKNOWN, "this folder")])
    text, raw = read_sidecar(root, Sidecar(path=path))
    if not text.strip():  # one released file is empty
        return [], ([raw], [fact("events", "none: the file is empty", Certainty.VERIFIED, path)])
    actions = parse(Actions, json_object(text, path))
    if isinstance(actions, Broken):
        raise SourceError(Code.BAD_ANNOTATION, actions.why, where=path)
    rows = parse_rows(Hoi4dEvent, actions.events)
    events = [
        r
        for r in rows
        if isinstance(r, Hoi4dEvent) and 0 <= r.start_s < r.end_s and r.event.strip()
    ]
    length_s = length_ns / NS_PER_S
    scale, facts = _clock(actions.info.duration_s, events, length_s)
    facts += _left_out(len(rows), len(events))
    if scale is None:
        return [], ([raw], facts)
    spans = [(e.event.strip(), e.start_s * scale, e.end_s * scale) for e in events]
    texts = [
        Instruction(
            text=event, start_ns=round(s * NS_PER_S), end_ns=round(e * NS_PER_S), kind="subtask"
        )
        for event, s, e in spans
        if s < length_s and round(e * NS_PER_S) > round(s * NS_PER_S)
    ]
    return texts, ([raw], facts)


def _clock(
    duration_s: float | None, events: list[Hoi4dEvent], length_s: float
) -> tuple[float | None, list[Fact]]:
    """The factor by which times are stretched, None if it is unknown."""
    if duration_s is not None and duration_s > 0:
        value = f"{duration_s:g} s of labels over {length_s:.3f} s of video"
        return length_s / duration_s, [fact("event_clock", value, Certainty.THIRD_PARTY, READERS)]
    last_s = max((e.end_s for e in events), default=0.0)
    if abs(last_s - length_s) <= TILES * length_s:
        value = "no duration; seconds, because the last event ends with the video"
        return 1.0, [fact("event_clock", value, Certainty.UNVERIFIED, READERS)]
    value = f"no duration, and events end at {last_s:g} s of {length_s:.3f}: left out"
    return None, [fact("event_clock", value, Certainty.UNKNOWN, READERS)]


def _left_out(num_rows: int, num_events: int) -> Iterator[Fact]:
    if num_rows != num_events:
        value = f"{num_rows - num_events} of {num_rows} are no span with a name"
        yield fact("events_left_out", value, Certainty.VERIFIED, "the file")


# -- facts ---------------------------------------------------------------------------------------------------------

# The code is MIT; of the data third parties say CC BY-NC 4.0, and no page permits passing it on.
LICENCE = Licence(name="CC BY-NC 4.0 (inferred)", allows_commercial=False)
AUTHORS = "leolyliu/HOI4D-Instructions"
FACTS = (
    fact("rate", "15 Hz, by frame", Certainty.CODE, f"{AUTHORS}:utils/decode.py", for_actions=True),
    fact(
        "hand_frame",
        "MANO in the camera, OpenCV axes, metres",
        Certainty.DOCUMENTED,
        f"{AUTHORS}:README.md",
        for_actions=True,
    ),
    fact(
        "mano_trans",
        "uncentred: wrist = J0(beta) + trans; flat mean pose, axis-angle",
        Certainty.DOCUMENTED,
        f"{AUTHORS}:README.md (manopth)",
        for_actions=True,
    ),
    fact(
        "camera_pose",
        "camera to world, OpenCV axes",
        Certainty.CODE,
        f"{AUTHORS}:prepare_4Dseg/scene2frame.py; isl-org/Open3D:FileLOG.cpp; EgoVLA",
        for_actions=True,
    ),
    fact("world_up", "unknown: a reconstruction's world", Certainty.UNKNOWN, "nobody says"),
)
