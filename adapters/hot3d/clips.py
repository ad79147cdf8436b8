"""HOT3D-Clips: curated clips of 150 frames, one tar each, pictures as JPEG. Nothing is unpacked.

    [train_aria|train_quest3|test_aria|test_quest3]/clip-<id>.tar, of each frame
        <frame>.image_<stream>.jpg     <frame>.cameras.json     <frame>.hands.json     <frame>.info.json
    __hand_shapes.json__                                        the person's hand, for all frames          clip_frames.py
Source: facebookresearch/hot3d:hot3d/clips/{README.md,clip_util.py} (documented); no real clip was at hand. Test clips lack
hands.json: their cameras and pictures are read all the same. Objects, boxes and hand crops are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.safe_path import inside
from adapters.hot3d.adapter import LICENCE
from adapters.hot3d.clip_frames import read_clip
from adapters.hot3d.hands import FACTS as HAND_FACTS
from adapters.hot3d.read import WORLD_UP
from schemas.episode import Episode, EpisodeRef
from schemas.errors import ConfigError
from schemas.fact import Certainty, fact
from schemas.regular_file import bytes_hint
from schemas.source_split import source_split_of

README = "facebookresearch/hot3d:hot3d/clips/README.md"
FACTS = (
    *HAND_FACTS,
    fact("camera_pose", "T_world_from_camera", Certainty.CODE, README, for_actions=True),
    fact(
        "picture_orientation",
        "as the sensor has it: Aria's RGB lies on its side",
        Certainty.CODE,
        README,
    ),
)
RATE_HZ = Fraction(30)


class Hot3DClips:
    """Adapter for `hot3d_clips`; it has no options."""

    name: ClassVar[str] = "hot3d_clips"
    uses: ClassVar[tuple[str, ...]] = ("mano",)  # where nothing else tells the fingers
    version: ClassVar[int] = 2
    container: ClassVar[str] = "WebDataset tar of jpg + json"
    about: ClassVar[str] = "HOT3D-Clips: 5 s clips of hands and objects before Aria and Quest 3"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Count the clips; none is opened. ConfigError: there is none, or an option."""
        if options:
            raise ConfigError(f"hot3d_clips has no option {sorted(options)}")
        clips = _clips(root)
        if not clips:
            raise ConfigError("not HOT3D-Clips: expected clip-*.tar below it", where=str(root))
        details = {"clips": str(len(clips))}
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, details=details
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """One episode a clip, by folder and name."""
        for clip in _clips(root):
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=clip.removesuffix(".tar"),
                root=str(root),
                locator=(("clip", clip),),
                facts=FACTS,
                duration_hint_s=5.0,
                source_split=source_split_of(f"{root.resolve().name}/{clip}".split("/")[-2]),
                bytes_hint=bytes_hint(root / clip),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """All streams of a clip, hands where they are published.

        Raises:
            SourceError: as `read_clip`.
        """
        root = Path(ref.root)
        clip = read_clip(inside(root, str(ref.at("clip"))), root)
        return Episode(
            ref=ref,
            embodiment="human_hands" if clip.hands else "human_video",
            rate_hz=RATE_HZ,
            streams=clip.streams,
            cameras=clip.cameras,
            hands=clip.hands,
            world_up=WORLD_UP.get(clip.device),
            facts=(*ref.facts, *clip.facts),
            licence=LICENCE,
            raw_files=(clip.raw_file,),
            subject_id=clip.participant_id,
            scene_id=clip.sequence_id,
        )


def _clips(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("clip-*.tar"))
