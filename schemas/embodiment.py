"""Bodies that act, and the constant transform from each one's own end-effector frame to `hand_xfz`.

The facts are data (`embodiments.yaml`), each with its certainty and its public source. A robot that is not listed
is a body without known frames: its poses stay in the source's frame and supervise less.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from schemas.errors import ConfigError
from schemas.fact import Certainty, Fact
from schemas.geometry import rotation_error, transform
from schemas.invalid import reason
from schemas.yaml_text import parse_yaml


class Known(BaseModel):
    """How sure we are, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    certainty: Certainty
    note: str = ""


class EefConvention(BaseModel):
    """One end-effector frame as a source records it.

    `R_src_to_can` [3][3] has the canonical axes as columns in source axes; `tcp_xyz_src_m` is the grasp centre in
    source axes, metres. None if it is not documented.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    source_frame: str
    R_src_to_can: tuple[tuple[float, float, float], ...] | None
    tcp_xyz_src_m: tuple[float, float, float] | None
    axes: Known
    origin: Known
    base: dict[str, Any] = {}
    rotation_form_note: str = ""
    gripper: dict[str, Any] = {}
    gripper_certainty: Certainty = Certainty.UNKNOWN
    evidence: str = ""
    trap: str = ""
    datasets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> EefConvention:
        if self.R_src_to_can is not None and rotation_error(self.R_src_to_can) > 1e-6:
            raise ValueError(
                f"R_src_to_can {self.R_src_to_can} is not a rotation matrix (determinant +1)"
            )
        if (self.R_src_to_can is None) != (self.axes.certainty is Certainty.UNKNOWN):
            raise ValueError("R_src_to_can must be null if and only if the axes are unknown")
        if (self.tcp_xyz_src_m is None) != (self.origin.certainty is Certainty.UNKNOWN):
            raise ValueError("tcp_xyz_src_m must be null if and only if the origin is unknown")
        return self

    @property
    def T_src_hand(self) -> npt.NDArray[np.float64] | None:
        """[4, 4] pose of `hand_xfz` in the source's end-effector frame; None when the axes are unknown.

        With an unknown origin the translation is zero: the origin stays at the source link.
        """
        if self.R_src_to_can is None:
            return None
        return transform(self.R_src_to_can, self.tcp_xyz_src_m or (0.0, 0.0, 0.0))

    @property
    def base_axes(self) -> dict[str, int]:
        """What is known of the base's axes: word (forward, left, right, up) -> 0, 1 or 2 for x, y, z."""
        axes = re.findall(r"([xyz]) (forward|left|right|up)", str(self.base.get("axes", "")))
        return {word: "xyz".index(axis) for axis, word in axes}

    def facts(self, side: str) -> tuple[Fact, ...]:
        """What the supervision rule must know about this frame.

        A grasp centre that is only inferred is off by a constant of centimetres and bars nothing; one that is
        unknown (origin left at the source link) counts as unverified and bars the policy.
        """
        cited = "; ".join(self.sources[:2])
        axes = Fact(
            name=f"eef_axes.{side}",
            value="unknown" if self.R_src_to_can is None else "hand_xfz",
            certainty=self.axes.certainty,
            source=f"{cited} {self.axes.note}".strip(),
        )
        is_open = self.tcp_xyz_src_m is None
        origin = Fact(
            name=f"eef_origin.{side}",
            value="source link" if is_open else f"tcp {list(self.tcp_xyz_src_m or ())} m",
            certainty=Certainty.UNVERIFIED if is_open else self.origin.certainty,
            source=f"{cited} {self.origin.note}".strip(),
            is_for_actions=is_open,
        )
        return axes, origin


class Embodiment(BaseModel):
    """A body: which convention each of its sides follows ({} for a body without end-effectors)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    arms: dict[str, EefConvention]

    @field_validator("arms")
    @classmethod
    def _sides(cls, arms: dict[str, EefConvention]) -> dict[str, EefConvention]:
        if not set(arms) <= {"left", "right"}:
            raise ValueError(f"sides must be left or right, found {sorted(arms)}")
        return arms


UNKNOWN_EEF = EefConvention(
    source_frame="as recorded",
    R_src_to_can=None,
    tcp_xyz_src_m=None,
    axes=Known(certainty=Certainty.UNKNOWN, note="robot not in schemas/embodiments.yaml"),
    origin=Known(certainty=Certainty.UNKNOWN),
)


def registry_from(text: str) -> dict[str, Embodiment]:
    """Parse registry YAML.

    Raises:
        ConfigError: an entry breaks a rule, or names a matrix or convention that is not there.
    """
    raw = parse_yaml(text)
    try:
        conventions = {
            name: EefConvention.model_validate(
                {**entry, "R_src_to_can": raw["matrices"].get(entry["R_src_to_can"])}
                if entry["R_src_to_can"] is None
                else {**entry, "R_src_to_can": raw["matrices"][entry["R_src_to_can"]]}
            )
            for name, entry in raw["conventions"].items()
        }
        return {
            name: Embodiment(name=name, arms={side: conventions[c] for side, c in arms.items()})
            for name, arms in raw["embodiments"].items()
        }
    except (KeyError, ValueError) as error:
        raise ConfigError(f"embodiments.yaml: {reason(error)}") from error


@cache
def embodiments() -> dict[str, Embodiment]:
    """The registry shipped with the package, by name."""
    return registry_from(files("schemas").joinpath("embodiments.yaml").read_text())


def embodiment_for(name: str) -> Embodiment:
    """The registered body, or one whose frames are all unknown (an unlisted robot)."""
    return embodiments().get(name) or Embodiment(
        name=name, arms={"left": UNKNOWN_EEF, "right": UNKNOWN_EEF}
    )
