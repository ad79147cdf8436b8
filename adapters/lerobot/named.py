"""Sources that are LeRobot sets of a known layout: the `lerobot` reader with their declared mapping required.

Each has a name, terms and mappings (mappings.yaml) of its own; a folder that fits none of those is refused. Options:
`name` of the set. docs/reference/sources/<name>.md say what is known of each.
"""

from __future__ import annotations

from typing import ClassVar

from adapters.lerobot.adapter import LeRobot
from schemas.episode import Licence


class _Named(LeRobot):
    """What the named sources share."""

    version: ClassVar[int] = 4
    options: ClassVar[tuple[str, ...]] = ("name",)


class RoboCoin(_Named):
    """Adapter for `robocoin`. Terms: cards of the sets, `FlagOpen/RoboCOIN`."""

    name: ClassVar[str] = "robocoin"
    about: ClassVar[str] = "RoboCOIN: two-armed robots of 15 kinds, poses by simulated kinematics"
    mappings: ClassVar[tuple[str, ...]] = ("robocoin", "robocoin_early")
    licence: ClassVar[Licence] = Licence(
        name="Apache-2.0", allows_commercial=True, allows_redistribution=True
    )


class Galaxea(_Named):
    """Adapter for `galaxea`. Terms: remembered, UNVERIFIED."""

    name: ClassVar[str] = "galaxea"
    about: ClassVar[str] = "Galaxea Open-World: R1 Lite and R1 Pro in homes, offices and shops"
    mappings: ClassVar[tuple[str, ...]] = ("galaxea_r1_lite", "galaxea_r1pro")
    licence: ClassVar[Licence] = Licence(
        name="CC BY-NC-SA 4.0 (unverified)", allows_commercial=False
    )


class InternDataA1(_Named):
    """Adapter for `interndata_a1`. Terms: not confirmed, as for `interndata_a1_raw`."""

    name: ClassVar[str] = "interndata_a1"
    about: ClassVar[str] = "InternData-A1: simulated Franka, Genie-1, Lift-2 and Split Aloha"
    mappings: ClassVar[tuple[str, ...]] = (
        "interndata_a1_lift2",
        "interndata_a1_split_aloha",
        "interndata_a1_genie1",
        "interndata_a1_dual",
        "interndata_a1_franka",
        "interndata_a1_franka_robotiq",
        "interndata_a1_single",
    )
    licence: ClassVar[Licence] = Licence(name="unknown (the engine's code is CC BY-NC-SA 4.0)")


class Behavior1K(_Named):
    """Adapter for `behavior_1k`. Terms: not confirmed; third parties read MIT on the card."""

    name: ClassVar[str] = "behavior_1k"
    about: ClassVar[str] = "BEHAVIOR-1K: household tasks by teleoperation of a simulated R1 Pro"
    mappings: ClassVar[tuple[str, ...]] = ("behavior_1k",)
    licence: ClassVar[Licence] = Licence(name="unknown (third parties read MIT on the card)")
    set_name: ClassVar[str] = "behavior_1k"


class RoboCasaGr1(_Named):
    """Adapter for `robocasa_gr1`. Terms: the demonstration set is Apache-2.0, the full sets' are not confirmed."""

    name: ClassVar[str] = "robocasa_gr1"
    about: ClassVar[str] = "RoboCasa-GR1: table-top tasks by GR00T teleoperation in simulation"
    mappings: ClassVar[tuple[str, ...]] = ("gr1_arms_only",)
    licence: ClassVar[Licence] = Licence(name="unknown (the demonstration set is Apache-2.0)")


class HumanoidEverydayLeRobot(_Named):
    """Adapter for `humanoid_everyday_lerobot`. Terms: README of physical-superintelligence-lab/Humanoid-Everyday."""

    name: ClassVar[str] = "humanoid_everyday_lerobot"
    about: ClassVar[str] = "Humanoid Everyday converted to LeRobot: Unitree G1 and H1, joints only"
    mappings: ClassVar[tuple[str, ...]] = (
        "humanoid_everyday_g1",
        "humanoid_everyday_h1",
        "humanoid_everyday",
    )
    licence: ClassVar[Licence] = Licence(
        name="MIT", allows_commercial=True, allows_redistribution=True
    )
    set_name: ClassVar[str] = "humanoid_everyday"
