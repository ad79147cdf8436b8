"""Which URDF links and joints carry each body's end-effectors, and which elements of `joint_position_rad` move them.

The facts are data (`kinematics.yaml`), each with its certainty and its public source. What is computed from them is the
pose of the `source_frame` that `embodiments.yaml` aligns. No URDF is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.episode import SIDES
from schemas.errors import ConfigError
from schemas.fact import Certainty
from schemas.invalid import reason
from schemas.yaml_text import parse_yaml


class Arm(BaseModel):
    """One kinematic chain: `joints` from base to `tip`, and how their positions are found in a stream.

    `elements` are spellings of the same joints as a stream may name them; `slices` are (width of the whole stream,
    index of the first joint) for streams whose elements carry no name of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tip: str
    joints: tuple[str, ...] = Field(min_length=1)
    elements: tuple[tuple[str, ...], ...] = ()
    slices: tuple[tuple[int, int], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Arm:
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"duplicate joint in {self.joints}")
        for spelling in self.elements:
            if len(set(spelling)) != len(self.joints):
                raise ValueError(f"{spelling} must name {len(self.joints)} different joints")
        for width, start in self.slices:
            if not 0 <= start <= width - len(self.joints):
                raise ValueError(
                    f"a slice that starts at {start} of {width} elements has no room for {len(self.joints)} joints"
                )
        return self

    def indices(self, names: tuple[str, ...], width: int) -> tuple[int, ...] | None:
        """Where each of `joints` lies in a stream of `width` elements; None when nothing says it.

        `names` are the stream's element names, empty when it has none. Names decide where any are known.
        """
        for spelling in self.elements:
            if set(spelling) <= set(names):
                return tuple(names.index(name) for name in spelling)
        start = None if names else dict(self.slices).get(width)
        return None if start is None else tuple(range(start, start + len(self.joints)))


class Kinematics(BaseModel):
    """A body's chains. `body` maps joints shared by both arms (a waist) to the element names they may have."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: str
    arms: Mapping[str, Arm]
    body: Mapping[str, tuple[str, ...]] = {}
    certainty: Certainty
    note: str = ""
    sources: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Kinematics:
        if not self.arms or not set(self.arms) <= set(SIDES):
            raise ValueError(f"sides must be left or right, found {sorted(self.arms)}")
        return self

    def indices(self, side: str, names: tuple[str, ...], width: int) -> dict[str, int]:
        """URDF joint -> element of the stream, for every joint of that side that the stream holds."""
        arm = self.arms[side]
        index_of = {
            joint: names.index(name)
            for joint, spellings in self.body.items()
            for name in spellings
            if name in names
        }
        return index_of | dict(zip(arm.joints, arm.indices(names, width) or (), strict=False))


def kinematics_from(text: str) -> dict[str, Kinematics]:
    """Parse registry YAML.

    Raises:
        ConfigError: an entry breaks a rule.
    """
    try:
        robots = parse_yaml(text)["robots"]
        return {name: Kinematics.model_validate(entry) for name, entry in robots.items()}
    except (KeyError, ValueError) as error:
        raise ConfigError(f"kinematics.yaml: {reason(error, Kinematics)}") from error


@cache
def all_kinematics() -> dict[str, Kinematics]:
    """The registry shipped with the package, by embodiment."""
    return kinematics_from(files("schemas").joinpath("kinematics.yaml").read_text())


def kinematics_of(embodiment: str) -> Kinematics:
    """Raises ConfigError: nothing is registered for that body."""
    known = all_kinematics()
    if embodiment not in known:
        problem = f"no kinematics for {embodiment!r}; known: {', '.join(sorted(known))}"
        raise ConfigError(problem, remedy="add an entry to schemas/kinematics.yaml")
    return known[embodiment]
