"""ARCTIC: two hands use eleven articulated objects; motion capture in MANO, and a camera on the head. 30 Hz.

Layout and splits: tree.py; hands, images, lens and pose: capture.py. Give the folder that holds raw_seqs, meta and the pictures.
Not read: the eight cameras around, objects, SMPL-X bodies, processed_seqs. Upstream leaves the first and the last ten pictures
of a sequence out, because some are black (`src/arctic/split.py`); here they stay. No real file was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.arctic.capture import (
    camera_of,
    egocam_of,
    egocam_path,
    mano_path,
    parameters_of,
    pose_stream,
    subject_of,
    track_of,
)
from adapters.arctic.tree import (
    EGOCAM,
    MANO,
    MISC,
    RAW,
    has_splits,
    name_facts,
    sequences,
    source_splits,
    text_of,
)
from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from schemas.episode import Episode, EpisodeRef, Instruction, Licence
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty, fact
from schemas.rate import instants_ns
from schemas.regular_file import bytes_hint, path_exists

LICENCE = Licence(
    name="ARCTIC, non-commercial research (MPI)",
    allows_commercial=False,
    allows_redistribution=False,
)
RATE_HZ = Fraction(30)
AUTHORS = "zc-alexfan/arctic:"
PROCESSING, MODELS = f"{AUTHORS}src/arctic/processing.py", f"{AUTHORS}common/body_models.py"
FACTS = (
    fact("rate", "30 Hz, by row", Certainty.CODE, f"{AUTHORS}docs", for_actions=True),
    fact("hand_frame", "world, metres", Certainty.CODE, PROCESSING, for_actions=True),
    fact("mano_trans", "smplx: wrist = J0 + trans", Certainty.CODE, PROCESSING, for_actions=True),
    fact("flat_hand_mean", "false: the mean pose is added", Certainty.CODE, MODELS),
    fact("left_shapedirs", "as in the official file", Certainty.CODE, f"{AUTHORS[:-1]} issue 50"),
    fact("camera_pose", "world to camera, OpenCV axes; inverted here", Certainty.CODE, PROCESSING),
    fact("lens", "OpenCV, eight terms", Certainty.CODE, f"{AUTHORS}common/transforms.py"),
    fact("world_up", "unknown: the motion capture's world", Certainty.UNKNOWN, "nobody says"),
)


class Arctic:
    """Adapter for `arctic`; it has no options."""

    name: ClassVar[str] = "arctic"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "npy of pickles + jpg"
    about: ClassVar[str] = (
        "ARCTIC: both hands as MANO, articulated objects, head camera with its pose"
    )
    needs: ClassVar[tuple[str, ...]] = ("mano",)

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """ConfigError: an option, no sequence, or no meta/misc.json."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        if next(sequences(root), None) is None:
            raise ConfigError(
                f"{root}: not ARCTIC: expected {RAW}/s01/<object>_<grab|use>_01{MANO}"
            )
        if not path_exists(root / MISC):
            raise ConfigError(
                f"{root}: {MISC} is missing, which states the first frame", remedy="unpack meta.zip"
            )
        notes = [
            "the licence forbids passing on and commercial use, also of what is made of it",
            "the first and last ten pictures, of which some are black, stay",
        ]
        if not has_splits(root):
            notes.append(
                "no splits_json: unpack splits_json.zip here to keep the val and test sets"
            )
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, notes=tuple(notes)
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By subject and name; a sequence without hands or head camera is yielded with its problem."""
        published = source_splits(root)
        for name in sorted(sequences(root), key=natural_key):
            files = [root / RAW / f"{name}{suffix}" for suffix in (MANO, EGOCAM)]
            missing = [f.name for f in files if not path_exists(f)]
            why = (Code.MISSING_FILE.value, f"no {' and no '.join(missing)}; download it")
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                facts=info.facts,
                bytes_hint=bytes_hint(*files),
                source_split=published.get(name, ""),
                problem=why if missing else None,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """One sequence, with its pictures if they are there. Raises as the parts do."""
        root, name = Path(ref.root), ref.episode_id
        mano, ego = mano_path(root, name), egocam_path(root, name)
        hands = parameters_of(mano, f"{name}{MANO}")
        t_ns = instants_ns(len(hands["right"]["rot"]), RATE_HZ)
        egocam = egocam_of(ego, len(t_ns), f"{name}{EGOCAM}")
        subject, raw_misc = subject_of(root, name)
        camera = camera_of(root, name, egocam, subject, t_ns)
        value = "view 0" if camera else "none are here"
        view = camera.name if camera else None
        return Episode(
            ref=ref,
            embodiment="human_hands",
            rate_hz=RATE_HZ,
            streams=(pose_stream(egocam, t_ns),),
            cameras=(camera,) if camera else (),
            hands=tuple(track_of(side, values, t_ns, view) for side, values in hands.items()),
            instructions=(Instruction(text=text_of(name)),),
            facts=(
                *(*ref.facts, *name_facts(name)),
                fact("pictures", value, Certainty.VERIFIED, "this folder"),
            ),
            licence=LICENCE,
            raw_files=(raw_file_of(mano, root), raw_file_of(ego, root), raw_misc),
            subject_id=name.partition("/")[0],
        )
