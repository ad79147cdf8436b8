"""What is known of an RLDS set before any episode is translated: its registry entry, what that declares of an arm, its facts, its probe.

What a registry entry declares of an arm, and what its elements are called in the source's own vectors.

What can be said of an RLDS set before any episode is translated: its registry entry, its facts, its probe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from adapters.base import SourceInfo
from adapters.containers.rlds_dir import RldsDir, Shard, records_of, shards_of, undeclared_files
from adapters.containers.rlds_steps import STEPS, Steps, steps_of
from adapters.containers.safe_path import inside
from adapters.containers.tf_example import parse_example
from adapters.containers.tfrecord import read_record
from adapters.oxe.facts import claims, rate_of, with_rate
from adapters.oxe.probe import probe
from adapters.oxe.registry import EEF_KINDS, ArmEntry, CommandEntry, EefEntry, OxeSet, Slot, oxe_set
from schemas.declared import Declared
from schemas.episode import Licence
from schemas.errors import ConfigError, SourceError

# -- declared ------------------------------------------------------------------------------------------------------


def declared_of(steps: Steps, entry: OxeSet) -> tuple[Declared, ...]:
    """Every channel of the registry entry whose leaves this version of the set has."""
    names = action_names(entry)
    return tuple(
        Declared(channel=channel, raw=_names_of(steps, slots, names))
        for channel, slots in _channels(entry)
        if all(f"{STEPS}{slot.key}" in steps.leaves for slot in slots)
    )


def _channels(entry: OxeSet) -> Iterator[tuple[str, list[Slot]]]:
    for side, arm in sorted(entry.arms.items()):
        yield from _arm_channels(side, arm)
    if entry.joints is not None:
        yield "joint_position_rad", list(entry.joints.slots)


def _arm_channels(side: str, arm: ArmEntry) -> Iterator[tuple[str, list[Slot]]]:
    if arm.eef is not None:
        yield f"{side}.T_base_eef", eef_slots(arm.eef)
    if arm.gripper is not None:
        yield f"{side}.gripper_opening", [arm.gripper.slot]
    command = arm.command
    if command is None:
        return
    if motion := [slot for slot in (command.position, command.rotation) if slot is not None]:
        yield _motion_channel(side, command), motion
    if command.gripper is not None and command.gripper_op != "none":
        yield f"command.{side}.gripper_opening", [command.gripper]


def _motion_channel(side: str, command: CommandEntry) -> str:
    if command.kind in (*EEF_KINDS, "eef_delta_backward", "eef_velocity", "unverified"):
        return f"command.{side}.T_base_eef"
    return f"command.{side}.{command.kind}"


def eef_slots(eef: EefEntry) -> list[Slot]:
    """Every slot of a measured pose: position, rotation, a second record of the rotation, the base it is relative to."""
    copy = eef.copy_of_rotation.slot if eef.copy_of_rotation else None
    base = (eef.base.position, eef.base.rotation) if eef.base else ()
    return [slot for slot in (eef.position, eef.rotation, copy, *base) if slot is not None]


def command_keys(steps: Steps, entry: OxeSet) -> list[str]:
    """The numeric leaves of `action` in key order, then those elsewhere that the registry commands an arm by."""
    whole = sorted(
        key.removeprefix(STEPS)
        for key in steps.leaves
        if key == f"{STEPS}action" or key.startswith(f"{STEPS}action/")
    )
    commands = [arm.command for _, arm in sorted(entry.arms.items()) if arm.command is not None]
    slots = [slot for c in commands for slot in (c.position, c.rotation, c.gripper) if slot]
    return list(dict.fromkeys([*whole, *(slot.key for slot in slots)]))


def leaf_width(steps: Steps, key: str) -> int:
    """Numbers in a step of a leaf; 0 for one that holds none, is missing, or whose size is not declared."""
    leaf = steps.leaves.get(STEPS + key)
    if leaf is None or not leaf.is_number or leaf.rank != 1 or not steps.has(key):
        return 0
    width = 1
    for size in leaf.shape:
        width *= size or 0
    return width


def element_names(key: str, width: int, names: Mapping[tuple[str, int], str]) -> list[str]:
    """One name per element of a leaf: by the registry, else by its place."""
    return [names.get((key, i), f"{key}.{i}") for i in range(width)]


def action_names(entry: OxeSet) -> dict[tuple[str, int], str]:
    """Names of the action elements that the registry explains, by (leaf, index)."""
    names: dict[tuple[str, int], str] = {}
    for side, arm in entry.arms.items():
        command = arm.command
        slots = (command.position, command.rotation, command.gripper) if command else ()
        for part, slot in zip(("position", "rotation", "gripper"), slots, strict=False):
            if slot is None or slot.start < 0:
                continue
            stop = slot.stop if slot.stop is not None else slot.start + 16
            width = len(range(slot.start, stop))
            for i in range(width):
                suffix = (
                    ""
                    if part == "gripper"
                    else f".{'xyz'[i] if part == 'position' and i < 3 else i}"
                )
                names[slot.key, slot.start + i] = f"{side}.{part}{suffix}"
    return names


def _names_of(
    steps: Steps, slots: Iterable[Slot], names: Mapping[tuple[str, int], str]
) -> tuple[str, ...]:
    """What the elements of slots are called in a raw vector that holds their leaves; () where none can."""
    out: list[str] = []
    for slot in slots:
        width = leaf_width(steps, slot.key)
        elements = element_names(slot.key, width, names)[slot.start : slot.stop : slot.step]
        if not elements:
            return ()
        out += elements
    return tuple(out)


# -- survey --------------------------------------------------------------------------------------------------------

OPTIONS = ("set", "rate_hz")
PROBE_EPISODES = 32
PROBE_BYTES = 1 << 30  # a probe reads no more than this, whatever the size of an episode


def survey_dir(directory: RldsDir, options: Mapping[str, str]) -> SourceInfo:
    """The set at a version directory, its conventions probed on its first readable episodes.

    Raises:
        ConfigError: an unknown option or set, or a rate that is none.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigError(f"oxe has no option {', '.join(unknown)}; expected {', '.join(OPTIONS)}")
    name = options.get("set") or directory.info.name
    entry = oxe_set(name)
    keys = [key.removeprefix(STEPS) for key in directory.leaves if key.startswith(STEPS)]
    facts = claims(entry, keys)
    if "rate_hz" in options:
        facts = tuple(with_rate(f, options["rate_hz"]) if f.name == "rate_hz" else f for f in facts)
    return SourceInfo(
        source="oxe",
        dataset=name,
        licence=Licence(name="unknown"),
        facts=probe(entry, facts, _probed(directory), rate_of(facts)),
        notes=_notes(directory, entry),
        details={"set": entry.name, "robot": entry.robot, "version": directory.info.version},
    )


