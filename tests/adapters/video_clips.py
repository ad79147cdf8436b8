"""What every test of a source of plain human video asks: its refs, its windows, and whether the pictures are right."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from adapters.base import Adapter
from adapters.containers.raw_file import RangeReader
from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from schemas.episode import Episode, EpisodeRef, VideoWindow
from schemas.supervision import Task, allowed_tasks
from tests.pickling import travelled


def refs_of(adapter: Adapter, root: Path, **options: str) -> list[EpisodeRef]:
    refs = list(adapter.discover(root, adapter.survey(root, options)))
    assert len({ref.episode_id for ref in refs}) == len(refs)
    return refs


def by_id(refs: list[EpisodeRef]) -> dict[str, EpisodeRef]:
    return {ref.episode_id: ref for ref in refs}


def problems(refs: list[EpisodeRef]) -> dict[str, str]:
    return {ref.episode_id: ref.problem[0] for ref in refs if ref.problem}


def window_of(episode: Episode, camera: int = 0) -> VideoWindow:
    frames = episode.cameras[camera].frames
    assert isinstance(frames, VideoWindow)
    return frames


def pictures(window: VideoWindow) -> list[tuple[float, np.ndarray]]:
    """(PTS in s, RGB picture) of a window, read by plain PyAV."""
    start, end = window.byte_range or (0, Path(window.path).stat().st_size)
    with RangeReader(Path(window.path), start, end) as file, av.open(file) as container:
        shown = [(float(f.pts * f.time_base), f) for f in container.decode(video=0)]
        inside = [(t, f) for t, f in shown if window.start_s <= t < window.end_s]
        return [(t, f.to_ndarray(format="rgb24")) for t, f in inside]


def assert_shows(window: VideoWindow, scene: Scene, offset_s: float = 0.0) -> None:
    """The first picture is the scene at that instant, and not half a second later."""
    time_s, picture = pictures(window)[0]
    now, late = (scene.picture(offset_s + time_s + d).astype(float) for d in (0.0, 0.5))
    moved = (now != late).any(axis=-1)
    off = [np.abs(picture.astype(float) - p)[moved].mean() for p in (now, late)]
    assert off[0] < 0.5 * off[1], off


def assert_healthy(adapter: Adapter, written: Written) -> dict[str, Episode]:
    """Every episode of a healthy set: ids and order as written, right pictures, forecasting only."""
    refs = refs_of(adapter, written.root, **written.options)
    assert [ref.episode_id for ref in refs] == list(written.scenes)
    assert problems(refs) == {}
    assert travelled(refs) == refs
    assert refs_of(adapter, written.root, **written.options) == refs
    episodes = {ref.episode_id: adapter.load(ref) for ref in refs}
    for name, episode in episodes.items():
        assert (episode.embodiment, episode.streams) == ("human_video", ())
        window = window_of(episode)
        time_s, _ = pictures(window)[0]
        assert_shows(window, written.scenes[name], written.t0_s[name] - time_s)
        facts = {f.name: f for f in episode.facts}
        assert facts["camera_motion_removed"].value == "false"
        assert not any(f.is_for_actions for f in episode.facts)
        tasks, _ = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=0.0)
        assert tasks == (Task.VISUAL_FORECASTING,)
    return episodes
