"""Egocentric-10K: videos read inside their shards, one test per way a download is known to be broken."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from adapters.egocentric_10k import Egocentric10K
from ingest.video.camera_video import frame_clock
from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from schemas.errors import Code, SourceError
from schemas.fact import Certainty
from tests.adapters.video_clips import assert_healthy, by_id, problems, refs_of, window_of
from tests.generators import egocentric_10k as generator
from tests.generators.egocentric_10k import FIRST, LENS, SECOND, THIRD
from tests.generators.tar_shards import scene_bytes, write_tar

ADAPTER = Egocentric10K()
SHARD = "factory_001/workers/worker_001/factory001_worker001_part00.tar"


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def test_a_healthy_download(pristine: Written) -> None:
    before = sorted(pristine.root.rglob("*"))
    episodes = assert_healthy(ADAPTER, pristine)
    assert sorted(pristine.root.rglob("*")) == before, "nothing is unpacked"
    first, second, third = episodes.values()
    assert [(e.subject_id, e.scene_id) for e in (first, second, third)] == [
        ("factory_001/worker_001", "factory_001"),
        ("factory_001/worker_001", "factory_001"),
        ("factory_001/worker_002", "factory_001"),
    ]
    assert first.instructions == ()
    assert first.rate_hz == 30
    assert first.licence.licence_class == "unknown"
    assert [f.path for f in second.raw_files] == [
        f"{SHARD}:{SECOND}.mp4",
        f"{SHARD}:{SECOND}.json",
    ]
    window = window_of(second)
    start, end = window.byte_range
    held = members(pristine.root / SHARD)[f"{SECOND}.mp4"]
    assert Path(window.path).read_bytes()[start:end] == held
    assert len(frame_clock(second.cameras[0])) == 60


def test_the_lens_is_a_fact_and_no_pinhole(root: Path) -> None:
    path = root / SHARD.replace("factory001_worker001_part00.tar", "intrinsics.json")
    ref = refs_of(ADAPTER, root)[0]

    def lens() -> tuple[str, Certainty]:
        episode = ADAPTER.load(ref)
        assert episode.cameras[0].K_cam is None
        (fact,) = (f for f in episode.facts if f.name == "lens")
        return fact.value, fact.certainty

    assert (json.loads(lens()[0]), lens()[1]) == (LENS, Certainty.THIRD_PARTY)
    for text in (
        "{",
        json.dumps(LENS | {"fx": None}),
        json.dumps(LENS | {"model": "pinhole"}),
        '{"a": NaN}',
    ):
        path.write_text(text)
        assert lens()[1] is Certainty.UNKNOWN
    path.unlink()
    assert lens()[1] is Certainty.UNKNOWN


def test_a_cut_shard_gives_what_lies_before_the_cut(root: Path) -> None:
    with tarfile.open(root / SHARD) as archive:
        at = archive.getmember(f"{SECOND}.mp4").offset_data
    with (root / SHARD).open("r+b") as file:
        file.truncate(at + 700)
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {SHARD: "truncated"}
    assert {f"{FIRST}/0000", f"{THIRD}/0000"} < set(by_id(refs))


def test_a_shard_that_shrinks_after_discovery(root: Path) -> None:
    ref = refs_of(ADAPTER, root)[1]
    with (root / SHARD).open("r+b") as file:
        file.truncate(9000)
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code is Code.TRUNCATED


def test_orphans_strangers_and_hostile_members(root: Path) -> None:
    held = members(root / SHARD)
    del held[f"{FIRST}.json"], held[f"{SECOND}.mp4"]
    held |= {"README.txt": b"hello", f"{FIRST[:-1]}7.mp4": b"", f"{FIRST[:-1]}7.json": b"{}"}
    held |= {
        "../../evil.mp4": b"x",
        f"{FIRST[:-1]}8.mp4": b"no video",
        f"{FIRST[:-1]}8.json": b"{}",
    }
    write_tar(root / SHARD, held)
    assert problems(refs_of(ADAPTER, root)) == {
        FIRST: "missing_meta",
        SECOND: "missing_video",
        f"{FIRST[:-1]}7": "truncated",
        f"{FIRST[:-1]}8": "corrupt_video",
        f"{SHARD}/../../evil.mp4": "unsafe_path",
    }


def test_a_video_in_two_shards(root: Path) -> None:
    again = SHARD.replace("part00", "part01")
    shutil.copy(root / SHARD, root / again)
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {f"{again}/{name}": "unsafe_content" for name in (FIRST, SECOND)}


@pytest.mark.parametrize("text", ['{"factory_id": 1}', "[]", "{", '{"factory_id": ""}'])
def test_a_json_that_does_not_name_the_worker(root: Path, text: str) -> None:
    held = members(root / SHARD) | {f"{FIRST}.json": text.encode()}
    write_tar(root / SHARD, held)
    ref = by_id(refs_of(ADAPTER, root))[f"{FIRST}/0000"]
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code is Code.BAD_ANNOTATION


def test_long_videos_become_equal_windows(tmp_path: Path) -> None:
    """150 s are three windows of 50 s; ids and worker are those of the whole."""
    video = scene_bytes(Scene(duration_s=150.0, width=32, height=32), rate_hz=1)
    about = json.dumps(generator.about(1, 0, len(video))).encode()
    worker = tmp_path / "factory_001" / "workers" / "worker_001"
    write_tar(worker / "a.tar", {f"{FIRST}.mp4": video, f"{FIRST}.json": about})
    for root in (tmp_path, tmp_path / "factory_001", worker.parent, worker):
        refs = refs_of(ADAPTER, root)
        assert [r.episode_id for r in refs] == [f"{FIRST}/{k:04d}" for k in range(3)]
    spans = [window_of(ADAPTER.load(ref)) for ref in refs]
    assert [(w.start_s, w.end_s) for w in spans] == [(0, 50), (50, 100), (100, 150)]
    assert ADAPTER.survey(tmp_path, {}).details["workers"] == "1"
