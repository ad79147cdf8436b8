"""Every episode that a LeRobot root holds or promises, with its files, and what is known to be wrong with it.

Nothing is opened but metadata; files are looked at by name. An episode that cannot work is listed with the reason, a
data file that no metadata mention is listed too: what comes in is what gets counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.lerobot_cameras import CameraPlace, RgbCameras, check_distinct, rgb_cameras
from adapters.containers.lerobot_episodes import BadEntry, EpisodeMeta, read_episodes
from adapters.containers.lerobot_meta import INFO, SetInfo, read_info, read_modality
from adapters.containers.lerobot_paths import FirstFrame, data_path, first_frames, video_path
from adapters.containers.safe_path import inside
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact
from schemas.regular_file import check_regular, path_exists


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One thing to count. `name` is unique in the root; the rest is set unless `problem` is."""

    name: str
    meta: EpisodeMeta | None = None
    data: str = ""
    cameras: tuple[CameraPlace, ...] = ()
    facts: tuple[Fact, ...] = ()
    num_bytes: int = 0
    duration_s: float = 0.0  # declared
    problem: tuple[str, str] | None = None


def set_root(root: Path) -> Path:
    """`root` itself, or the only set up to three folders below it; refuses one in which there is nothing to list.

    Raises:
        ConfigError: no folder, a folder of several sets, or neither usable metadata nor a data file.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder")
    folders = (p.parent for n in ("*", "*/*", "*/*/*") for p in root.glob(f"{n}/meta"))
    sets = sorted(folder for folder in folders if path_exists(folder / INFO))
    if len(sets) == 1 and not path_exists(root / INFO):
        return sets[0]
    if sets and not path_exists(root / INFO):
        raise ConfigError(
            f"{root} contains {len(sets)} datasets", remedy=f"pass one of them, such as {sets[0]}"
        )
    if next(root.rglob("*.parquet"), None) is None:
        try:
            read_info(root)  # metadata without any data is a set of which everything is missing
        except SourceError as error:
            raise ConfigError(
                f"{root}: not a LeRobot dataset: {error}, and no Parquet file"
            ) from error
    return root


def check_video_folder(root: Path) -> None:
    """Refuse a set whose videos lie in another folder than info.json names: one message in place of one per episode.

    A set whose videos are not there at all is a partial download, and is listed episode by episode.

    Raises:
        ConfigError: the folder of `video_path` is not there, and videos are in another one.
    """
    try:
        info = read_info(root)
        episode = next(e for e in read_episodes(root, info) if isinstance(e, EpisodeMeta))
        keys = [key for key, feature in info.features.items() if feature.dtype == "video"]
        expected = next(path for key in keys if (path := video_path(info, episode, key)))
    except (SourceError, StopIteration):
        return  # listed with its reason
    if (root / expected.split("/")[0]).is_dir():
        return
    if (video := next(root.rglob("*.mp4"), None)) is not None:
        relative = video.relative_to(root).as_posix()
        mismatch = f"{INFO} places the first one at {expected}, but it is at {relative}"
        raise ConfigError(
            f"the videos are in a different folder: {mismatch}",
            remedy="rename the folder or correct video_path",
            where=str(root),
        )


def list_episodes(root: Path) -> Iterator[Listed]:
    """By episode index; then unusable entries of the tables; then data files that nothing mentions, by path.

    Never raises for bad metadata: then every data file is listed with that as its problem.
    """
    try:
        info = read_info(root)
        modality = read_modality(root)
        if info.major is None:
            message = f"codebase_version {info.codebase_version!r}; expected v2.0, v2.1 or v3.0"
            raise SourceError(Code.UNKNOWN_VERSION, message, where="meta/info.json")
        entries = list(read_episodes(root, info))
    except SourceError as error:
        yield from _strays(root, set(), _problem(error))
        return
    episodes = sorted((e for e in entries if isinstance(e, EpisodeMeta)), key=lambda e: e.index)
    cameras = rgb_cameras(root, info, modality, episodes)
    starts = {k: first_frames(episodes, k, info.rate_hz) for k in cameras.videos if info.major == 3}
    claimed: set[str] = set()
    for episode in episodes:
        listed = _listed(root, info, episode, cameras, starts)
        claimed.add(listed.data)
        yield listed
    for entry in entries:
        if isinstance(entry, BadEntry):
            yield Listed(name=entry.where, problem=(entry.code.value, entry.message))
    unlisted = (Code.MISSING_META.value, "the episode table does not list this data file")
    yield from _strays(root, claimed, unlisted)


def _listed(
    root: Path,
    info: SetInfo,
    episode: EpisodeMeta,
    cameras: RgbCameras,
    starts: dict[str, dict[int, FirstFrame]],
) -> Listed:
    name = f"episode_{episode.index:06d}"
    data = ""
    try:
        data = data_path(info, episode)
        num_bytes = _size(root, data, Code.MISSING_FILE)
        places = [CameraPlace(name=n, key=k, path="") for k, n in cameras.images.items()]
        facts = list(cameras.facts)
        missing: list[SourceError] = []
        for key, camera in cameras.videos.items():
            path = video_path(info, episode, key) or f"videos/{key}"  # the metadata name none
            try:
                num_bytes += _size(root, path, Code.MISSING_VIDEO)
            except SourceError as error:
                if error.code is not Code.MISSING_VIDEO:
                    raise
                missing.append(error)
            start = starts.get(key, {}).get(episode.index)
            if start and not start.is_counted:
                facts.append(_uncounted(key))
            number = start.number if start else 0
            places.append(CameraPlace(name=camera, key=key, path=path, first_frame=number))
        if missing and len(missing) == len(places):
            raise missing[0]
        check_distinct(places)
    except SourceError as error:
        return Listed(name=name, meta=episode, data=data, problem=_problem(error))
    return Listed(
        name=name,
        meta=episode,
        data=data,
        cameras=tuple(places),
        facts=tuple(facts),
        num_bytes=num_bytes,
        duration_s=episode.length / float(info.rate_hz),
    )


def _problem(error: SourceError) -> tuple[str, str]:
    return error.code.value, f"{error.where}: {error.message}" if error.where else error.message


def _size(root: Path, path: str, code: Code) -> int:
    return check_regular(inside(root, path), where=path, missing=code)


def _strays(root: Path, claimed: set[str], problem: tuple[str, str]) -> Iterator[Listed]:
    for path in sorted(root.rglob("*.parquet")):
        name = path.relative_to(root).as_posix()
        if name not in claimed and not name.startswith("meta/"):
            yield Listed(name=name.removesuffix(".parquet"), data=name, problem=problem)


def _uncounted(key: str) -> Fact:
    return Fact(
        name=f"video_start.{key}",
        value="round(from_timestamp * fps)",
        certainty=Certainty.UNVERIFIED,
        source="the lengths of the episodes before it do not add up to the claimed start time",
    )
