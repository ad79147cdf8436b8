"""Episodes of a rollout on the disk: each is one JSON file, written last and whole, so that a killed run goes on where it was.

OUT/settings.json            what every episode was played with; another value is refused
OUT/episodes/000007.json     seed, success, length and videos of one finished episode
OUT/videos/000007_CAMERA.mp4
OUT/result.json              all of them: success with its interval
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.json_text import DOCUMENT, parse_json, read_json
from training.durable import make_durable, make_folder, write_durably
from training.rollout.loop import scene_seed

SETTINGS_FILE, RESULT_FILE, EPISODES, VIDEOS = "settings.json", "result.json", "episodes", "videos"
OF_NO_RUN = {".lock", f".{SETTINGS_FILE}.part"}  # what a first run leaves that was stopped at once
KEYS = {"episode": int, "seed": int, "success_at": int | None, "length": int, "num_asked": int}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """All episodes, in their order. `num_new` of them were played now; the others lay there finished."""

    episodes: tuple[dict[str, Any], ...]
    num_new: int

    @property
    def num_successes(self) -> int:
        return sum(each["success_at"] is not None for each in self.episodes)


def check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Keep what the episodes are played with, or refuse to mix.

    Raises:
        ConfigError: the folder holds episodes of other settings, or something else.
    """
    path = out / SETTINGS_FILE
    stored = parse_json(json.dumps(dict(settings)))  # as a file has it: no tuples
    if path.exists():
        before = _object_of(path)
        changed = sorted(k for k in {*before, *stored} if before.get(k) != stored.get(k))
        if changed:
            problem = f"holds episodes with another {', '.join(changed)}"
            remedy = "use another --out, or the same options"
            raise ConfigError(problem, remedy=remedy, where=f"--out {out}")
        return
    if out.exists() and (not out.is_dir() or any(p.name not in OF_NO_RUN for p in out.iterdir())):
        problem = "is not empty, and holds no rollout"
        raise ConfigError(problem, remedy="use another folder", where=f"--out {out}")
    write_durably(path, json.dumps(stored, indent=1) + "\n")


def play_all(
    out: Path,
    count: int,
    seed: int,
    play: Callable[[int, int], dict[str, Any]],
    progress: Callable[[int], None] = lambda _: None,
) -> Played:
    """Play the episodes that are not finished yet.

    Args:
        play: from the number and the scene's seed of an episode to `KEYS` and `videos`; it writes the videos itself.

    Raises:
        ConfigError: a file of an episode is damaged.
    """
    for folder in (EPISODES, VIDEOS):
        make_folder(out / folder)
    episodes, num_new = [], 0
    for number in range(count):
        path = out / episode_path(number)
        scene = scene_seed(seed, number)
        stored = _finished(out, number, scene)
        if stored is None:
            stored = play(number, scene)
            make_durable(
                out / VIDEOS
            )  # the names of its videos, before the file that vouches for them
            write_durably(path, json.dumps(stored, indent=1) + "\n")
            num_new += 1
        episodes.append(stored)
        progress(number + 1)
    return Played(episodes=tuple(episodes), num_new=num_new)


def video_path(number: int, camera: str) -> str:
    """Relative to OUT."""
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in camera)
    return f"{VIDEOS}/{number:06d}_{name}.mp4"


def episode_path(number: int) -> str:
    """Relative to OUT."""
    return f"{EPISODES}/{number:06d}.json"


def _finished(out: Path, number: int, scene: int) -> dict[str, Any] | None:
    """An episode whose videos are there too; None when it must be played (again).

    Raises:
        ConfigError: the file is damaged, or a copy of another episode's.
    """
    path = out / episode_path(number)
    if not path.exists():
        return None
    stored = _object_of(path)
    odd = [key for key, kind in KEYS.items() if not isinstance(stored.get(key), kind)]
    videos = stored.get("videos")
    if odd or not isinstance(videos, dict):
        problem = f"damaged: {', '.join(odd) or 'videos'}"
        remedy = "remove the file, and the episode is played again"
        raise ConfigError(problem, remedy=remedy, where=str(path))
    if (stored["episode"], stored["seed"]) != (number, scene):
        problem = f"is of episode {stored['episode']} and scene {stored['seed']}; expected {number} and {scene}"
        remedy = "remove the file, and the episode is played again"
        raise ConfigError(problem, remedy=remedy, where=str(path))
    is_whole = all(
        isinstance(facts, dict)
        and _num_bytes(out / video_path(number, camera)) == facts.get("num_bytes")
        for camera, facts in videos.items()
    )
    return stored if is_whole else None


def _num_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _object_of(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path, limits=DOCUMENT)
    except (DocumentError, SourceError) as error:
        raise ConfigError(
            f"cannot be read: {error}", remedy="remove the file", where=str(path)
        ) from error
    if not isinstance(value, dict):
        raise ConfigError("no JSON object", remedy="remove the file", where=str(path))
    return value


def check_cameras(cameras: Sequence[str]) -> None:
    """Raises ConfigError: two cameras would write the same video file."""
    paths = [video_path(0, camera) for camera in cameras]
    if len(set(paths)) < len(paths):
        problem = f"cameras {', '.join(cameras)} have the same file name"
        raise ConfigError(problem, remedy="rename one", where="--mapping")
