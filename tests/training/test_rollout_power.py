"""The power is cut while episodes of a policy are played: those that were reported as finished stay, and the same command plays the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.video.encode import seal
from tests.faults.call_sites import CallSite, asked_at, call_sites
from tests.faults.first_problem import few, first_problem
from tests.faults.journal import Journal, journal_of
from tests.training.test_run_power import ROLLOUTS
from training.durable import make_folder
from training.rollout.episodes import Played, check_settings, play_all, video_path

COUNT, SEED = 3, 5
SETTINGS = {"env": "metaworld/reach-v3", "seed": SEED}


def play_in(out: Path, play: list[int], progress: Callable[[int], None]) -> Played:
    """`COUNT` episodes; `play` gathers the numbers of those that were not finished before."""

    def one(number: int, scene: int) -> dict[str, Any]:
        play.append(number)
        path = video_path(number, "front")
        part = (out / path).with_name(".part")
        part.write_bytes(bytes([number]) * 700)
        _, num_bytes = seal(part)
        part.replace(out / path)
        videos = {"front": {"path": path, "num_bytes": num_bytes}}
        return {
            "episode": number,
            "seed": scene,
            "success_at": None,
            "length": 1,
            "num_asked": 1,
            "videos": videos,
        }

    make_folder(out)
    check_settings(out, SETTINGS)
    return play_all(out, COUNT, SEED, one, progress)


def problems(home: Path, acknowledged: list[str]) -> Iterator[str]:
    played: list[int] = []
    result = play_in(home / "out", played, lambda done: None)
    if again := [number for number in played if str(number + 1) in acknowledged]:
        yield f"played again, though reported as finished: {again}"
    if [each["episode"] for each in result.episodes] != list(range(COUNT)):
        yield f"the episodes are {result.episodes}"
    for number in range(COUNT):
        if (home / "out" / video_path(number, "front")).read_bytes() != bytes([number]) * 700:
            yield f"the video of episode {number} is not what was written"


def recorded(home: Path, is_left_out: Callable[[CallSite], bool] = lambda site: False) -> Journal:
    home.mkdir()
    with journal_of(home) as journal, asked_at(is_left_out):
        play_in(home / "out", [], lambda done: journal.note(str(done)))
    return journal


@pytest.mark.slow
def test_episodes_go_on_from_whatever_a_power_cut_leaves(tmp_path: Path) -> None:
    states, problem = first_problem(recorded(tmp_path / "home"), problems, few)
    assert not problem
    assert states > 30


@pytest.mark.slow
@pytest.mark.parametrize("site", [s for s in call_sites() if s.file == ROLLOUTS], ids=str)
def test_without_any_one_call_that_synchronises_they_would_not(
    site: CallSite, tmp_path: Path
) -> None:
    _, harm = first_problem(recorded(tmp_path / "home", site.__eq__), problems, few)
    assert harm, f"no rollout misses the call at {site}"
