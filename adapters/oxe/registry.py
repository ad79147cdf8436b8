"""One entry of `adapters/oxe/registry.yaml`: where a set of Open X-Embodiment keeps what, and how sure we are.

All peculiarities of single sets are data here; no code asks for a set by name.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, model_validator

from adapters.oxe.gripper import GRIPPER_OPS
from schemas.errors import ConfigError
from schemas.fact import Certainty
from schemas.geometry import ROTMAT_FROM
from schemas.invalid import reason
from schemas.yaml_text import parse_yaml

MATRIX_FORMS = ("matrix4x4_row_major", "matrix4x4_col_major")
EEF_KINDS = ("eef_delta", "eef_absolute")
COMMAND_KINDS = (
    *EEF_KINDS,
    "eef_delta_backward",
    "eef_velocity",
    "joint_delta",
    "joint_absolute",
    "nav_delta",
    "unverified",
)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Slot(_Entry):
    """A leaf under `steps/` and a half-open range of its flattened values; negative as in Python, stop None = to the end."""

    key: str
    start: int = 0
    stop: int | None = None
    step: int = 1


class Rate(_Entry):
    """Control rate in Hz as the decimal text its sources use; None if none is documented."""

    hz: str | None
    certainty: Certainty
    source: str


class CameraEntry(_Entry):
    key: str
    role: str = ""
    is_bgr: bool = False

    @property
    def name(self) -> str:
        """The last part of the key, as a camera name."""
        return "".join(c if c.isalnum() else "_" for c in self.key.rsplit("/", 1)[-1].lower())


class InstructionEntry(_Entry):
    """Text leaves (alternatives of one another), or one int leaf of zero-padded Unicode code points."""

    keys: tuple[str, ...]
    is_code_points: bool = False


class JointEntry(_Entry):
    """Joint positions; radians when the certainty is settled."""

    slots: tuple[Slot, ...]
    certainty: Certainty


class CopyEntry(_Entry):
    """A second record of the same rotation in another form: comparing the two settles both."""

    slot: Slot
    candidates: tuple[str, ...]


class BaseEntry(_Entry):
    """Pose of the robot base in the frame of the eef state, to be divided out."""

    position: Slot
    rotation: Slot
    form: str


class EefEntry(_Entry):
    """Measured end-effector pose. `form` None: `candidates` are what a probe may choose from."""

    position: Slot | None = None
    rotation: Slot | None = None
    form: str | None = None
    candidates: tuple[str, ...] = ()
    certainty: Certainty
    source: str
    frame: str | None = None  # robot_base | world
    position_unit: str = "m"
    copy_of_rotation: CopyEntry | None = None
    base: BaseEntry | None = None


class GripperEntry(_Entry):
    """Measured gripper: opening = (weights . x - closed_value) / (open_value - closed_value)."""

    slot: Slot
    weights: tuple[float, ...] = (1.0,)
    open_value: float | None = None
    closed_value: float | None = None
    is_binary: bool = False
    certainty: Certainty
    source: str


class CommandEntry(_Entry):
    """The part of the action that moves this arm's end-effector and gripper."""

    kind: str
    kind_certainty: Certainty
    kind_source: str
    position: Slot | None = None
    rotation: Slot | None = None
    form: str | None = None
    candidates: tuple[str, ...] = ()
    form_certainty: Certainty = Certainty.DOCUMENTED  # of there being no rotation, by default
    form_source: str = "no rotation in the action"
    frame: str | None = None  # state (axes of the eef state) | eef
    position_scale_m: float | None = 1.0
    rotation_scale_rad: float = 1.0
    scale_certainty: Certainty = Certainty.INFERRED
    gripper: Slot | None = None
    gripper_op: str
    gripper_certainty: Certainty
    gripper_source: str
    is_first_empty: bool = False  # the first action may be all zero apart from the gripper

    @model_validator(mode="after")
    def _known(self) -> CommandEntry:
        if self.kind not in COMMAND_KINDS:
            raise ValueError(f"command kind {self.kind!r}")
        if self.gripper_op not in (*GRIPPER_OPS, "unverified", "none"):
            raise ValueError(f"gripper operation {self.gripper_op!r}")
        if self.frame not in (None, "state", "eef"):
            raise ValueError(f"command frame {self.frame!r}")
        return self


class ArmEntry(_Entry):
    """One side; a single arm is `left`."""

    eef: EefEntry | None = None
    gripper: GripperEntry | None = None
    command: CommandEntry | None = None

    @model_validator(mode="after")
    def _forms(self) -> ArmEntry:
        used = [self.eef.form, *self.eef.candidates] if self.eef else []
        used += [self.command.form, *self.command.candidates] if self.command else []
        wrong = [f for f in used if f and f not in ROTMAT_FROM and f not in MATRIX_FORMS]
        if wrong:
            raise ValueError(f"rotation forms {wrong} are not in schemas.geometry")
        return self


class OxeSet(_Entry):
    """Everything the adapter knows of one set before it opens a file."""

    name: str
    tfds_name: str
    robot: str
    embodiment: str
    version: str | None = None
    rate: Rate
    cameras: tuple[CameraEntry, ...] = ()
    instruction: InstructionEntry | None = None
    joints: JointEntry | None = None
    arms: dict[str, ArmEntry] = {}
    success_key: str | None = None  # a scalar beside `steps`, not under it
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> OxeSet:
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: camera names {names} are not unique")
        if not set(self.arms) <= {"left", "right"}:
            raise ValueError(f"{self.name}: sides are left and right, found {sorted(self.arms)}")
        return self


def sets_from(text: str) -> dict[str, OxeSet]:
    """Parse registry YAML by set name. Raises ConfigError when an entry breaks a rule."""
    raw = parse_yaml(text)
    try:
        return {
            name: OxeSet.model_validate({**entry, "name": name})
            for name, entry in raw["datasets"].items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"adapters/oxe/registry.yaml: {reason(error, OxeSet)}") from error


@cache
def oxe_sets() -> dict[str, OxeSet]:
    """The registry shipped with the package."""
    return sets_from(files("adapters.oxe").joinpath("registry.yaml").read_text(encoding="utf-8"))


def sets_called(name: str) -> list[str]:
    """The sets that `name` may mean: `bridge` is bridge_dataset, bridge_oxe or bridge_orig, and `droid_100` is droid."""
    return [
        each.name
        for each in oxe_sets().values()
        if name in (each.name, each.tfds_name)
        or each.name.startswith(f"{name}_")
        or name.startswith(f"{each.name}_")
    ]


def oxe_set(name: str) -> OxeSet:
    """The entry called `name` here, else the one whose TFDS name it is.

    Raises:
        ConfigError: unknown, with the nearest names.
    """
    sets = oxe_sets()
    if name in sets:
        return sets[name]
    same = [entry for entry in sets.values() if entry.tfds_name == name]
    if same:
        return same[0]
    near = get_close_matches(name, sets, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(
        f"unknown Open X-Embodiment dataset {name!r}{hint} Pass it with --dataset NAME"
    )
