"""What the registry claims of a set, as facts; and how a numeric probe may revise them.

The values of these facts drive `load`: a stream is emitted only when every fact it rests on has a usable value. A fact
that is not documented and no probe settles keeps the value "unstated" and what rests on it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from adapters.oxe.registry import EEF_KINDS, ArmEntry, CommandEntry, EefEntry, OxeSet, Slot
from schemas.errors import ConfigError
from schemas.fact import Certainty, Fact
from schemas.rate import rate_from

UNSTATED = "unstated"
CONTRADICTED = "contradicted: "


@dataclass(frozen=True, slots=True)
class FactBook:
    """Facts by name; `value` gives only what may be relied on."""

    facts: Mapping[str, Fact]

    def value(self, name: str) -> str | None:
        """The value of a fact that is known at all, else None."""
        fact = self.facts.get(name)
        if fact is None or fact.certainty is Certainty.UNKNOWN or fact.value == UNSTATED:
            return None
        return fact.value


def book(facts: Iterable[Fact]) -> FactBook:
    """Facts by name; a later one of the same name wins."""
    return FactBook({fact.name: fact for fact in facts})


def noted(fact: Fact, evidence: str) -> Fact:
    """The same fact, with what a probe measured that did not decide it."""
    return replace(fact, source=f"{fact.source}; probe, undecided: {evidence}")


def contradicted(fact: Fact, evidence: str) -> Fact:
    """The claim does not hold on real episodes: unknown from now on, never silently replaced."""
    value = fact.value if fact.value.startswith(CONTRADICTED) else f"{CONTRADICTED}{fact.value}"
    source = f"{fact.source}; probe CONTRADICTS: {evidence}"
    return replace(fact, value=value, certainty=Certainty.UNKNOWN, source=source)


def range_text(open_value: float, closed_value: float) -> str:
    """How a gripper range is written as the value of a fact."""
    return f"open {open_value:g} closed {closed_value:g}"


def range_of(text: str) -> tuple[float, float]:
    """(open value, closed value) of `range_text`."""
    _, open_value, _, closed_value = text.split()
    return float(open_value), float(closed_value)


def rate_of(facts: Iterable[Fact]) -> Fraction | None:
    """The rate to place steps at; None if none is documented.

    A contradicted rate still orders the steps: its fact is UNKNOWN, so it supervises no action.
    """
    value = next(fact.value for fact in facts if fact.name == "rate_hz").removeprefix(CONTRADICTED)
    return None if value == UNSTATED else rate_from(value)


def with_rate(fact: Fact, value: str) -> Fact:
    """The rate fact as the caller's option gives it. Raises ConfigError when it is no rate."""
    try:
        rate_from(value)
    except ValueError as error:
        raise ConfigError(f"option rate_hz: {error}") from error
    return replace(fact, value=value, certainty=Certainty.UNVERIFIED, source="option rate_hz")


def claims(entry: OxeSet, keys: Iterable[str]) -> tuple[Fact, ...]:
    """The registry's facts of a set whose features.json has `keys` under steps (without `steps/`)."""
    present = frozenset(keys)
    facts = [
        Fact(
            name="rate_hz",
            value=entry.rate.hz or UNSTATED,
            certainty=entry.rate.certainty,
            source=f"registry: {entry.rate.source}; RLDS has no time stamps",
        )
    ]
    facts += [
        _channel_order(camera.name, is_bgr=camera.is_bgr)
        for camera in entry.cameras
        if camera.key in present
    ]
    if entry.joints is not None:
        facts.append(
            Fact(
                name="joint_unit",
                value="rad" if entry.joints.certainty.is_settled else UNSTATED,
                certainty=entry.joints.certainty,
                source="registry",
                is_for_actions=False,
            )
        )
    for side, arm in sorted(entry.arms.items()):
        facts += _arm_facts(side, arm, present)
    return tuple(facts)


def _channel_order(camera: str, *, is_bgr: bool) -> Fact:
    return Fact(
        name=f"channel_order.{camera}",
        value="bgr" if is_bgr else "rgb",
        certainty=Certainty.THIRD_PARTY if is_bgr else Certainty.INFERRED,
        source="huggingface/lerobot#435 and Tavish9/any4lerobot:openx2lerobot flip it"
        if is_bgr
        else "not on the lists of flipped sets",
        is_for_actions=False,
    )


