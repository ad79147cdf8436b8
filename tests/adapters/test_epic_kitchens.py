"""EPIC-KITCHENS-100: segments by timestamp, one test per way a download is known to be broken, and the real CSV files."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from adapters.epic_kitchens.adapter import EpicKitchens
from adapters.epic_kitchens.segments import is_extension, read_rows, seconds
from jobs.demo.raw import Written
from schemas.errors import Code, ConfigError, SourceError
from tests.adapters.video_clips import assert_healthy, by_id, problems, refs_of, window_of
from tests.generators.epic_kitchens import LABELS, NEW, OLD, SILENT, TIMES, write_rows

ADAPTER = EpicKitchens()


def rewrite(root: Path, change: Callable[[list[dict[str, str]]], None]) -> None:
    path = root / "epic-kitchens-100-annotations" / "EPIC_100_validation.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    write_rows(path, rows, [*TIMES, *LABELS])


def test_a_healthy_download(pristine: Written) -> None:
    episodes = assert_healthy(ADAPTER, pristine)
    first, second, test, window = episodes.values()
    assert [i.text for i in first.instructions] == ["take plate"]
    assert [i.text for i in second.instructions] == ["put down wooden spoon"]
    assert test.instructions == window.instructions == ()
    assert [e.rate_hz for e in episodes.values()] == [
        Fraction(60000, 1001),
        Fraction(60000, 1001),
        Fraction(50),
        Fraction(30000, 1001),
    ]
    assert [e.subject_id for e in episodes.values()] == ["P01", "P01", "P02", "P03"]
    assert first.licence.licence_class == "non_commercial"
    assert first.raw_files[0].path == f"EPIC-KITCHENS/P01/videos/{OLD}.MP4"
    releases = [{f.name: f.value for f in e.facts}["release"] for e in episodes.values()]
    assert releases == ["EPIC-55", "EPIC-55", "extension", "EPIC-55"]


def test_segments_go_by_timestamp_never_by_frame(root: Path) -> None:
    """start_frame 30 is 0.5 s at 60 fps; in this 59.94 fps video frame 30 is at 0.5005 s, and here it is nonsense too."""
    rewrite(root, lambda rows: rows[1].update(start_frame="99999", stop_frame="7"))
    window = window_of(ADAPTER.load(by_id(refs_of(ADAPTER, root))[f"{OLD}_1"]))
    assert (window.start_s, window.end_s) == (0.5, 2.5)


def test_a_segment_past_the_end_is_cut_and_says_so(root: Path) -> None:
    rewrite(root, lambda rows: rows[1].update(stop_timestamp="00:00:09.00"))
    refs = by_id(refs_of(ADAPTER, root))
    long, whole = ADAPTER.load(refs[f"{OLD}_1"]), ADAPTER.load(refs[f"{OLD}_0"])
    assert window_of(long).end_s == pytest.approx(3.0, abs=0.01)
    (fact,) = (f for f in long.facts if f.name == "segment_clamped.ego")
    assert fact.value.startswith("[0.5, 9.0) s ends where the file does: [0.0, 3.00")
    assert not any(f.name.startswith("segment_clamped") for f in whole.facts)


def test_a_segment_behind_the_end_is_a_bad_annotation(root: Path) -> None:
    rewrite(
        root,
        lambda rows: rows[1].update(start_timestamp="00:01:00.00", stop_timestamp="00:01:01.00"),
    )
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(by_id(refs_of(ADAPTER, root))[f"{OLD}_1"])
    assert caught.value.code is Code.BAD_ANNOTATION


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"stop_timestamp": "00:00:00.10"}, f"{OLD}_1"),
        ({"start_timestamp": ""}, f"{OLD}_1"),
        ({"start_timestamp": "nan"}, f"{OLD}_1"),
        ({"stop_timestamp": "00:00:61.00"}, f"{OLD}_1"),
        ({"video_id": "../../etc/passwd"}, f"{OLD}_1"),
        ({"narration_id": "../../x"}, "row 2"),
        ({"narration": "x" * 3000}, f"{OLD}_1"),
        ({"narration_id": f"{OLD}_0"}, f"{OLD}_0"),
    ],
)
def test_a_row_that_does_not_hold_costs_only_itself(
    root: Path, change: dict[str, str], name: str
) -> None:
    rewrite(root, lambda rows: rows[1].update(change))
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {f"{name} (row 2)": "bad_annotation"}
    assert {f"{OLD}_0", f"{NEW}_0", f"{SILENT}/0000"} < set(by_id(refs))


def test_a_missing_video_is_one_episode_that_says_how_much_it_costs(root: Path) -> None:
    (root / "EPIC-KITCHENS" / "P01" / "videos" / f"{OLD}.MP4").unlink()
    (ref,) = (r for r in refs_of(ADAPTER, root) if r.problem)
    assert (ref.episode_id, ref.problem[0]) == (f"{OLD}/video", "missing_video")
    assert "2 segments" in ref.problem[1]
    assert ref.stands_for == 2
    assert ADAPTER.survey(root, {}).details["segments_without_video"] == "2"


def test_options_and_roots(root: Path, tmp_path: Path) -> None:
    assert set(by_id(refs_of(ADAPTER, root, splits="test"))) == {f"{NEW}_0"}
    moved = tmp_path / "elsewhere"
    shutil.move(root / "epic-kitchens-100-annotations", moved)
    assert set(by_id(refs_of(ADAPTER, root))) == {f"{v}/0000" for v in (OLD, NEW, SILENT)}
    assert f"{OLD}_1" in by_id(refs_of(ADAPTER, root / "EPIC-KITCHENS", annotations=str(moved)))


@pytest.mark.parametrize("text", ["a,b\n1,2\n", '"\n', "\xff"])
def test_a_file_that_is_no_such_csv_stops_the_run(root: Path, text: str) -> None:
    path = root / "epic-kitchens-100-annotations" / "EPIC_100_validation.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        ADAPTER.survey(root, {})


def test_times_and_releases() -> None:
    assert seconds("00:00:02.86") == 2.86
    assert seconds("01:02:03") == 3723.0
    assert [seconds(t) for t in ("2.86", "00:60:00", "-1:00:00", "0x:00:00", "00:00:1e3")] == [
        None
    ] * 5
    assert [is_extension(n) for n in ("P01_11", "P01_11_109", "P01_109", "P01_109_11", "P01_109/0000")] == [
        False, False, True, True, True,
    ]  # fmt: skip


@pytest.mark.real
def test_the_real_rows(samples: Path) -> None:
    """Counts of the page; every row holds; frames count at 60 and 50 fps; one row runs past its video's end."""
    folder = samples / "epic_kitchens" / "annotations"
    counts = {
        "EPIC_100_validation.csv": 9_668,
        "EPIC_100_test_timestamps.csv": 13_092,
        "UDA_annotations/EPIC_100_uda_source_train.csv": 16_115,
    }
    with (folder / "EPIC_100_video_info.csv").open(encoding="utf-8") as file:
        ends = {r["video_id"]: float(r["duration"]) for r in csv.DictReader(file)}
    over = []
    for name, count in counts.items():
        rows = list(read_rows(folder / name))
        with (folder / name).open(encoding="utf-8") as file:
            raw = list(csv.DictReader(file))
        assert len(rows) == count
        assert not [r for r in rows if r.why]
        over += [r.narration_id for r in rows if r.stop_s > ends[r.video_id]]
        for found, fields in zip(rows, raw, strict=True):
            fps = 50 if is_extension(found.video_id) else 60
            assert abs(int(fields["stop_frame"]) - found.stop_s * fps) <= 1
    assert over == ["P29_05_563"]


@pytest.mark.real
def test_the_real_annotations_without_videos(samples: Path) -> None:
    """138 and 67 videos are missing, each once, with all 22,760 segments accounted for."""
    refs = refs_of(ADAPTER, samples / "epic_kitchens")
    assert set(problems(refs).values()) == {"missing_video"}
    assert len(refs) == 138 + 67
    assert sum(ref.stands_for for ref in refs) == 9_668 + 13_092
