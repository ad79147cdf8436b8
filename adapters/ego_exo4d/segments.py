"""Keysteps and atomic descriptions of Ego-Exo4D to segments in seconds of the take. Pure but for reading the JSON files.

Source: EGO4D/Ego-Exo4D-docs:docs/annotations (documented); the interval of a description, which is a point, is inferred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from adapters.containers.json_rows import Broken, JsonRow, Seconds, Text, members, parse, parse_rows

# A description is a point, late or early by 1 to 2 s: half a gap to each side, within these.
SHORTEST_HALF_S, LONGEST_HALF_S = 0.5, 4.0
WEARER = "C"


def _flag(value: Any) -> Any:
    """Real files have true and false, and also "1" and "0"."""
    return (
        {"1": True, "0": False, "true": True, "false": False}.get(value, value)
        if isinstance(value, str)
        else value
    )


Flag = Annotated[bool, BeforeValidator(_flag)]


class Keystep(JsonRow):
    start_time: Seconds
    end_time: Seconds
    step_name: Text | None = None
    step_description: Text | None = None


class KeystepTake(JsonRow):
    segments: list[Any] = Field(default_factory=list)


class AtomicDescription(JsonRow):
    time_s: Seconds = Field(validation_alias="timestamp")
    text: Text
    subject: Text | None = Field(
        default=None, validation_alias=AliasChoices("subject", "narration_subject")
    )
    ego_visible: Flag | None = None
    unsure: Flag | None = False


class Annotator(JsonRow):
    rejected: Flag | None = False
    descriptions: list[Any] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgoExo4dSegment:
    """[start_s, end_s) of a take with its text, or `why` it is none."""

    key: str
    start_s: float = 0.0
    end_s: float = 0.0
    text: str = ""
    why: str = ""


def annotated(kind: str, path: Path) -> Iterator[tuple[str, list[EgoExo4dSegment], Counter[str]]]:
    """(take uid, segments, rows left out by reason) of each take of a file."""
    seen: set[str] = set()
    for number, (where, raw) in enumerate(members(path, inside=("annotations",))):
        if where[0] != "annotations" or len(where) != 2:
            continue
        if where[1] in seen:
            again = EgoExo4dSegment(
                key=f"{kind}/again_{number}", why="one file lists the take twice"
            )
            yield where[1][:200], [again], Counter()
            continue
        seen.add(where[1])
        parsed = keysteps(raw) if kind == "keystep" else descriptions(raw)
        yield where[1][:200], *parsed


def keysteps(raw: Any) -> tuple[list[EgoExo4dSegment], Counter[str]]:
    """`keystep/i` for each segment: the description, else the name of its step."""
    take = parse(KeystepTake, raw)
    if isinstance(take, Broken):
        return [EgoExo4dSegment(key="keystep", why=take.why)], Counter()
    segments = []
    for i, row in enumerate(parse_rows(Keystep, take.segments)):
        key = f"keystep/{i}"
        if isinstance(row, Broken):
            segments.append(EgoExo4dSegment(key=key, why=row.why))
        elif row.end_time <= row.start_time:
            segments.append(
                EgoExo4dSegment(key=key, why=f"from {row.start_time} to {row.end_time} s")
            )
        else:
            text = row.step_description or row.step_name or ""
            start, end = float(row.start_time), float(row.end_time)
            segments.append(EgoExo4dSegment(key=key, start_s=start, end_s=end, text=text))
    return segments, Counter()


def descriptions(raw: Any) -> tuple[list[EgoExo4dSegment], Counter[str]]:
    """`atomic/i.j` for description j of annotator i: what the wearer visibly and surely does."""
    segments: list[EgoExo4dSegment] = []
    left_out: Counter[str] = Counter()
    for i, annotator in enumerate(parse_rows(Annotator, raw if isinstance(raw, list) else [raw])):
        if isinstance(annotator, Broken):
            segments.append(EgoExo4dSegment(key=f"atomic/{i}", why=annotator.why))
            continue
        rows = parse_rows(AtomicDescription, annotator.descriptions)
        if annotator.rejected:
            left_out["atomic_rejected"] += len(rows)
            continue
        times = sorted({float(r.time_s) for r in rows if isinstance(r, AtomicDescription)})
        for j, row in enumerate(rows):
            key = f"atomic/{i}.{j}"
            if isinstance(row, Broken):
                segments.append(EgoExo4dSegment(key=key, why=row.why))
            elif why := why_left_out(row):
                left_out[why] += 1
            else:
                start, end = interval(float(row.time_s), times)
                segments.append(EgoExo4dSegment(key=key, start_s=start, end_s=end, text=row.text))
    return segments, left_out


def why_left_out(row: AtomicDescription) -> str | None:
    if row.subject is not None and row.subject != WEARER:
        return "atomic_other_person"
    if row.unsure:
        return "atomic_unsure"
    return "atomic_not_visible" if row.ego_visible is False else None


def interval(time_s: float, times_s: list[float]) -> tuple[float, float]:
    """Half the gap to each neighbour among the annotator's sorted instants, each half within [0.5, 4] s.

    At either end the one gap there is counts for both sides; a single description gets the shortest.
    """
    gaps = dict(pairwise(times_s))
    after = gaps.get(time_s, time_s) - time_s
    before = time_s - next((a for a, b in gaps.items() if b == time_s), time_s)
    halves = [
        min(max((x or before or after) / 2, SHORTEST_HALF_S), LONGEST_HALF_S)
        for x in (before, after)
    ]
    return max(time_s - halves[0], 0.0), time_s + halves[1]