def _arm_facts(side: str, arm: ArmEntry, present: frozenset[str]) -> list[Fact]:
    facts: list[Fact] = []
    if arm.eef is not None:
        facts += _eef_facts(side, arm.eef, present)
    if arm.gripper is not None:
        known = arm.gripper.open_value is not None and arm.gripper.closed_value is not None
        value = UNSTATED
        if arm.gripper.open_value is not None and arm.gripper.closed_value is not None:
            value = range_text(arm.gripper.open_value, arm.gripper.closed_value)
        facts.append(
            _slot_fact(
                f"gripper_state_range.{side}",
                value,
                arm.gripper.certainty if known else Certainty.UNKNOWN,
                arm.gripper.source,
                missing=_missing((arm.gripper.slot,), present),
            )
        )
    if arm.command is not None:
        facts += _command_facts(side, arm, arm.command, present)
    return facts


def _eef_facts(side: str, eef: EefEntry, present: frozenset[str]) -> list[Fact]:
    slots = (
        eef.position,
        eef.rotation,
        *((eef.base.position, eef.base.rotation) if eef.base else ()),
    )
    missing = _missing(slots, present)
    form = "none" if eef.rotation is None else eef.form or UNSTATED
    is_known = form not in ("none", UNSTATED)
    unit = Certainty.INFERRED if eef.position_unit == "m" else Certainty.UNKNOWN
    frame = eef.certainty if eef.frame == "robot_base" else Certainty.UNVERIFIED
    who = "registry" if eef.frame else "nobody states the frame"
    return [
        _slot_fact(
            f"eef_rotation_form.{side}",
            form,
            eef.certainty if is_known else Certainty.UNKNOWN,
            eef.source,
            missing=missing,
        ),
        Fact(
            name=f"eef_position_unit.{side}",
            value=eef.position_unit,
            certainty=unit,
            source="nobody states another unit than metres"
            if unit is Certainty.INFERRED
            else "registry",
        ),
        Fact(
            name=f"eef_frame.{side}", value=eef.frame or "robot_base", certainty=frame, source=who
        ),
    ]


def _command_facts(
    side: str, arm: ArmEntry, command: CommandEntry, present: frozenset[str]
) -> list[Fact]:
    is_open = command.kind == "unverified"
    missing = _missing((command.position, command.rotation), present)
    facts = [
        _slot_fact(
            f"action_kind.{side}",
            UNSTATED if is_open else command.kind,
            command.kind_certainty,
            command.kind_source,
            missing=missing,
        )
    ]
    if (
        arm.eef is not None
        and command.position is not None
        and (is_open or command.kind in EEF_KINDS)
    ):
        facts += _pose_command_facts(side, command)
    if command.gripper_op != "none":
        slots = (command.gripper,) if command.gripper else ()
        facts.append(
            _slot_fact(
                f"gripper_command.{side}",
                UNSTATED if command.gripper_op == "unverified" else command.gripper_op,
                command.gripper_certainty,
                command.gripper_source,
                missing=_missing(slots, present),
            )
        )
    return facts


def _pose_command_facts(side: str, command: CommandEntry) -> list[Fact]:
    has_rotation = command.rotation is not None
    form = (command.form or UNSTATED) if has_rotation else "none"
    facts = [
        Fact(
            name=f"action_rotation_form.{side}",
            value=form,
            certainty=command.form_certainty,
            source=command.form_source,
        )
    ]
    if command.kind == "eef_absolute":
        return facts
    scale = command.position_scale_m
    return [
        *facts,
        Fact(
            name=f"action_frame.{side}",
            value=command.frame or UNSTATED,
            certainty=command.kind_certainty if command.frame else Certainty.UNVERIFIED,
            source="registry" if command.frame else "nobody states it",
        ),
        Fact(
            name=f"action_scale.{side}",
            value=UNSTATED if scale is None else f"{scale:g} m",
            certainty=Certainty.UNVERIFIED if scale is None else command.scale_certainty,
            source="registry" if scale != 1.0 else "nobody states another unit than metres",
        ),
    ]


def _missing(slots: Iterable[Slot | None], present: frozenset[str]) -> list[str]:
    return [slot.key for slot in slots if slot is not None and slot.key not in present]


def _slot_fact(
    name: str, value: str, certainty: Certainty, source: str, *, missing: list[str]
) -> Fact:
    """A fact about leaves; UNKNOWN where this version of the set does not have them."""
    if missing:
        return Fact(
            name=name,
            value=UNSTATED,
            certainty=Certainty.UNKNOWN,
            source=f"{source}; features.json of this version has no {', '.join(missing)}",
        )
    return Fact(name=name, value=value, certainty=certainty, source=source)
