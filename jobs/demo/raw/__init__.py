"""Writers of tiny raw data of the demo's sources, in each source's TRUE layout, from the exact ground truth of a scene.

Each module offers `write(root: Path) -> Written`: a healthy data set (at least two episodes) and what must come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene

SOURCES = ("oxe", "lerobot", "droid", "agibot_world", "ego4d", "egodex", "metaworld_hdf5")


@dataclass(frozen=True)
class Written:
    """What a generator wrote: where, and the scene behind each episode id."""

    root: Path  # what a user would name on the command line
    scenes: Mapping[str, Scene] | Mapping[str, HandScene]
    options: dict[str, str] = field(default_factory=dict)
    position_tolerance_m: float = (
        1e-4  # of the pipeline's poses against the scene, resampling included
    )
    t0_s: dict[str, float] = field(
        default_factory=dict
    )  # scene time of each episode's first instant
    needs_mano: bool = False  # its hands are parameters of a MANO model, which the tests generate
