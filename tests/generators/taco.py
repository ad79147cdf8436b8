"""TACO in its true layout: folders of triplets, and the list of splits."""

from __future__ import annotations

from pathlib import Path

from benchmarks.raw.taco_sequence import write_sequence
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene

SEQUENCES = ("(pour in some, bowl, plate)/20231024_246", "(stir, spoon, bowl)/20231105_019")


def write(root: Path) -> Written:
    """Two sequences of 1.5 s; the right hand of the second has no parameters in five frames."""
    scenes = {name: HandScene(seed=seed, duration_s=1.5) for seed, name in enumerate(SEQUENCES)}
    for seed, (name, scene) in enumerate(scenes.items()):
        write_sequence(root, name, scene, lost=range(20, 25) if seed else ())
    first, second = (name.rpartition("/")[2] for name in SEQUENCES)
    path = root / "data_lists/v1_overall_data_train_test_split.txt"
    path.parent.mkdir()
    path.write_text(f"{first},train\n{second},test_3\n")
    return Written(root=root, scenes=scenes, needs_mano=True)
