"""ActionSpec: a flat vector as named slices instead of `[..., :7]`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.episode import SIDES, Unit
from schemas.hand import joint_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One named part of a vector, its width and unit."""

    name: str
    width: int
    unit: str

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ValueError(f"slice {self.name}: invalid width {self.width}")


# Order of design §3.3, for each side in turn. Width 0 stands for "as many as the hand has".
PARTS: tuple[tuple[str, int, str], ...] = (
    ("position_m", 3, Unit.METRE),
    ("rot6d_cols", 6, "rotation"),
    ("gripper_opening", 1, Unit.FRACTION),
    ("hand_keypoints_m", 63, Unit.METRE),
    ("hand_joints_rad", 0, Unit.RADIAN),
)
_AXES = {"position_m": "xyz", "rot6d_cols": ("xx", "xy", "xz", "yx", "yy", "yz")}


def _element_names(part: str, width: int) -> tuple[str, ...]:
    """What the elements of one slice are called after its name; numbers where nothing better is known."""
    if part == "hand_keypoints_m":
        return tuple(f"{joint}.{axis}" for joint in joint_names() for axis in "xyz")
    return tuple(_AXES.get(part, map(str, range(width))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """The layout of `observation.state` and `action` of one LeRobot dataset.

    `kind` is absolute: poses in the robot's base frame or the world, hand keypoints in the wrist frame, metres.
    """

    slices: tuple[Slice, ...]
    kind: str = "absolute"

    def __post_init__(self) -> None:
        names = [s.name for s in self.slices]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"slice names must be unique and present, found {names}")
        order = [f"{side}.{part}" for side in SIDES for part, _, _ in PARTS]
        if [n for n in order if n in names] != names:
            raise ValueError(f"slices {names} are not in canonical order")

    @property
    def width(self) -> int:
        return sum(s.width for s in self.slices)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per element, e.g. `left.position_m.x`; rot6d elements name column and row."""
        out: list[str] = []
        for s in self.slices:
            part = s.name.split(".")[1]
            if s.width == 1:
                out.append(s.name)
            else:
                out += [f"{s.name}.{a}" for a in _element_names(part, s.width)]
        return tuple(out)

    def slice(self, name: str) -> slice:
        """Where `name` lies in the vector; KeyError naming what there is."""
        start = 0
        for s in self.slices:
            if s.name == name:
                return slice(start, start + s.width)
            start += s.width
        raise KeyError(f"{name!r} is not one of {[s.name for s in self.slices]}")


def action_spec(parts: Iterable[tuple[str, int]]) -> ActionSpec | None:
    """The spec of the (slice name, width) pairs an embodiment has, put in canonical order; None for none."""
    have = dict(parts)
    slices = [
        Slice(name=f"{side}.{part}", width=width or have[f"{side}.{part}"], unit=str(unit))
        for side in SIDES
        for part, width, unit in PARTS
        if f"{side}.{part}" in have
    ]
    return ActionSpec(slices=tuple(slices)) if slices else None
