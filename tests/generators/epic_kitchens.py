"""A tiny EPIC-KITCHENS-100 download: an EPIC-55 video, one of the extension, one that nobody annotated, and the CSV files.

Layout: epic-kitchens/epic-kitchens-download-scripts:epic_downloader.py; columns and spellings: real rows of
EPIC_100_validation.csv and EPIC_100_test_timestamps.csv. The frame columns count at 60 and 50 fps as in the release.
"""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from jobs.demo.raw.video_files import write_scene

OLD, NEW, SILENT = "P01_01", "P02_101", "P03_04"
SCENES = {
    name: Scene(seed=k, duration_s=3.0) for k, name in enumerate((OLD, NEW, SILENT), start=40)
}
RATES = {OLD: Fraction(60000, 1001), NEW: Fraction(50), SILENT: Fraction(30000, 1001)}
TIMES = ["narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp"]
TIMES += ["stop_timestamp", "start_frame", "stop_frame"]
LABELS = ["narration", "verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes"]


def write(root: Path) -> Written:
    """Three segments in two videos, and one window."""
    for name, scene in SCENES.items():
        path = root / "EPIC-KITCHENS" / name[:3] / "videos" / f"{name}.MP4"
        write_scene(path, scene, rate_hz=RATES[name])
    folder = root / "epic-kitchens-100-annotations"
    rows = [
        row(OLD, 0, 0.0, 1.89, "take plate", "take", "plate", narrated="00:00:00.560"),
        row(OLD, 1, 0.5, 2.5, "put down wooden spoon", "put-down", "spoon:wooden", narrated=""),
    ]
    write_rows(folder / "EPIC_100_validation.csv", rows, [*TIMES, *LABELS])
    write_rows(folder / "EPIC_100_test_timestamps.csv", [row(NEW, 0, 1.25, 2.75)], TIMES)
    starts = {f"{OLD}_0": 0.0, f"{OLD}_1": 0.5, f"{NEW}_0": 1.25, f"{SILENT}/0000": 0.0}
    return Written(
        root=root,
        scenes={
            name: SCENES[name.rpartition("_")[0] if "/" not in name else SILENT] for name in starts
        },
        t0_s={name: first_frame_s(name, start) for name, start in starts.items()},
    )


def first_frame_s(name: str, start_s: float) -> float:
    """PTS of the first picture at or after an instant."""
    rate = next(rate for video, rate in RATES.items() if name.startswith(video))
    return float(-(-Fraction(start_s) * rate // 1) / rate)


def row(
    video: str,
    number: int,
    start_s: float,
    stop_s: float,
    narration: str = "",
    verb: str = "",
    noun: str = "",
    *,
    narrated: str = "00:00:01.100",
) -> dict[str, str]:
    fps = 60 if len(video) == 6 else 50
    return {
        "narration_id": f"{video}_{number}",
        "participant_id": video[:3],
        "video_id": video,
        "narration_timestamp": narrated,
        "start_timestamp": clock(start_s),
        "stop_timestamp": clock(stop_s),
        "start_frame": str(max(1, int(start_s * fps))),
        "stop_frame": str(int(stop_s * fps)),
        "narration": narration,
        "verb": verb,
        "verb_class": "0",
        "noun": noun,
        "noun_class": "2",
        "all_nouns": repr([noun]),
        "all_noun_classes": "[2]",
    }


def clock(time_s: float) -> str:
    return f"{int(time_s // 3600):02d}:{int(time_s // 60 % 60):02d}:{time_s % 60:05.2f}"


def write_rows(path: Path, rows: list[dict[str, str]], columns: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
