"""VITRA: both hands, fitted by the authors to egocentric videos of four other sets, with what each hand does in words.

    Metadata/<set>/episodic_annotations/<set>_<video>_ep_<number>.npy    one pickled dict an episode          annotation.py
    <video>.mp4, undistorted where its set needs it, below the same root or in the folder of option `videos`  tree.py
Conventions: capture.py, annotation.py. Sources: microsoft/VITRA:data/data.md and its example episode, which was read whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.vitra.annotation import instructions_of, read_annotation
from adapters.vitra.capture import FACTS, absent_hands, hands_of, pictures_of
from adapters.vitra.tree import LICENCE, VitraTree, origin_of, parts_of, tree_at
from schemas.episode import Episode, EpisodeRef
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import bytes_hint


class Vitra:
    """Adapter for `vitra`; option `videos` names a folder of videos elsewhere."""

    name: ClassVar[str] = "vitra"
    path_options: ClassVar[tuple[str, ...]] = ("videos",)
    uses: ClassVar[tuple[str, ...]] = ("mano",)  # where nothing else tells the fingers
    version: ClassVar[int] = 1
    container: ClassVar[str] = "npy of pickled dicts + mp4"
    about: ClassVar[str] = (
        "VITRA: MANO hands, camera poses and texts on Ego4D, Ego-Exo4D, EPIC, SSV2"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Count the episodes of each set. ConfigError: none, an unknown option, or no such folder of videos."""
        if unknown := sorted(set(options) - {"videos"}):
            raise ConfigError(f"unknown options {unknown}; expected videos=FOLDER")
        folder = Path(options.get("videos", root))
        if not folder.is_dir():
            raise ConfigError("no such video folder", where=str(folder))
        tree = tree_at(root, folder)
        if not tree.episodes:
            raise ConfigError(
                "not VITRA: expected <set>_<video>_ep_<number>.npy below it", where=str(root)
            )
        counts = Counter((parts_of(name) or ("unnamed", ""))[0] for name in tree.episodes)
        details = {f"episodes_of_{name}": str(count) for name, count in sorted(counts.items())}
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            facts=FACTS,
            details=details | {"videos": str(folder)},
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By folder, name and number; an episode whose video is not there is yielded with its problem."""
        folder = info.details["videos"]
        tree = tree_at(root, Path(folder))
        for name in tree.episodes:
            video, problem = _video_of(tree, name)
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                locator=(("videos", folder), ("video", video)),
                facts=FACTS,
                bytes_hint=bytes_hint(root / f"{name}.npy"),
                problem=problem,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """One episode. Raises SourceError as the readers of its parts, BAD_ANNOTATION for the video of another episode."""
        root, videos, where = Path(ref.root), Path(ref.at("videos")), f"{ref.episode_id}.npy"
        path, video = inside(root, where), inside(videos, ref.at("video"))
        annotation = read_annotation(path, where)
        set_name, video_name = parts_of(ref.episode_id) or ("", "")
        if annotation.video_name != video_name:
            problem = f"it belongs to video {annotation.video_name[:100]!r}, which contradicts the file name"
            raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
        pictures, origin = pictures_of(annotation, video), origin_of(set_name)
        hands = hands_of(annotation, pictures.t_ns)
        return Episode(
            ref=ref,
            embodiment="human_hands" if hands else "human_video",
            rate_hz=pictures.rate_hz,
            streams=(pictures.T_world_cam,),
            cameras=(pictures.camera,),
            hands=hands,
            instructions=instructions_of(annotation, pictures.t_ns, where),
            facts=(*ref.facts, origin.lens, pictures.fact, *absent_hands(annotation)),
            licence=origin.licence,
            raw_files=(raw_file_of(path, root), raw_file_of(video, videos)),
            subject_id=video_name.partition("_")[0] if origin.names_start_with_subject else None,
            scene_id=video_name,
        )


def _video_of(tree: VitraTree, episode: str) -> tuple[str, tuple[str, str] | None]:
    """The file of an episode's video, and what is wrong when there is not exactly one."""
    parts = parts_of(episode)
    if parts is None:
        return "", (Code.UNKNOWN_LAYOUT.value, "the file name is not <set>_<video>_ep_<number>")
    files = tree.videos.get(parts[1], [])
    if not files:
        message = f"video {parts[1]} is missing; download it (and undistort it), or pass its folder with --option videos=FOLDER"
        return "", (Code.MISSING_VIDEO.value, message)
    if len(files) > 1:
        message = f"{len(files)} videos are called {parts[1]}: {sorted(files)[:3]}; pass one folder with --option videos=FOLDER"
        return "", (Code.UNKNOWN_LAYOUT.value, message)
    return files[0], None
