"""The list of measures: what each gives, in which unit, at which version. A threshold is never here: see the tier policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.curation.measurements.view import EpisodeView
from schemas.errors import ConfigError
from schemas.geometry import Array
from schemas.measurement import Measurement

# Module of ingest/curation/measure -> loaded when asked for. Each has `MEASURE`.
MODULES: tuple[str, ...] = (
    "motion",
    "smoothness",
    "limits",
    "reversals",
    "gripper",
    "command",
    "stuck_columns",
    "validity",
    "length",
    "endpoints",
    "arm_swap",
    "replay",
    "trajectory",
    "row_hash",
    "image_signature",
    "video",
    "alignment",
    "camera",
    "projection",
    "language",
    "label",
    "hands",
    "fact_certainty",
    "hand_detections",
    "hoi",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputField:
    """One name that a measure writes."""

    name: str
    unit: str
    about: str  # one line: what it is, and its source
    is_interval: bool = False  # rows with start and end instead of one for the episode

    def row(
        self, value: float, denominator: int, span: tuple[int, int] | None = None
    ) -> Measurement:
        """One row of this name: of the whole episode, or of timesteps [start, end)."""
        start, end = span or (None, None)
        return Measurement(
            name=self.name,
            value=float(value),
            unit=self.unit,
            denominator=int(denominator),
            start=start,
            end=end,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A family of numbers computed together by one pure function; raise `version` when any value would change.

    `vectors` gives what is no number, by kind, for the `signatures` table: it is computed and committed together with the
    measure's numbers, so what has these at this version has those too.

    `needs_model`: it is not run without that model. `optional_model`: it is run without, but the model makes its numbers better; `has_model`: it is
    there. `of_people`: of episodes that show a person only; robots get no rows, not even empty ones.
    """

    name: str
    version: int
    outputs: tuple[OutputField, ...]
    compute: Callable[[EpisodeView], Iterable[Measurement]]
    needs_video: bool = False
    vectors: Callable[[EpisodeView], Mapping[str, Array]] | None = None  # kind -> [n]
    needs_model: str | None = None
    optional_model: str | None = None
    has_model: bool = False  # `with_models` says so
    of_people: bool = False

    @property
    def stored_version(self) -> int:
        """The version that its rows carry; readers take the highest.

        Where a model is gained from each version has two of them, without the model and above it with, so that what is better is read.
        """
        return self.version if self.optional_model is None else 2 * self.version + self.has_model

    def gained(self, stored: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
        """Whether rows of these stored versions (0: none) were made with the model that is gained from."""
        return np.asarray((stored % 2 == 1) & (self.optional_model is not None))


ENTRY_POINTS = "eicorpus.measures"  # the group in which installed packages name their measures


@cache
def measures() -> dict[str, Measure]:
    """All measures of eicorpus by name."""
    declared = [import_module(f"ingest.curation.measurements.each.{m}").MEASURE for m in MODULES]
    return {measure.name: measure for measure in declared}


@cache
def measures_of_packages() -> dict[str, str]:
    """Name -> `module:OBJECT` of the measures that installed packages bring, none of them imported; a name of `measures` stays ours."""
    from importlib.metadata import entry_points

    points = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    return {name: points[name] for name in sorted(points) if name not in measures()}


@cache
def measure_of_package(name: str) -> Measure:
    """A measure that an installed package brings, imported now.

    Raises:
        ConfigError: it cannot be imported, is no `Measure` of this name, or writes names that are not below its own.
    """
    place = measures_of_packages()[name]
    module, _, attribute = place.partition(":")
    try:
        measure = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f"measure {place!r} cannot be imported: {error}",
            remedy="repair or uninstall the package of this measure",
        ) from error
    if not isinstance(measure, Measure) or measure.name != name:
        raise ConfigError(f"{place!r} is not a Measure named {name!r}, the name of its entry point")
    if odd := [each.name for each in measure.outputs if package_measure_of(each.name) != name]:
        raise ConfigError(
            f"{place!r} writes {odd}; expected {name!r} or a name that begins with {name}."
        )
    return measure


def package_measure_of(output: str) -> str | None:
    """The measure of a package that writes this name, as the name itself tells: `NAME`, or `NAME.` with something behind it."""
    first = output.partition(".")[0]
    return first if first in measures_of_packages() else None


def output_names() -> dict[str, OutputField]:
    """Everything that the measures of eicorpus write, by the name it has in the catalog."""
    return {output.name: output for measure in measures().values() for output in measure.outputs}


def select_measures(names: Iterable[str]) -> list[Measure]:
    """The measures called `names`, or all of eicorpus: one of an installed package is imported only when it is named.

    Raises:
        ConfigError: there is none of that name.
    """
    selected = list(names)
    known = {*measures(), *measures_of_packages()}
    if unknown := sorted(set(selected) - known):
        raise ConfigError(f"no measure {unknown}; expected one of {', '.join(sorted(known))}")
    ours = [m for m in measures().values() if not selected or m.name in selected]
    return ours + [measure_of_package(n) for n in sorted(set(selected) - set(measures()))]


def add_models(selected: Iterable[Measure], models: Mapping[str, str]) -> list[Measure]:
    """Those that can be run with the models that are there, and which of them gain from one. `models`: name -> file."""
    return [
        replace(measure, has_model=measure.optional_model in models)
        for measure in selected
        if measure.needs_model is None or measure.needs_model in models
    ]


def compute(measure: Measure, view: EpisodeView) -> Iterator[Measurement]:
    """What a measure says of an episode, and for each name it says nothing about one row without a value.

    So a name that is not in the catalog was never measured, and one without a value was, in vain.
    """
    declared = {output.name for output in measure.outputs}
    yielded = set()
    for measurement in measure.compute(view):
        if measurement.name not in declared:
            raise ValueError(
                f"{measure.name} returns {measurement.name}, which it does not declare"
            )
        yielded.add(measurement.name)
        yield measurement
    for output in measure.outputs:
        if output.name not in yielded:
            yield Measurement(name=output.name, value=None, unit=output.unit, denominator=0)
