"""Any folder of videos: windows, captions, shards read in place, one test per way such a folder is broken."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from adapters.containers.video_clip import MAX_WINDOWS
from adapters.video_folder import VideoFolder
from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from jobs.demo.raw.video_files import write_scene
from schemas.errors import Code, SourceError
from tests.adapters.video_clips import assert_healthy, by_id, problems, refs_of, window_of
from tests.generators import video_folder as generator
from tests.generators.tar_shards import scene_bytes, write_tar


@pytest.fixture
def root(pristine: Written, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine.root, tmp_path / "kitchen"))


def test_a_healthy_folder(pristine: Written) -> None:
    episodes = assert_healthy(VideoFolder(), pristine)
    texts = [[i.text for i in e.instructions] for e in episodes.values()]
    assert texts == [["pick up the red box"], [], ["push the blue box"], ["wait"]]
    assert [e.rate_hz for e in episodes.values()] == [30, Fraction(25), 30, 30]
    first, _, third, _ = episodes.values()
    assert {f.path for f in first.raw_files} == {"a.mp4", "a.txt"}
    assert [f.path for f in third.raw_files] == [
        "shards/000000.tar:x/00000.mp4",
        "shards/000000.tar:x/00000.json",
    ]
    assert third.raw_files[0].num_bytes == len(scene_bytes(generator.SCENES["c"]))
    assert first.licence.licence_class == "unknown"


def test_survey(pristine: Written) -> None:
    info = VideoFolder().survey(pristine.root, {"licence": "CC0-1.0"})
    assert info.dataset == "kitchen"
    assert (info.details["videos"], info.details["shards"]) == ("2", "1")
    assert info.licence.name == "CC0-1.0"
    named = refs_of(VideoFolder(), pristine.root, name="mine")
    assert all(r.dataset == "mine" and r.episode_id.startswith("mine/") for r in named)


def test_long_videos_become_equal_windows(tmp_path: Path) -> None:
    write_scene(tmp_path / "v" / "a.mp4", Scene(duration_s=5.0), rate_hz=10)
    refs = refs_of(VideoFolder(), tmp_path / "v", window_s="2")
    spans = [window_of(VideoFolder().load(ref)) for ref in refs]
    assert [(round(w.start_s, 6), round(w.end_s, 6)) for w in spans] == [
        (0.0, 1.666667),
        (1.666667, 3.333333),
        (3.333333, 5.0),
    ]
    assert [r.episode_id for r in refs] == [f"v/a.mp4/{k:04d}" for k in range(3)]
    assert refs[0].duration_hint_s == pytest.approx(5 / 3)


def test_what_is_broken_is_counted_not_lost(root: Path) -> None:
    """A text file named .mp4 may be a playlist; an empty file, a cut shard, a link that leads out."""
    (root / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (root / "empty.mp4").write_bytes(b"")
    (root / "notar.tar").write_bytes(b"x" * 600)
    (root.parent / "secret.mp4").write_bytes((root / "a.mp4").read_bytes())
    (root / "link.mp4").symlink_to(root.parent / "secret.mp4")
    shard = root / "shards" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-12000])
    found = problems(refs_of(VideoFolder(), root))
    assert found == {
        "kitchen/list.mp4": "corrupt_video",
        "kitchen/empty.mp4": "corrupt_video",
        "kitchen/notar.tar": "unknown_layout",
        "kitchen/link.mp4": "unsafe_path",
        "kitchen/shards/000000.tar": "truncated",
    }
    whole = by_id(refs_of(VideoFolder(), root))
    assert "kitchen/shards/000000.tar/x/00000.mp4/0000" in whole


def test_broken_captions(root: Path) -> None:
    adapter = VideoFolder()
    for name, data, code in (
        ("a.txt", b"\xff\xfe", Code.BAD_ANNOTATION),
        ("a.txt", b"x" * (1 << 20) + b"y", Code.TOO_LARGE),
        ("a.json", b"[1]", Code.BAD_ANNOTATION),
        ("a.json", b"{", Code.BAD_ANNOTATION),
        ("a.json", b'{"text": "no such key"}', Code.BAD_ANNOTATION),
    ):
        for old in root.glob("a.[tj]*"):
            old.unlink()
        (root / name).write_bytes(data)
        ref = by_id(refs_of(adapter, root))["kitchen/a.mp4/0000"]
        with pytest.raises(SourceError) as caught:
            adapter.load(ref)
        assert caught.value.code is code, (name, data[:9])
    ref = by_id(refs_of(adapter, root, caption_key="text"))["kitchen/a.mp4/0000"]
    assert [i.text for i in adapter.load(ref).instructions] == ["no such key"]
    (root / "a.json").unlink()
    with pytest.raises(SourceError) as caught:
        adapter.load(ref)
    assert caught.value.code is Code.MISSING_FILE


def test_a_name_that_is_no_text(root: Path) -> None:
    (root / b"caf\xe9.mp4".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    assert problems(refs_of(VideoFolder(), root)) == {"kitchen/caf\ufffd.mp4": "unsafe_path"}


def test_members_of_a_shard(tmp_path: Path) -> None:
    video = scene_bytes(Scene(duration_s=1.0))
    files = {"a.left.mp4": video, "a.txt": b"two views", "b.mp4": b"", "../c.mp4": video}
    write_tar(tmp_path / "v" / "s.tar", files)
    refs = refs_of(VideoFolder(), tmp_path / "v")
    assert [r.episode_id for r in refs] == [
        "v/s.tar/a.left.mp4/0000",
        "v/s.tar/b.mp4",
        "v/s.tar/../c.mp4",
    ]
    assert list(problems(refs).values()) == ["truncated", "unsafe_path"]
    assert [i.text for i in VideoFolder().load(refs[0]).instructions] == ["two views"]


def test_a_header_that_lies_does_not_become_a_million_windows(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.containers.video_clip.MAX_WINDOWS", 1)
    assert MAX_WINDOWS == 100_000
    refs = by_id(refs_of(VideoFolder(), root, window_s="1"))
    assert refs["kitchen/a.mp4"].problem[0] == "corrupt_video"