def _probed(directory: RldsDir) -> Iterator[Steps]:
    """The first readable episodes of the first shard that has any, one in memory at a time."""
    for shard in shards_of(directory.info):
        count = 0
        for steps in _readable(directory, shard):
            count += 1
            yield steps
            if count == PROBE_EPISODES:
                return
        if count:
            return


def _readable(directory: RldsDir, shard: Shard) -> Iterator[Steps]:
    budget = PROBE_BYTES
    for _, record in records_of(directory.path, shard):
        budget -= record.num_bytes
        if record.is_rest or budget < 0:
            return
        if record.problem is not None:
            continue
        try:
            path = inside(directory.path, shard.name)
            data = read_record(path, record.offset, record.num_bytes)
            steps = steps_of(parse_example(data), directory.leaves)
        except (
            SourceError
        ):  # not lost: the same record is discovered, and quarantined when it is loaded
            continue
        yield steps


def _notes(directory: RldsDir, entry: OxeSet) -> tuple[str, ...]:
    notes = list(entry.notes)
    stale = undeclared_files(directory)
    if stale:
        notes.append(f"{len(stale)} undeclared tfrecord files are not read, e.g. {stale[0]}")
    version = directory.info.version
    if entry.version not in (None, version):
        notes.append(f"version {version} found, the registry describes {entry.version}")
    return tuple(notes)
