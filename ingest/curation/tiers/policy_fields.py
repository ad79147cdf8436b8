"""Everything a tier policy may ask about: facts of episodes and segments, and measurements, each with its type and range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from ingest.curation.measurements.registry import (
    OutputField,
    measure_of_package,
    measures,
    output_names,
    package_measure_of,
)
from schemas.supervision import Task


class Kind(StrEnum):
    NUMBER = "number"
    FLAG = "true or false"
    TEXT = "text"
    LIST = "list of texts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A value that a condition compares: what type it has, and which values it can take."""

    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    values: frozenset[str] | None = None  # None: any text
    is_interval: bool = (
        False  # rows with start and end: a condition says which number of them it means
    )


SHARE = Column(kind=Kind.NUMBER, low=0.0, high=1.0)
AT_LEAST_0 = Column(kind=Kind.NUMBER, low=0.0)
FLAG = Column(kind=Kind.FLAG)
TEXT = Column(kind=Kind.TEXT)
# Units of which no value is negative; a lag in seconds may be, so seconds are not here.
NEVER_NEGATIVE = frozenset(["m", "m/s", "rad/s", "m/s^2", "mm", "Hz", "1/s", "count"])


def _text(*values: str) -> Column:
    return Column(kind=Kind.TEXT, values=frozenset(values))


EPISODE_FACTS: Mapping[str, Column] = MappingProxyType(
    {
        "source": TEXT,
        "dataset": TEXT,
        "embodiment": TEXT,
        "supervises": Column(kind=Kind.LIST, values=frozenset(task.value for task in Task)),
        "action_source": _text("commanded", "achieved", "mixed", "none"),
        "action_coverage": SHARE,
        "eef_frame": _text("hand_xfz", "source", "none"),
        "frames_verified": FLAG,
        "camera_motion_removed": FLAG,
        "success": FLAG,
        "duration_s": AT_LEAST_0,
        "licence_class": _text("permissive", "non_commercial", "no_redistribution", "unknown"),
        "allows_redistribution": FLAG,
    }
)
SEGMENT_FACTS: Mapping[str, Column] = MappingProxyType(
    {
        "segment_s": AT_LEAST_0,  # how long the segment is
        "valid_share": SHARE,  # share of its timesteps in which everything observed is valid
    }
)
GROUP_FACTS: Mapping[str, Column] = MappingProxyType(
    {  # among the others of its body and task: group_facts.py
        "length_robust_z": Column(kind=Kind.NUMBER),
        "length_fence": Column(kind=Kind.NUMBER),
        "length_ratio": AT_LEAST_0,
        "end_speed_fence": AT_LEAST_0,
        "task_deviation_m": AT_LEAST_0,
        "task_deviation_ratio": AT_LEAST_0,
    }
)
REVIEW_FACTS: Mapping[str, Column] = MappingProxyType(
    {  # of the newest review of each kind: reviewed.py
        "review_tier": _text("high", "low", "actionless", "excluded"),
        "review_exclude": FLAG,
        "review_accept": FLAG,
    }
)
MEASURED_FACTS: Mapping[str, Column] = MappingProxyType(
    {  # how many of the names that the conditions ask for were never measured: of `always_measured()` only
        "unmeasured": AT_LEAST_0,
    }
)
FACTS: Mapping[str, Column] = MappingProxyType(
    {**EPISODE_FACTS, **SEGMENT_FACTS, **GROUP_FACTS, **REVIEW_FACTS, **MEASURED_FACTS}
)
# What ingestion measured by the way (ingest/pipeline/episode_record.py) under a fixed name; names with a camera or a test in them are not for
# policies, which hold for every source.
INGESTED: tuple[OutputField, ...] = (
    OutputField(name="source_rate", unit="Hz", about="frame rate of the source"),
    OutputField(name="action_coverage", unit="share", about="timesteps with a fully valid action"),
    OutputField(name="observed_coverage", unit="share", about="fully observed timesteps"),
    *(
        OutputField(name=f"{name}.{side}", unit=unit, about=about)
        for side in ("left", "right")
        for name, unit, about in (
            ("hand_valid_share", "share", "frames in which the hand is accepted"),
            ("palm_fit_rms_mm", "mm", "median residual of the palm fit"),
            ("palm_scale", "ratio", "median ratio of the palm size to the template"),
            ("wrist_disagreement_deg", "deg", "median angle to the wrist frame of the source"),
            ("mano_fit_mean_mm", "mm", "mean residual of the MANO fit"),
            ("mano_fit_accepted_share", "share", "frames whose MANO fit is accepted"),
        )
    ),
)


def measurements(named: Iterable[str] = ()) -> dict[str, Column]:
    """Every measurement by name.

    Args:
        named: names that a policy asks for; the measures of installed packages that write them are imported.
    """
    known = {output.name: output for output in INGESTED} | output_names()
    for name in named:
        if name not in known and (measure := package_measure_of(name)):
            known |= {output.name: output for output in measure_of_package(measure).outputs}
    return {name: _column(gives) for name, gives in known.items()}


def always_measured() -> frozenset[str]:
    """What `eicorpus measure` gives every episode a row of, if only one without a value.

    Not what needs a model that may be absent, not what is of people only, and not what ingestion wrote for some sources.
    """
    return frozenset(
        output.name
        for measure in measures().values()
        if measure.needs_model is None and not measure.of_people
        for output in measure.outputs
    )


def _column(output: OutputField) -> Column:
    if output.is_interval:
        return Column(kind=Kind.NUMBER, is_interval=True)
    if output.unit in ("share", "bool"):
        return SHARE
    if output.unit == "correlation":
        return Column(kind=Kind.NUMBER, low=-1.0, high=1.0)
    return AT_LEAST_0 if output.unit in NEVER_NEGATIVE else Column(kind=Kind.NUMBER)
