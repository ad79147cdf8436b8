"""Every one of the registry's sets: nothing that an entry declares is lost, whatever the probe decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.oxe.adapter import OpenXEmbodiment
from adapters.oxe.facts import UNSTATED
from adapters.oxe.registry import OxeSet, Slot, oxe_sets
from schemas.episode import Episode
from schemas.fact import Certainty, Fact
from schemas.supervision import Task
from tests.adapters.declared_cases import assert_not_lost, ingested
from tests.generators.oxe_entries import write_entry

OXE = OpenXEmbodiment()
EEF = ("eef_delta", "eef_absolute", "eef_velocity", "eef_delta_backward", "unverified")


def unstated(fact: Fact) -> Fact:
    """The same fact when nobody states it and no probe settles it; the rate is needed to place the steps."""
    if fact.name == "rate_hz":
        return fact
    return replace(fact, value=UNSTATED, certainty=Certainty.UNKNOWN)


def load(root: Path, entry: OxeSet, *, is_stated: bool) -> Episode:
    options = {"set": entry.name} | ({} if entry.rate.hz else {"rate_hz": "10"})
    [ref] = OXE.discover(root, OXE.survey(root, options))
    facts = ref.facts if is_stated else tuple(unstated(fact) for fact in ref.facts)
    return OXE.load(replace(ref, facts=facts))


def declared(entry: OxeSet) -> dict[str, list[Slot]]:
    """Channel -> slots, read from the registry entry and from nothing else."""
    out: dict[str, list[Slot | None]] = {}
    for side, arm in entry.arms.items():
        if arm.eef is not None:
            out[f"{side}.T_base_eef"] = [arm.eef.position, arm.eef.rotation]
        if arm.gripper is not None:
            out[f"{side}.gripper_opening"] = [arm.gripper.slot]
        if command := arm.command:
            part = "T_base_eef" if command.kind in EEF else command.kind
            out[f"command.{side}.{part}"] = [command.position, command.rotation]
            if command.gripper_op != "none":
                out[f"command.{side}.gripper_opening"] = [command.gripper]
    if entry.joints is not None:
        out["joint_position_rad"] = list(entry.joints.slots)
    found = {name: [slot for slot in slots if slot is not None] for name, slots in out.items()}
    return {name: slots for name, slots in found.items() if slots}


@pytest.mark.parametrize("is_stated", [True, False], ids=["as_registered", "nothing_stated"])
@pytest.mark.parametrize("name", sorted(oxe_sets()))
def test_nothing_that_an_entry_declares_is_lost(tmp_path: Path, name: str, is_stated: bool) -> None:
    entry = oxe_sets()[name]
    leaves = write_entry(tmp_path, entry)
    found = ingested(load(tmp_path, entry, is_stated=is_stated))
    for channel, slots in declared(entry).items():
        parts = [leaves[s.key][:, s.start : s.stop : s.step] for s in slots]
        assert_not_lost(found, channel, np.concatenate(parts, axis=1))
    lost = [f.name for f in found.vectors.facts if f.name.startswith("not_carried")]
    assert (
        not lost
    )  # a limit would do, and the adapter does better: what no slice carries stays raw
    if not is_stated:
        assert Task.POLICY not in found.tasks


def test_there_are_87_entries() -> None:
    assert len(oxe_sets()) == 87


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nyu_franka_play_dataset_converted_externally_to_rlds", {"left.gripper_opening"}),
        ("roboturk", {"left.gripper_opening"}),
    ],
)
def test_a_settled_gripper_command_without_a_state_is_in_the_action(
    tmp_path: Path, name: str, parts: set[str]
) -> None:
    entry = oxe_sets()[name]
    write_entry(tmp_path, entry)
    found = ingested(load(tmp_path, entry, is_stated=True))
    assert set(found.vectors.command_only) == parts
    assert parts <= found.parts
    # The pose of these sets is not settled, or not recorded: jaws without their arm teach nothing.
    assert found.tasks == (Task.VISUAL_FORECASTING,)
