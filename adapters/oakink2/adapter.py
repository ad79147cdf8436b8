"""OakInk2: long tasks with both hands on household objects; motion capture in MANO at 120 Hz, four cameras at 30 Hz.

    anno_preview/<sequence>.pkl             annotation.py, capture.py
    data/<sequence>/<serial>/<frame>.jpg    capture.py
    program/...                             annotation.py
`<sequence>` is scene_0x__y00z++<...>__<hash>__<date>; its data come as tar files, to be unpacked. Not read: objects, SMPL-X bodies.
Source: `oakink/OakInk2-PreviewTool:README.md` (doc). No real sequence was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.oakink2.annotation import FACTS, SCENARIOS, labels_of, read_annotation, scenario_facts
from adapters.oakink2.capture import camera_of, hands_of
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError
from schemas.regular_file import bytes_hint

LICENCE = Licence(name="CC BY-NC-SA 3.0", allows_commercial=False, allows_redistribution=True)
PICTURE_HZ = Fraction(30)
ANNOTATIONS, EGO = "anno_preview", "egocentric"


class OakInk2:
    """Adapter for `oakink2`; it has no options."""

    name: ClassVar[str] = "oakink2"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "pickle of tensors + jpg/png + json"
    about: ClassVar[str] = (
        "OakInk2: both hands as MANO at 120 Hz, long tasks, a head camera and three around"
    )
    needs: ClassVar[tuple[str, ...]] = ("mano",)

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """ConfigError: an option, or no annotation file."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        if not any((root / ANNOTATIONS).glob("*.pkl")):
            raise ConfigError(f"{root}: not OakInk2: expected {ANNOTATIONS}/<sequence>.pkl")
        notes = ("hands are MANO parameters: name a model", "objects and bodies are not read")
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, notes=notes
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By name; a sequence whose pictures are not unpacked is yielded with that."""
        names = {path.stem: path for path in (root / ANNOTATIONS).glob("*.pkl")}
        for name in sorted(names, key=natural_key):
            has_pictures = (root / "data" / name).is_dir()
            why = f"the folder data/{name} is missing; download its tar file and unpack it"
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                facts=info.facts,
                bytes_hint=bytes_hint(names[name]),
                problem=None if has_pictures else (Code.MISSING_VIDEO.value, why),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """One sequence; its hands are held against the head camera's pictures, if that camera is among the selected."""
        root, sequence = Path(ref.root), ref.episode_id
        path = inside(root, ANNOTATIONS, f"{sequence}.pkl")
        annotation = read_annotation(path)
        views = [camera_of(root, sequence, annotation, name) for name in annotation.cameras]
        seen_by = EGO if EGO in annotation.cameras else None
        labels = labels_of(root, sequence, annotation)
        scene = sequence.partition("__")[0]
        return Episode(
            ref=ref,
            embodiment="human_hands",
            rate_hz=PICTURE_HZ,
            streams=tuple(poses for _, poses in views),
            cameras=tuple(camera for camera, _ in views),
            hands=hands_of(annotation, seen_by),
            world_up="+y",
            instructions=labels.instructions,
            facts=(*ref.facts, *labels.facts, *scenario_facts(scene)),
            licence=LICENCE,
            raw_files=(raw_file_of(path, root), *labels.raw_files),
            scene_id=scene if scene in SCENARIOS else None,
        )
