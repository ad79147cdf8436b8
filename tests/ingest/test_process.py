"""One bad episode, every way there is: it gets its code, the others are committed, what was there does not change."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adapters.base import SourceInfo
from adapters.containers.safe_path import inside
from ingest.corpus.staging import options_digest, staged_outcome, staged_rows_of, work_digest
from ingest.pipeline.process import Work, process
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from schemas.episode import (
    Camera,
    EncodedImages,
    Episode,
    EpisodeRef,
    Licence,
    Stream,
    Unit,
    VideoSpan,
    gripper_channel,
    pose_channel,
    vector_channel,
)
from schemas.errors import Code, SourceError, TransientError
from schemas.outcome import Outcome, State
from tests.faults.runs import facts, run, tree
from tests.faults.toy import Toy, write_toy

ODD = "tests.ingest.test_process:Odd"
S = 1_000_000_000
NAN = float("nan")


def gripper(t_ns: Any, values: Any) -> Stream:
    spec = gripper_channel("left.gripper_opening", binary=False)
    return Stream(spec=spec, t_ns=np.asarray(t_ns, dtype=np.int64), values=values)


def with_gripper(t_ns: Any, values: Any) -> Callable[[Episode], Episode]:
    """The good episode with another gripper stream."""
    return lambda good: replace(good, streams=(good.streams[0], gripper(t_ns, values)))


def turned_inside_out(good: Episode) -> Episode:
    T = np.tile(np.diag([1.0, 1, -1, 1]), (2, 1, 1))
    mirror = Stream(spec=pose_channel("left.T_base_eef"), t_ns=np.array([0, S]), values=T)
    return replace(good, streams=(mirror,))


def commands_only(good: Episode) -> Episode:
    spec = vector_channel("raw_command", 1, Unit.SOURCE, hold=True)
    only = Stream(spec=spec, t_ns=np.array([0, S]), values=np.zeros((2, 1)))
    return replace(good, streams=(only,), cameras=())


def pictures(*images: bytes) -> Callable[[Episode], Episode]:
    """The good episode with other pictures."""
    t_ns = np.arange(len(images)) * S
    camera = Camera(name="front", frames=EncodedImages(images=images), t_ns=t_ns)
    return lambda good: replace(good, streams=(), cameras=(camera,))


def video_that_is_not_there(good: Episode) -> Episode:
    span = VideoSpan(path=str(Path(good.ref.root) / "gone.mp4"), first_frame=0, num_frames=2)
    return replace(good, cameras=(Camera(name="front", frames=span, t_ns=np.array([0, S])),))


def frames_without_instants(good: Episode) -> Episode:
    span = VideoSpan(path="v.mp4", first_frame=0, num_frames=3)
    return replace(good, cameras=(Camera(name="front", frames=span, t_ns=np.array([0, S])),))


def raising(error: Exception) -> Callable[[Episode], Episode]:
    def load(good: Episode) -> Episode:
        raise error

    return load


ODDITIES: dict[str, tuple[Callable[[Episode], Episode], Code]] = {
    "nan": (with_gripper([0, S], [[0.0], [NAN]]), Code.NOT_FINITE),
    "infinity": (with_gripper([0, S], [[np.inf], [0.0]]), Code.NOT_FINITE),
    "backwards": (with_gripper([S, 0], [[0.0], [1.0]]), Code.CLOCK_NOT_INCREASING),
    "stands_still": (with_gripper([0, 0], [[0.0], [1.0]]), Code.CLOCK_NOT_INCREASING),
    "zero_length": (with_gripper([], np.zeros((0, 1))), Code.EMPTY_EPISODE),
    "wrong_shape": (with_gripper([0, S], np.zeros((2, 2))), Code.SHAPE_MISMATCH),
    "no_common_time": (with_gripper([50 * S, 51 * S], np.zeros((2, 1))), Code.NO_COMMON_TIME),
    "too_long": (
        lambda good: replace(good, streams=(gripper([0, 1001 * S], np.zeros((2, 1))),), cameras=()),
        Code.TOO_LONG,
    ),
    "a_wild_clock": (
        lambda good: replace(good, streams=(gripper([0, 2**62], np.zeros((2, 1))),), cameras=()),
        Code.TOO_LONG,
    ),
    "inside_out": (turned_inside_out, Code.NOT_A_ROTATION),
    "commands_only": (commands_only, Code.EMPTY_EPISODE),
    "twice": (lambda good: replace(good, streams=good.streams * 2), Code.CONTRACT_BROKEN),
    "nothing": (lambda good: replace(good, streams=(), cameras=()), Code.EMPTY_EPISODE),
    "no_picture": (pictures(b"not a picture", b"nor this"), Code.CORRUPT_IMAGE),
    "no_video": (video_that_is_not_there, Code.MISSING_VIDEO),
    "frame_count": (frames_without_instants, Code.FRAME_COUNT),
    "no_permission": (raising(PermissionError(errno.EACCES, "denied")), Code.UNREADABLE),
    "no_file": (raising(FileNotFoundError(errno.ENOENT, "gone")), Code.UNREADABLE),
    "a_folder": (raising(IsADirectoryError(errno.EISDIR, "folder")), Code.UNREADABLE),
    "version": (raising(SourceError(Code.UNKNOWN_VERSION, "v9")), Code.UNKNOWN_VERSION),
    "traversal": (
        lambda good: replace(good, scene_id=str(inside(Path(good.ref.root), "../../etc/passwd"))),
        Code.UNSAFE_PATH,
    ),
}


class Odd(Toy):
    """The toy source, with an oddity by kind: built in `load`, as an adapter meets it."""

    name = "odd"

    def load(self, ref: EpisodeRef) -> Episode:
        good = super().load(replace(ref, locator=(("kind", "good"),)))
        kind = ref.at("kind")
        return ODDITIES[kind][0](good) if kind in ODDITIES else good


def test_every_oddity_is_set_aside_and_nothing_else_changes(tmp_path: Path) -> None:
    raw, out = write_toy(tmp_path / "raw", {"a": "good", "b": "good"}), tmp_path / "corpus"
    run(raw, out, source=ODD, run_id="1")
    kept = {
        name: digest
        for name, digest in tree(out / "datasets").items()
        if name.endswith((".parquet", ".mp4"))
    }
    assert len(kept) == 4
    before = facts(out, "episodes")
    kinds = {kind: kind for kind in ODDITIES} | {"c": "good"}
    write_toy(raw, {"a": "good", **kinds, "b": "good"})
    tally = run(raw, out, source=ODD, run_id="2")
    assert tally.adds_up
    assert (tally.committed, tally.quarantined, tally.failed) == (3, len(ODDITIES), 0)
    found = {
        verdict["episode_id"]: verdict["code"]
        for verdict in facts(out, "verdicts")
        if verdict["state"] == "quarantined"
    }
    assert found == {kind: code.value for kind, (_, code) in ODDITIES.items()}
    after = tree(out / "datasets")
    assert kept.items() <= after.items()
    assert all(row in facts(out, "episodes") for row in before)
    assert list((out / "staging").iterdir()) == []
    lines = (out / "quarantine" / "2.jsonl").read_text().splitlines()
    assert len(lines) == len(ODDITIES)


# --- one episode at a time ----------------------------------------------------------------------------------------------


def work(tmp_path: Path, kind: str = "good", **recipe: Any) -> Work:
    write_toy(tmp_path / "raw", {"a": kind})
    info = SourceInfo(source="toy", dataset="toy", licence=Licence(name="CC0"))
    (ref,) = Odd().discover(tmp_path / "raw", info)
    return Work(
        ref=ref, adapter=ODD, recipe=Recipe(**recipe), staging=str(tmp_path / "staging" / "a")
    )


def refuse(*args: object) -> Episode:
    raise AssertionError("the source was read again")


def test_a_staged_episode_is_picked_up_without_reading_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = process(work(tmp_path), LocalStorage())
    assert first.state is State.STAGED
    before = tree(tmp_path / "staging")
    monkeypatch.setattr(Odd, "load", refuse)
    assert process(work(tmp_path), LocalStorage()) == first
    assert tree(tmp_path / "staging") == before


def test_a_half_written_attempt_is_done_again(tmp_path: Path) -> None:
    wanted = process(work(tmp_path), LocalStorage())
    before = tree(tmp_path / "staging")
    folder = tmp_path / "staging" / "a"
    (folder / "staged.arrow").unlink()  # written last: without it the rest counts for nothing
    (folder / "front.mp4").write_bytes(b"half")
    (folder / "wrist.mp4").write_bytes(b"of another recipe")
    assert process(work(tmp_path), LocalStorage()) == wanted
    assert tree(tmp_path / "staging") == before


def test_what_the_worker_returns_is_what_it_left(tmp_path: Path) -> None:
    outcome = process(work(tmp_path), LocalStorage())
    folder = tmp_path / "staging" / "a"
    assert staged_outcome(folder) == outcome
    assert staged_rows_of(folder).num_rows == outcome.num_frames
    assert outcome.staged is not None
    assert outcome.video_s == pytest.approx(outcome.num_frames / 10)
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_a_quarantined_episode_leaves_nothing_behind(tmp_path: Path) -> None:
    outcome = process(work(tmp_path, "nan"), LocalStorage())
    assert (outcome.state, outcome.code) == (State.QUARANTINED, "not_finite")
    assert "left.gripper_opening" in outcome.message
    assert not (tmp_path / "staging" / "a").exists()


def test_too_short_is_filtered_and_not_quarantined(tmp_path: Path) -> None:
    outcome = process(work(tmp_path, min_timesteps=1000), LocalStorage())
    assert (outcome.state, outcome.code) == (State.FILTERED, "too_short")
    assert not (tmp_path / "staging" / "a").exists()


def test_recipes_bound_the_source(tmp_path: Path) -> None:
    outcome = process(work(tmp_path, max_source_frames=3), LocalStorage())
    assert (outcome.state, outcome.code) == (State.QUARANTINED, "too_long")
    assert "camera front" in outcome.message


def test_a_problem_known_at_discovery_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "load", refuse)
    asked = work(tmp_path)
    ref = replace(asked.ref, problem=("missing_shard", "shard 3 of 7 is not there"))
    outcome = process(replace(asked, ref=ref), LocalStorage())
    assert (outcome.state, outcome.code) == (State.QUARANTINED, "missing_shard")
    assert "shard 3 of 7" in outcome.message


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_hiccup_of_storage_is_not_the_episodes_fault(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "load", lambda self, ref: raising(OSError(number, "hiccup"))(None))
    with pytest.raises(TransientError, match="hiccup"):
        process(work(tmp_path), LocalStorage())


def test_a_disk_that_is_full_is_not_the_episodes_fault(tmp_path: Path) -> None:
    class Full(LocalStorage):
        def write(self, path: Path, data: bytes, **how: bool) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        process(work(tmp_path), Full())


def test_the_digest_of_the_work_names_recipe_and_adapter() -> None:
    one = work_digest(Recipe(), 1, "")
    assert one == f"{Recipe().digest}-v1"
    others = [work_digest(Recipe(), 2, ""), work_digest(Recipe(gap_ms=100), 1, "")]
    assert one not in [*others, work_digest(Recipe(), 1, "0123abcd")]


def test_options_and_the_files_they_name_are_part_of_the_work(tmp_path: Path) -> None:
    """A mapping that was edited must not count its episodes as done."""
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("a")
    first = options_digest({"mapping": str(mapping)})
    assert first == options_digest({"mapping": str(mapping)})
    mapping.write_text("b")
    assert first != options_digest({"mapping": str(mapping)})
    assert options_digest({"licence": "A"}) != options_digest({"licence": "B"})
    assert options_digest({}) == ""


# --- cameras ------------------------------------------------------------------------------------------------------------


def test_intrinsics_follow_the_stored_picture(tmp_path: Path, monkeypatch: Any) -> None:
    """1024x512 becomes 512x256: focal lengths halve, the centre about the corner, half a pixel outside the first pixel.

    K_cam was given for 2048x1024: the centre of that picture, (1023.5, 511.5), must stay the centre, (255.5, 127.5).
    """
    image = cv2.imencode(".png", np.zeros((512, 1024, 3), np.uint8))[1].tobytes()
    K = np.array([[800.0, 0, 1023.5], [0, 400.0, 511.5], [0, 0, 1]])
    camera = Camera(
        name="front",
        frames=EncodedImages(images=(image,) * 2),
        t_ns=np.array([0, S // 10]),
        K_cam=K,
        K_size=(2048, 1024),
    )
    asked = work(tmp_path)
    good = Odd().load(asked.ref)
    monkeypatch.setattr(Odd, "load", lambda self, ref: replace(good, streams=(), cameras=(camera,)))
    outcome = process(asked, LocalStorage())
    assert outcome.staged is not None
    (stored,) = outcome.staged.episode.cameras
    assert (stored["width"], stored["height"]) == (512, 256)
    np.testing.assert_allclose(stored["K_cam"], [200, 0, 255.5, 0, 100, 127.5, 0, 0, 1])


def test_the_slowest_required_stream_does_not_decide_the_rate(tmp_path: Path) -> None:
    """10 Hz of timesteps whatever the source has; how fast it was is recorded."""
    asked = work(tmp_path)
    outcome = process(asked, LocalStorage())
    assert outcome.staged is not None
    row = outcome.staged.episode
    assert (row.source_rate, row.source_rate_hz) == ("10", 10.0)
    assert row.duration_s == pytest.approx(row.length / 10)
    assert Fraction(row.source_rate) == 10
